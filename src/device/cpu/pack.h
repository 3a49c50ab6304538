// Weights in the order the CPU kernels read ("repacked at load"): rows (outputs) in groups of 16, so that a
// vector lane is an output row. Same bytes as the file for every fast type (rows padded to 16), values exact.
// Pure functions, any thread.
//
// A group of 16 rows is contiguous; in it one record per block of 32 columns (256 for the K types):
//   "tile"    64 bytes: 16 rows x 4 bytes, the bytes being 4 neighbouring columns of that row
//   "scales"  16 x f16, one per row
//   Q4_0   scales | 4 tiles: low nibbles columns 4t..4t+3, high nibbles columns 16+4t..
//   Q4_1   scales, minimums | 4 tiles
//   Q5_0   scales | high bits | 4 tiles     high bits: tile whose byte's bit j is that of column group j
//   (0..7) Q5_1   scales, minimums | high bits | 4 tiles Q8_0   scales | 8 tiles of (q + 128) as unsigned
//   bytes Q4_K   d, dmin | 192 B: 6-bit scales and minimums | 8 x 4 tiles Q5_K   d, dmin | 192 B | 8 x (high
//   bits | 4 tiles) Q6_K   d | 16 x i8 x 16 rows as 4 tiles (byte k of tile j: scale of columns 16(4j+k)..) |
//   8 x (2 tiles of
//          2-bit pairs: bits 2j, 2j+1 of a byte of tile h belong to column group 4h+j | 4 tiles)
//   F16, F32   per column 16 rows
//   BF16       per pair of columns 16 rows x 2 values
//   others      the file's bytes, row after row ("raw"): dequantised on the fly
// The 192 bytes: three tiles; byte k of tile j, low 6 bits: j = 0 scales of blocks 0..3, j = 1 scales of
// blocks 4..7, j = 2 minimums of blocks 0..3; the top two bits of tiles 0, 1, 2 together (low to high)
// minimums 4..7.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/dtype.h"

namespace steelyard::cpu {

inline constexpr std::uint32_t kRowGroup = 16;

struct PackedMatrix {  // a view
  DType type = DType::F32;
  std::uint32_t rows = 0, cols = 0;
  const std::byte* data = nullptr;  // 64-byte aligned if is_packed(type)
};

// False: kept as in the file and multiplied by a correct but slow kernel.
bool is_packed(DType type);

// Exact size of the packed form (of the file's form for raw types).
std::uint64_t packed_bytes(DType type, std::uint64_t rows, std::uint64_t cols);

// Offset of the group that holds row `row` (a multiple of 16 for packed types).
std::uint64_t packed_row_offset(DType type, std::uint64_t cols, std::uint64_t row);

// Packs rows [row_begin, row_end) of `raw` (the whole tensor's bytes) into dst (the whole packed matrix).
// row_begin is a multiple of 16, row_end too or == rows; so threads can share a matrix by groups.
void pack(DType type, const std::byte* raw, std::uint64_t rows, std::uint64_t cols, std::uint64_t row_begin,
          std::uint64_t row_end, std::byte* dst);

// out[cols]: bit-equal to quant/'s dequantize of that row.
void dequantize_row(const PackedMatrix& matrix, std::uint32_t row, float* out);

}  // namespace steelyard::cpu
