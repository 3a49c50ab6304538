// What may be asked of how an answer is drawn: names (Ollama's), ranges, defaults and meanings, once. The
// API's "options", the chat's parameters, `run`'s flags and the engine's own check read this table. Pure
// functions over constants: thread-safe.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "decoder/batch.h"
#include "device/step.h"

namespace steelyard {

struct AnswerOptions {
  SamplingParams sampling;
  bool random_seed = true;        // draw sampling.seed; the answer tells which
  std::int32_t num_predict = -1;  // at most so many tokens; negative: until the context is full
  std::vector<std::string> stop;  // the answer ends before the first of these; at most kMaxStops
};
inline constexpr std::size_t kMaxStops = 64, kMaxStopBytes = 1024;  // of one

// An option whose value is one number. Its default is what a fresh AnswerOptions holds.
struct NumberOption {
  std::string_view name;
  double low, high;  // values from low to high are accepted, both included
  std::variant<float SamplingParams::*, std::int32_t SamplingParams::*, std::int32_t AnswerOptions::*> member;
  std::string_view meaning;  // for help texts

  bool whole() const { return !std::holds_alternative<float SamplingParams::*>(member); }
  double of(const AnswerOptions& options) const;
  // Throws Error(bad_input) naming the option and its range, also for what isn't whole but must be.
  void set(AnswerOptions& options, double value) const;
};

std::span<const NumberOption> number_options();
const NumberOption* find_number_option(std::string_view name);  // nullptr: there is none

// What somebody asked for: what isn't named is as the model's file or the defaults say.
struct AnswerWishes : AnswerOptions {
  std::vector<std::string_view> named;  // the numbers that were set

  void set(const NumberOption& option, double value);
  // With the numbers of `defaults` (LoadedModel::answer_defaults()) where none was named.
  AnswerOptions over(const AnswerOptions& defaults) const;
};

// The seed needs all bits of an integer: -1 draws one anew for each answer, any other is taken as it is.
void set_seed(AnswerOptions& options, std::int64_t seed);

// Names of all options: the numbers, seed and stop.
std::vector<std::string_view> answer_option_names();

// Throws Error(bad_input) naming the first option that is out of its range.
void check(const AnswerOptions& options);

}  // namespace steelyard
