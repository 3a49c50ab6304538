// Cuts a range of memory into parts, one after the other: how sizes are declared before memory is taken.
#pragma once

#include <cstdint>

namespace steelyard {

class Carver {
 public:
  // Parts start at multiples of `alignment` bytes.
  explicit Carver(std::uint64_t alignment) : alignment_(alignment) {}
  // Offset of a part of `bytes`.
  std::uint64_t take(std::uint64_t bytes) {
    const std::uint64_t at = end_;
    end_ += (bytes + alignment_ - 1) / alignment_ * alignment_;
    return at;
  }
  std::uint64_t end() const { return end_; }

 private:
  std::uint64_t alignment_, end_ = 0;
};

}  // namespace steelyard
