#include "device/cuda/hopper/weights/repack.h"

#include <algorithm>

#include "device/cuda/hopper/weights/format.h"

namespace steelyard::cuda {

void enqueue_repack(Launcher& launcher, DType type, std::uint32_t rows, std::uint32_t cols,
                    std::uint32_t row_begin, std::uint32_t row_end, DevicePtr raw, DevicePtr matrix) {
  const std::uint64_t groups = (row_end - row_begin + hopper::kGroupRows - 1) / hopper::kGroupRows;
  const std::uint64_t threads = groups * (cols / hopper::kChunkCols) * 32;
  KernelLaunch l{"repack_weights"};
  l.block[0] = 256;
  l.grid[0] = static_cast<std::uint32_t>(std::min<std::uint64_t>((threads + 255) / 256, 1 << 16));
  if (threads != 0) launcher(l, static_cast<int>(type), rows, cols, row_begin, row_end, raw, matrix);
}

}  // namespace steelyard::cuda
