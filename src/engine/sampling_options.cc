#include "engine/sampling_options.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <type_traits>

#include "base/error.h"

namespace steelyard {
namespace {

using P = SamplingParams;
constexpr double kMost = std::numeric_limits<std::int32_t>::max();

// clang-format off
constexpr std::array kNumbers = {
    NumberOption{"temperature",          0,   100, &P::temperature,       "0 always takes the likeliest token"},
    NumberOption{"top_k",               -1, kMost, &P::top_k,             "choose among so many likeliest tokens; 0 or -1: all"},
    NumberOption{"top_p",                0,     1, &P::top_p,             "choose among the likeliest that together have this probability"},
    NumberOption{"min_p",                0,     1, &P::min_p,             "leave out tokens less likely than this part of the likeliest"},
    NumberOption{"typical_p",            0,     1, &P::typical_p,         "locally typical sampling; 1: off"},
    NumberOption{"repeat_penalty",    0.01,   100, &P::repeat_penalty,    "makes tokens of the recent text less likely; 1: off"},
    NumberOption{"presence_penalty",  -100,   100, &P::presence_penalty,  "the same, by a fixed amount"},
    NumberOption{"frequency_penalty", -100,   100, &P::frequency_penalty, "the same, for each time it came"},
    NumberOption{"repeat_last_n",       -1, kMost, &P::repeat_last_n,     "tokens of recent text that the penalties see; -1: all"},
    NumberOption{"num_predict",         -2, kMost, &AnswerOptions::num_predict,
                 "most tokens of an answer; negative: until the context is full"},
};
// clang-format on

// The member of `options` that the option names, to `use`.
template <typename Options, typename Use>
auto with_member(const NumberOption& option, Options& options, const Use& use) {
  return std::visit(
      [&](auto member) {
        if constexpr (std::is_same_v<decltype(member), std::int32_t AnswerOptions::*>)
          return use(options.*member);
        else
          return use(options.sampling.*member);
      },
      option.member);
}

// Compared as floats: 0.01 went through a float member. Not a number is out of every range.
bool in_range(const NumberOption& option, double value) {
  const auto v = static_cast<float>(value);
  if (!(v >= static_cast<float>(option.low) && v <= static_cast<float>(option.high))) return false;
  return !option.whole() || (value == std::floor(value) && value <= option.high);
}

[[noreturn]] void refuse(const NumberOption& option, double value) {
  throw_error(ErrorKind::bad_input, "{} is {}, but must be a {}number from {} to {}", option.name, value,
              option.whole() ? "whole " : "", option.low, option.high);
}

}  // namespace

double NumberOption::of(const AnswerOptions& options) const {
  return with_member(*this, options, [](auto value) { return static_cast<double>(value); });
}

void NumberOption::set(AnswerOptions& options, double value) const {
  if (!in_range(*this, value)) refuse(*this, value);
  with_member(*this, options,
              [&](auto& to) { to = static_cast<std::remove_reference_t<decltype(to)>>(value); });
}

std::span<const NumberOption> number_options() { return kNumbers; }

const NumberOption* find_number_option(std::string_view name) {
  const auto* found =
      std::find_if(kNumbers.begin(), kNumbers.end(), [&](const auto& o) { return o.name == name; });
  return found == kNumbers.end() ? nullptr : found;
}

void AnswerWishes::set(const NumberOption& option, double value) {
  option.set(*this, value);
  named.push_back(option.name);
}

AnswerOptions AnswerWishes::over(const AnswerOptions& defaults) const {
  AnswerOptions o = *this;
  for (const NumberOption& option : number_options())
    if (std::find(named.begin(), named.end(), option.name) == named.end()) option.set(o, option.of(defaults));
  return o;
}

void set_seed(AnswerOptions& options, std::int64_t seed) {
  options.random_seed = seed == -1;
  if (!options.random_seed) options.sampling.seed = static_cast<std::uint64_t>(seed);
}

std::vector<std::string_view> answer_option_names() {
  std::vector<std::string_view> names;
  for (const NumberOption& option : kNumbers) names.push_back(option.name);
  names.insert(names.end(), {"seed", "stop"});
  return names;
}

void check(const AnswerOptions& options) {
  for (const NumberOption& option : kNumbers)
    if (!in_range(option, option.of(options))) refuse(option, option.of(options));
  if (options.stop.size() > kMaxStops)
    throw_error(ErrorKind::bad_input, "{} stop strings are too many, at most {}", options.stop.size(),
                kMaxStops);
  for (const std::string& stop : options.stop)
    if (stop.size() > kMaxStopBytes)
      throw_error(ErrorKind::bad_input, "a stop string of {} bytes is too long, at most {}", stop.size(),
                  kMaxStopBytes);
}

}  // namespace steelyard
