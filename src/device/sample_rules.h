// What every device's sampler does alike, to the bit. For the host and for nvcc.
#pragma once

#include <cstdint>

namespace steelyard {

// A uniform number in [0, 1) from a counter (SplitMix64's finaliser over seed and position): the same seed
// draws the same token at a position, on every device.
constexpr double uniform(std::uint64_t seed, std::int32_t position) {
  std::uint64_t z = seed + 0x9E3779B97F4A7C15ull * (static_cast<std::uint64_t>(position) + 1);
  for (int round = 0; round < 2; ++round) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    z ^= z >> 31;
  }
  return static_cast<double>(z >> 11) * 0x1.0p-53;
}

}  // namespace steelyard
