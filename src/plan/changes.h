// What to change so that a plan fits: fewer tokens of context, the smaller KV type, fewer sequences. Pure;
// what fits is asked.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

#include "device/target.h"

namespace steelyard {

inline constexpr std::uint32_t kContextStep = 256;  // the least context, and what contexts are multiples of

// Whether it fits with these limits, and with keys and values in Q8_0 if so asked.
using Fits = std::function<bool(const StepLimits& limits, bool q8_0)>;

// As loading would plan it: no more rows a step than there can be tokens; results for every sequence, if
// they `follow` the sequences.
StepLimits as_loaded(StepLimits limits, bool outputs_follow);

// The longest context that fits, at most `most`, in steps; 0 when none does. Larger contexts never need less.
std::uint32_t longest_context(StepLimits limits, bool q8_0, std::uint32_t most, const Fits& fits);

// The flags that make it fit: every set of as few changes as are enough ("--context 768, or --kv-type q8_0",
// "--context 512 --parallel 2 together"); empty when none does. `may_q8_0`: the KV type isn't that small yet.
std::string fewest_changes(const StepLimits& limits, bool may_q8_0, const Fits& fits);

}  // namespace steelyard
