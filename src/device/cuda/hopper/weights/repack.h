// Starts the kernel that repacks weights at load (repack.cu); it runs on every architecture.
#pragma once

#include "base/dtype.h"
#include "device/cuda/host/launch.h"

namespace steelyard::cuda {

// Repacks rows [row_begin, row_end) of a matrix with has_repacked_layout(). `raw` holds the file's bytes of
// these rows only (16-byte aligned, readable up to the next multiple of 16 bytes); `matrix` is the start of
// the whole repacked matrix. row_begin is a multiple of kRepackRows; row_end too, or == rows.
void enqueue_repack(Launcher& launcher, DType type, std::uint32_t rows, std::uint32_t cols,
                    std::uint32_t row_begin, std::uint32_t row_end, DevicePtr raw, DevicePtr matrix);

}  // namespace steelyard::cuda
