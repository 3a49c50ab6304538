// Cuts a row of units into one stretch for each device. Pure numbers.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <optional>
#include <vector>

namespace steelyard {

struct SplitInput {
  std::uint32_t units = 0;
  // By device, in the order of their stretches: seconds of units [0, u), u = 0 … units.
  std::vector<std::vector<double>> until;
  // The largest end of a stretch that begins at a unit and fits on a device; the begin itself: none does.
  std::function<std::uint32_t(std::size_t device, std::uint32_t begin)> reach;
  double between = 0;  // seconds of all hops
  // A round that is there already: a cut that can't be shorter needn't be the best.
  double known = std::numeric_limits<double>::infinity();
  std::uint32_t turns = 1;  // micro-batches under way: 1, or up to as many as there are devices
};

struct Split {
  std::vector<std::uint32_t> ends;  // by device; every device has a unit
  double sum = 0;                   // seconds of all stretches …
  double longest = 0;               // … and of the longest
  // Until every micro-batch has gone round: no device does two at a time, no batch overtakes itself.
  double round(const SplitInput& in) const;
};

// The least round; of equal ones the most even. nullopt: they don't fit.
std::optional<Split> best_split(const SplitInput& input);

}  // namespace steelyard
