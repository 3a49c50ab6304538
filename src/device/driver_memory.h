// What is taken of a device's memory beside arenas: the driver's context, kernels, graphs.
#pragma once

#include <cstdint>

namespace steelyard {

struct DriverMemory {
  std::uint64_t all = 0;  // bytes, of every process
  std::uint64_t own = 0;  // bytes, of this process; 0 unless told
  bool told = false;      // whether the driver tells processes apart: in some containers it doesn't
};

// What something took, by the readings before and after it. Where the driver doesn't tell processes apart,
// what others took or gave back meanwhile shows too.
inline std::uint64_t taken_between(const DriverMemory& before, const DriverMemory& after) {
  const auto growth = [](std::uint64_t a, std::uint64_t b) { return b > a ? b - a : 0; };
  return after.told ? growth(before.own, after.own) : growth(before.all, after.all);
}

}  // namespace steelyard
