#include "plan/changes.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>

#include "base/largest.h"

namespace steelyard {
namespace {

enum Change : unsigned { kContext = 1, kKvType = 2, kSlots = 4 };

std::uint32_t most_slots(StepLimits limits, bool q8_0, const Fits& fits) {
  return largest(limits.slots - 1, [&](std::uint32_t slots) {
    limits.slots = slots;
    return fits(limits, q8_0);
  });
}

// The flags of a set of changes that makes it fit; empty when it doesn't or when one of them isn't possible.
std::string try_changes(StepLimits limits, bool may_q8_0, const Fits& fits, unsigned set) {
  const bool q8_0 = set & kKvType;
  if ((q8_0 && !may_q8_0) || ((set & kSlots) && limits.slots < 2)) return {};
  std::string text;
  if (set & kSlots) {
    limits.slots = set & kContext ? 1 : most_slots(limits, q8_0, fits);
    if (limits.slots == 0) return {};
  }
  if (set & kContext) {
    limits.context = longest_context(limits, q8_0, limits.context - 1, fits);
    if (limits.context == 0) return {};
    text += fmt::format(" --context {}", limits.context);
  }
  if (!fits(limits, q8_0)) return {};
  if (q8_0) text += " --kv-type q8_0";
  if (set & kSlots) text += fmt::format(" --parallel {}", limits.slots);
  return text.substr(1);
}

}  // namespace

StepLimits as_loaded(StepLimits l, bool outputs_follow) {
  l.rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(l.rows, std::uint64_t{l.context} * l.slots));
  l.rows = std::max({l.rows, l.slots, 1u});
  if (outputs_follow) l.outputs = l.slots;
  return l;
}

std::uint32_t longest_context(StepLimits limits, bool q8_0, std::uint32_t most, const Fits& fits) {
  return kContextStep * largest(most / kContextStep, [&](std::uint32_t steps) {
           limits.context = steps * kContextStep;
           return fits(limits, q8_0);
         });
}

std::string fewest_changes(const StepLimits& limits, bool may_q8_0, const Fits& fits) {
  for (int size = 1; size <= 3; ++size) {
    std::string text;
    for (unsigned set = 1; set < 8; ++set) {
      if (std::popcount(set) != size) continue;
      const std::string way = try_changes(limits, may_q8_0, fits, set);
      if (!way.empty())
        text += fmt::format("{}{}{}", text.empty() ? "" : ", or ", way, size > 1 ? " together" : "");
    }
    if (!text.empty()) return text;
  }
  return {};
}

}  // namespace steelyard
