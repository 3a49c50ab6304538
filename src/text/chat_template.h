// Chat templates: the Jinja dialect that model publishers write, rendered byte for byte as Python's jinja2
// does in the environment of the transformers library (trim_blocks, lstrip_blocks, sandbox, loop controls,
// `generation` blocks, tojson without HTML escapes, raise_exception, strftime_now). Undefined values print as
// nothing; using one raises.
#pragma once

#include <chrono>
#include <cstddef>
#include <ctime>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stop_token>
#include <string>
#include <string_view>

namespace steelyard {

// What a template may spend; beyond it render() throws Error(bad_input).
struct TemplateLimits {
  std::size_t output_bytes = std::size_t{64} << 20;
  std::size_t steps = 20'000'000;  // nodes evaluated, items and bytes looked at; about a second
  std::size_t memory_bytes = std::size_t{256} << 20;  // strings and lists built on the way, added up
  std::chrono::milliseconds time{30'000};             // a net below the steps, which end far earlier
  std::stop_token stop;                               // asked to stop: Error(cancelled), within milliseconds
};

class ChatTemplate {
 public:
  // Compiles. Throws Error(bad_input) with the line for a syntax error.
  explicit ChatTemplate(std::string_view source);
  ~ChatTemplate();
  ChatTemplate(ChatTemplate&&) noexcept;
  ChatTemplate& operator=(ChatTemplate&&) noexcept;

  // `vars` is an object: messages, tools, documents, add_generation_prompt, bos_token, eos_token, … as the
  // template wants them; the order of keys is kept. `now` is what strftime_now sees (default: the local
  // time). Throws Error(bad_input): the message of raise_exception, or what went wrong and in which line.
  // Const and thread-safe.
  std::string render(const nlohmann::ordered_json& vars, const TemplateLimits& limits = {},
                     std::optional<std::time_t> now = std::nullopt) const;

  const std::string& source() const;

 private:
  struct Impl;
  std::unique_ptr<const Impl> impl_;
};

}  // namespace steelyard
