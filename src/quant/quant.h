// Blocks of quantised weights to floats and back, for every DType. Plain, portable and exact: kernels have
// their own fast readers and are tested against these. Pure functions, any thread.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace steelyard {

// Writes n_elements floats. Bit-exact with the format's definition: every product of scale, sub-scale and
// code is exact in float, so that one rounding is left at most (where a minimum is added or subtracted).
// `blocks` holds row_bytes(type, n_elements) bytes, at any alignment; n_elements is a multiple of the block.
void dequantize(DType type, const std::byte* blocks, std::uint64_t n_elements, float* out);

// Writes row_bytes(type, n_elements) bytes. Floats round to nearest even; blocks search for the scale with
// the least squared error (weighted by magnitude in the 256-weight types). Deterministic. Values that are not
// finite count as 0 in block types.
void quantize(DType type, const float* values, std::uint64_t n_elements, std::byte* out);

}  // namespace steelyard
