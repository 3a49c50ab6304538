#include <algorithm>

#include "device/cuda/fast.h"
#include "device/cuda/fast_format.h"

namespace strata::cuda {

std::unique_ptr<FastPlan> make_fast_plan(const FastInput&, CompileServices&) { return nullptr; }

void enqueue_repack(Launcher& launcher, DType type, std::uint32_t rows, std::uint32_t cols,
                    std::uint32_t row_begin, std::uint32_t row_end, DevicePtr raw, DevicePtr matrix) {
  const std::uint64_t groups = (row_end - row_begin + fast::kGroupRows - 1) / fast::kGroupRows;
  const std::uint64_t threads = groups * (cols / fast::kChunkCols) * 32;
  KernelLaunch l{"fast_repack"};
  l.block[0] = 256;
  l.grid[0] = static_cast<std::uint32_t>(std::min<std::uint64_t>((threads + 255) / 256, 1 << 16));
  if (threads != 0) launcher(l, static_cast<int>(type), rows, cols, row_begin, row_end, raw, matrix);
}

}  // namespace strata::cuda
