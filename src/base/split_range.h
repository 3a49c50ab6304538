// Cutting work into parts, one a thread.
#pragma once

#include <cstdint>

namespace steelyard {

// The part of `total` work units that `thread` of `n` does: contiguous, sizes differ by at most one.
struct Range {
  std::uint32_t begin, end;
  std::uint32_t size() const { return end - begin; }
};
constexpr Range split_range(std::uint32_t total, unsigned thread, unsigned n) {
  return {static_cast<std::uint32_t>(std::uint64_t{total} * thread / n),
          static_cast<std::uint32_t>(std::uint64_t{total} * (thread + 1) / n)};
}

}  // namespace steelyard
