#include "api/handlers.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "engine/chat.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kVersion = "0.1.0";

std::string short_count(std::uint64_t n) {
  if (n >= 1'000'000'000) return fmt::format("{:.1f}B", static_cast<double>(n) / 1e9);
  if (n >= 1'000'000) return fmt::format("{:.2f}M", static_cast<double>(n) / 1e6);
  return fmt::format("{}K", n / 1000);
}

Reply json_reply(const Json& json) {
  return {.body = json.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

void check_abilities(const LoadedModel& model, const ChatInput& input) {
  if (!model.chat_template()) return;
  const TemplateAbilities able = template_abilities(model.chat_template()->source());
  const std::string name = model.path().stem().string();
  if (input.think.value_or(false) && !able.thinking)
    throw_error(ErrorKind::bad_input, "\"{}\" does not support thinking", name);
  if (input.tools.is_array() && !able.tools)
    throw_error(ErrorKind::bad_input, "\"{}\" does not support tools", name);
}

// A prompt as the model's template wants it, after the conversation of `context` where there is one; a model
// without a template completes the text.
std::vector<TokenId> generate_prompt(const LoadedModel& model, const GenerateRequest& r) {
  if (r.raw || !model.chat_template()) {
    const bool system = r.system && !r.raw && r.context.empty();
    const std::string text = system ? *r.system + "\n\n" + r.prompt : r.prompt;
    return r.context.empty() ? model.encode_text(text, r.raw) : model.continue_text(text, r.context, r.raw);
  }
  ChatInput input;
  if (r.system && !r.system->empty()) input.messages.push_back({{"role", "system"}, {"content", *r.system}});
  input.messages.push_back({{"role", "user"}, {"content", r.prompt}});
  input.think = r.think;
  check_abilities(model, input);
  return r.context.empty() ? model.encode_chat(input) : model.continue_chat(input, r.context);
}

// Names as JSON strings, so that none writes a line of its own into the log.
std::string ignored_note(const Options& o) {
  constexpr std::size_t kMost = 8, kLongest = 40;
  std::string text;
  for (std::size_t i = 0; i < std::min(o.ignored.size(), kMost); ++i)
    text += (i ? ", " : "ignored options: ") +
            Json(o.ignored[i].substr(0, kLongest)).dump(-1, ' ', true, Json::error_handler_t::replace);
  return o.ignored.size() > kMost ? text + ", \u2026" : text;
}

// Member by member: in a braced list gcc 12 destroys default members twice when a later one throws.
Handled generation(std::unique_ptr<AnswerFormat> format, const CommonRequest& r,
                   const ModelManager::Lease& lease, std::vector<TokenId> prompt) {
  Handled h;
  h.format = std::move(format);
  h.model = lease.model;
  h.request.prompt = std::move(prompt);
  static_cast<AnswerOptions&>(h.request) = r.options;
  h.request.context = r.options.num_ctx;
  h.stream = r.stream;
  h.note = ignored_note(r.options);
  return h;
}

std::string path_of(std::string_view target) { return std::string(target.substr(0, target.find('?'))); }

Reply not_allowed(Dialect dialect, const std::string& path, std::string_view allow) {
  Reply reply = error_reply(dialect, 405u, fmt::format("{} takes {} only", path, allow));
  reply.allow = allow;
  return reply;
}

}  // namespace

Dialect dialect_of(std::string_view target) {
  return target.starts_with("/v1/") ? Dialect::openai : Dialect::native;
}

Handled Handlers::handle(const HttpRequest& request) const {
  const Dialect dialect = dialect_of(request.target);
  try {
    return route(request);
  } catch (const Error& e) {
    return {.reply = error_reply(dialect, e.kind(), e.what())};
  } catch (const std::exception& e) {
    return {.reply = error_reply(dialect, ErrorKind::internal, e.what())};
  }
}

Handled Handlers::route(const HttpRequest& r) const {
  const std::string path = path_of(r.target);
  const Dialect dialect = dialect_of(path);
  const bool get = r.method == "GET" || r.method == "HEAD", post = r.method == "POST";
  constexpr std::string_view kModels = "/v1/models/";
  if (path == "/" || path == "/api/version" || path == "/api/tags" || path == "/v1/models" ||
      path.starts_with(kModels)) {
    if (!get) return {.reply = not_allowed(dialect, path, "GET, HEAD")};
    if (path == "/")
      return {.reply = {.body = "Ollama is running", .content_type = "text/plain; charset=utf-8"}};
    if (path == "/api/version") return {.reply = json_reply({{"version", kVersion}})};
    if (path == "/api/tags") return {.reply = tags()};
    return {.reply = openai_models(path == "/v1/models" ? "" : path.substr(kModels.size()))};
  }
  if (path == "/api/generate" || path == "/api/chat" || path == "/v1/chat/completions") {
    if (!post) return {.reply = not_allowed(dialect, path, "POST")};
    if (path == "/api/generate") return generate(r.body);
    return path == "/api/chat" ? chat(r.body) : openai_chat(r.body);
  }
  return {.reply = error_reply(dialect, ErrorKind::not_found, fmt::format("there is no {} here", path))};
}

// What an empty prompt means: load the model, or with keep_alive 0 unload it.
Handled Handlers::load_or_unload(const CommonRequest& r, bool chat) const {
  if (r.keep_alive == KeepAlive::zero()) {
    models_.unload(r.model);
    return {.reply = loaded_reply(r.model, chat, "unload", 0)};
  }
  const auto lease = models_.acquire(r.model, r.keep_alive);
  return {.reply = loaded_reply(r.model, chat, "load", lease.load_ns)};
}

Handled Handlers::generate(const std::string& body) const {
  const GenerateRequest r = parse_generate(body);
  if (r.prompt.empty() && r.context.empty()) return load_or_unload(r, false);
  auto lease = models_.acquire(r.model, r.keep_alive);
  std::vector<TokenId> prompt = generate_prompt(*lease.model, r);
  AnswerFacts facts{.model = r.model, .load_ns = lease.load_ns};
  if (!r.raw) facts.prompt = prompt;
  return generation(generate_format(std::move(facts)), r, lease, std::move(prompt));
}

Handled Handlers::chat(const std::string& body) const {
  const ChatRequest r = parse_chat(body);
  if (r.input.messages.empty()) return load_or_unload(r, true);
  auto lease = models_.acquire(r.model, r.keep_alive);
  check_abilities(*lease.model, r.input);
  std::vector<TokenId> prompt = lease.model->encode_chat(r.input);
  return generation(chat_format({.model = r.model, .load_ns = lease.load_ns}), r, lease, std::move(prompt));
}

Handled Handlers::openai_chat(const std::string& body) const {
  const OpenAiChatRequest r = parse_openai_chat(body);
  auto lease = models_.acquire(r.model, r.keep_alive);
  check_abilities(*lease.model, r.input);
  std::vector<TokenId> prompt = lease.model->encode_chat(r.input);
  return generation(openai_format({.model = r.model, .load_ns = lease.load_ns}, r.include_usage), r, lease,
                    std::move(prompt));
}

Reply Handlers::tags() const {
  Json list = Json::array();
  for (const StoredModel& m : store_.list()) {
    if (!m.error.empty()) continue;
    list.push_back({{"name", m.name},
                    {"model", m.name},
                    {"modified_at", rfc3339(m.modified)},
                    {"size", m.bytes},
                    {"digest", m.digest},
                    {"details",
                     {{"format", "gguf"},
                      {"family", m.architecture},
                      {"families", {m.architecture}},
                      {"parameter_size", short_count(m.parameters)},
                      {"quantization_level", m.quantization}}}});
  }
  return json_reply({{"models", list}});
}

Reply Handlers::openai_models(std::string_view id) const {
  const auto entry = [](const StoredModel& m) {
    return Json{{"id", m.name},
                {"object", "model"},
                {"created", std::chrono::system_clock::to_time_t(m.modified)},
                {"owned_by", "library"}};
  };
  if (!id.empty()) return json_reply(entry(store_.find(id)));
  Json list = Json::array();
  for (const StoredModel& m : store_.list())
    if (m.error.empty()) list.push_back(entry(m));
  return json_reply({{"object", "list"}, {"data", list}});
}

}  // namespace steelyard::api
