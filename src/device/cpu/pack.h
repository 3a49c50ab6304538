// Weights in the order the CPU kernels read ("repacked at load"): rows (outputs) in groups of 16, so that a
// vector lane is an output row. Same bytes as the file for every fast type (rows padded to 16), values exact.
// Pure functions, any thread.
//
// A group of 16 rows is contiguous; in it one record per block of 32 columns (256 for the K types).
// clang-format off
//   "tile"      64 bytes: 16 rows x 4 bytes, the bytes being 4 neighbouring columns of that row
//   "scales"    16 x f16, one per row; minimums, d and dmin likewise
//   "high bits" a tile: bit j of a byte is the fifth bit of column group j (0..7)
//
//   type   record, from its first byte
//   Q4_0   scales | 4 tiles: low nibbles columns 4t..4t+3, high nibbles columns 16+4t..
//   Q4_1   scales | minimums | 4 tiles
//   Q5_0   scales | high bits | 4 tiles
//   Q5_1   scales | minimums | high bits | 4 tiles
//   Q8_0   scales | 8 tiles of q + 128 as unsigned bytes
//   Q4_K   d | dmin | 3 tiles of scales | 8 x (4 tiles)
//   Q5_K   d | dmin | 3 tiles of scales | 8 x (high bits | 4 tiles)
//   Q6_K   d | 4 tiles of i8 scales     | 8 x (2 tiles of bit pairs | 4 tiles)
//   MXFP4  scales as in the file, a byte a row | 4 tiles
//   IQ4_NL scales | 4 tiles
//   F16    one column of 16 rows        (F32 alike)
//   BF16   two columns of 16 rows, a row's two values side by side
//   others the file's bytes, row after row ("raw"): dequantised on the fly
//
//   scales of Q4_K, Q5_K: byte k of tile j; its low 6 bits are
//     j = 0: the scale of block k    j = 1: the scale of block 4+k    j = 2: the minimum of block k
//     and the top two bits of tiles 0, 1, 2 together (low to high) the minimum of block 4+k
//   scales of Q6_K: byte k of tile j is that of columns 16(4j+k)..
//   bit pairs: bits 2j, 2j+1 of a byte of tile h belong to column group 4h+j
// clang-format on
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
// row_begin is a multiple of 16, row_end too or == rows; so threads can share a matrix by groups. `stride`:
// bytes of raw from row to row, 0: a row's.
void pack(DType type, const std::byte* raw, std::uint64_t rows, std::uint64_t cols, std::uint64_t row_begin,
          std::uint64_t row_end, std::byte* dst, std::uint64_t stride = 0);

// out[cols]: bit-equal to quant/'s dequantize of that row.
void dequantize_row(const PackedMatrix& matrix, std::uint32_t row, float* out);

}  // namespace steelyard::cpu
