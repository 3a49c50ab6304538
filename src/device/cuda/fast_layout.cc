#include "device/cuda/fast_layout.h"

#include "device/cuda/fast_format.h"

namespace strata::cuda {

bool fast_has_layout(DType type, std::uint32_t, std::uint32_t cols) {
  const int t = static_cast<int>(type);
  return fast::is_fast(t) && cols != 0 &&
         cols % (fast::is_super(t) ? fast::kUnitCols : fast::kChunkCols) == 0;
}

std::uint64_t repacked_bytes(DType type, std::uint32_t rows, std::uint32_t cols) {
  const std::uint64_t groups = (rows + fast::kGroupRows - 1) / fast::kGroupRows;
  return (groups * fast::group_bytes(static_cast<int>(type), cols) + 255) / 256 * 256;
}

// The branch of a residual op with a norm of its own, as floats.
std::uint64_t fast_scratch_bytes(const Program& program, const StepLimits& limits, Mode mode) {
  if (mode != Mode::fast) return 0;
  return (std::uint64_t{limits.rows} * program.n_embd * sizeof(float) + 255) / 256 * 256;
}

}  // namespace strata::cuda
