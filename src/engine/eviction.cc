#include "engine/eviction.h"

#include <algorithm>
#include <tuple>

#include "engine/errors.h"

namespace steelyard {

EvictionCandidate eviction_candidate(const MemoryPlan& plan, const Lack& lack) {
  for (const DevicePlan& d : plan.devices)
    if (d.bytes(Purpose::weights) > 0 && (lack.device.empty() || d.device == lack.device))
      return {.device = d.device, .bytes = d.model_bytes()};
  return {};
}

Lack lack_of(const Error& error) {
  if (const auto* numbers = dynamic_cast<const NoRoom*>(&error))
    return {numbers->device, numbers->needed, numbers->available};
  return {.needed = 1};
}

Eviction choose_evictions(std::span<const EvictionCandidate> candidates, const Lack& lack) {
  std::vector<std::size_t> order;
  for (std::size_t i = 0; i < candidates.size(); ++i)
    if (lack.device.empty() || candidates[i].device == lack.device) order.push_back(i);
  std::ranges::sort(order, {}, [&](std::size_t i) {
    const EvictionCandidate& c = candidates[i];
    return std::tuple(!c.own, c.forever, c.busy, c.last_use);
  });
  Eviction eviction;
  std::uint64_t room = lack.available;
  for (const std::size_t i : order) {
    if (room >= lack.needed) break;
    eviction.go.push_back(i);
    room += std::max<std::uint64_t>(1, candidates[i].bytes);
  }
  eviction.enough = room >= lack.needed;
  return eviction;
}

}  // namespace steelyard
