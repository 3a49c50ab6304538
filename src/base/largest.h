// Binary search by a question.
#pragma once

#include <cstdint>

namespace steelyard {

// The largest of 1 … `most` for which `fits` holds; 0: none. Larger ones never fit where smaller don't.
template <typename Question>
std::uint32_t largest(std::uint32_t most, const Question& fits) {
  std::uint32_t low = 0, high = most;
  while (low < high) {
    const std::uint32_t middle = (low + high + 1) / 2;
    if (fits(middle))
      low = middle;
    else
      high = middle - 1;
  }
  return low;
}

}  // namespace steelyard
