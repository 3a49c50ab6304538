#include "device/cuda/fast_layout.h"

namespace strata::cuda {

bool fast_has_layout(DType, std::uint32_t, std::uint32_t) { return false; }

std::uint64_t repacked_bytes(DType type, std::uint32_t rows, std::uint32_t cols) {
  return (row_bytes(type, cols) * rows + 255) / 256 * 256;
}

std::uint64_t fast_scratch_bytes(const Program&, const StepLimits&, Mode) { return 0; }

}  // namespace strata::cuda
