// Device-side readers of repacked weights, for general kernels that meet a repacked matrix (embedding rows, row
// counts without a fast kernel).
#pragma once

#include <cstdint>

namespace strata::cuda {

// Columns [32 * block, 32 * block + 32) of row `row` as exact floats. `matrix`: the whole repacked matrix.
__device__ inline void repacked_block32(int type, const std::uint8_t* matrix, std::uint32_t rows, std::uint32_t cols,
                                        std::uint32_t row, std::uint32_t block, float* out) {}

}  // namespace strata::cuda
