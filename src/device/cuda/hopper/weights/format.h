// Geometry of repacked weights, shared by host code and kernels; no CUDA header.
//
// clang-format off
//   a matrix:
//                  chunk: 64 columns, two sub-blocks of 32
//               ├─────┤
//               ┌─────┬─────┬─────┬─────╥─────┬─────┬─────┬─────╥── …
//   group 0     │        16 rows        ║                       ║
//               ├─────┼─────┼─────┼─────╫─────┼─────┼─────┼─────╫── …
//   group 1     │                       ║                       ║
//               ├─────┼─────┼─────┼─────╫─────┼─────┼─────┼─────╫── …
//   …           │                       ║                       ║
//               ├── unit: 256 columns ──┤
//
// The words for pieces of work in these kernels:
//   group      16 rows of a matrix: the rows of an mma's left operand; what blocks share out
//   chunk      64 columns of a group        sub-block  32 of them, in most types with a scale of their own
//   unit       4 chunks, as they lie in memory: what one bulk copy brings into a ring; what warps share out
//   segment    a matrix among those that one product multiplies
//   share      a block's groups of a product, and how they are walked (Share, in the step kernel Walk)
//   phase      of a share: as many groups (and columns, "span") as shared memory has sums and input for
//   run        units of a phase that one warp multiplies, one after the other
//   ring       a warp's part of shared memory, which bulk copies fill and the warp reads; in gemm a block's
//   stage      gemm: a place in the ring for one chunk of all groups and of the rows of the step that meet them
//   tile       gemm: outputs × rows that a block makes at a time; attention: queries that share the pages they read
//   split      gemm: blocks (a cluster) that divide a tile's columns
//   worker     attention: who takes every n-th of a row's keys; the results of all are merged in their order
//   part       step kernel's attention: blocks that divide a KV head's keys, each with workers
//   slice      prefill: 64 dimensions of the keys or values of a page, as wgmma reads them
// clang-format on
//
// A matrix is cut into groups of 16 rows (the last one padded with zero rows), a group into chunks of 64
// columns. A chunk holds its weights in the order in which the 32 lanes of a warp feed them to mma.m16n8k16
// as the left operand: lane (g = lane / 4, t = lane % 4) owns rows g and g + 8 and, of each half chunk
// ("sub-block") of 32 columns, the columns 16 j + 4 t + e (j = 0, 1; e = 0 .. 3). Four chunks (256 columns)
// make a unit, what one bulk copy brings; the last unit of a group may have fewer. Same bytes as the file,
// values exact.
//
// clang-format off
//   unit of a 256-weight type: header, then 4 chunks
//     Q4_K       16 rows x {d, dmin, 3 words}; byte p of the words: sub-blocks 2p, 2p+1 as
//                sc0 | (m1 & 3) << 6,  m0 | (m1 >> 2 & 3) << 6,  sc1 | (m1 >> 4) << 6
//     Q5_K       the same
//     Q6_K       16 x d, then 16 rows x 16 x i8 scales
//   chunk: scales, high bits, low bits
//     scales     Q4_0, Q5_0, Q8_0: 16 rows x {d0, d1} f16 (sub-blocks 0 and 1)
//                Q4_1, Q5_1: 16 rows x {d0, d1, m0, m1}; MXFP4: 16 rows x {e0, e1} bytes
//                256-weight types, F16, BF16: none
//     high bits  Q5_*: a word a lane: half h, bit 8 * sub + 4 j + i
//                Q6_K: two words a lane: word j, half h, bits 8 * sub + 2 i and the next
//     low bits   4 words a lane; word i belongs to row g + 8 (i & 1), columns e = 2 (i >> 1) + h, where h = 0 is
//                its low half and h = 1 its high half; in a half, nibble n holds sub-block n & 1, j = n >> 1
//                Q8_0: for each sub-block 4 words a lane; in a half, byte j; stored + 128
//                F16, BF16: for each sub-block and j 4 words a lane
// clang-format on
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define STEELYARD_HOST_DEVICE __host__ __device__
#else
#define STEELYARD_HOST_DEVICE
#endif

namespace steelyard::cuda::hopper {

inline constexpr std::uint32_t kGroupRows = 16;
inline constexpr std::uint32_t kChunkCols = 64;
inline constexpr std::uint32_t kUnitCols = 256;

// Type ids are DType's (GGUF's).
inline constexpr int kF16 = 1, kQ4_0 = 2, kQ4_1 = 3, kQ5_0 = 6, kQ5_1 = 7, kQ8_0 = 8, kQ4_K = 12, kQ5_K = 13,
                     kQ6_K = 14, kBF16 = 30, kMXFP4 = 39;

STEELYARD_HOST_DEVICE constexpr bool is_repacked_type(int t) {
  return t == kF16 || t == kQ4_0 || t == kQ4_1 || t == kQ5_0 || t == kQ5_1 || t == kQ8_0 || t == kQ4_K ||
         t == kQ5_K || t == kQ6_K || t == kBF16 || t == kMXFP4;
}
STEELYARD_HOST_DEVICE constexpr bool is_super(int t) { return t == kQ4_K || t == kQ5_K || t == kQ6_K; }

STEELYARD_HOST_DEVICE constexpr std::uint32_t unit_header_bytes(int t) {
  return t == kQ4_K || t == kQ5_K ? 256 : t == kQ6_K ? 288 : 0;
}
STEELYARD_HOST_DEVICE constexpr std::uint32_t chunk_scale_bytes(int t) {
  return t == kQ4_0 || t == kQ5_0 || t == kQ8_0 ? 64 : t == kQ4_1 || t == kQ5_1 ? 128 : t == kMXFP4 ? 32 : 0;
}
STEELYARD_HOST_DEVICE constexpr std::uint32_t chunk_high_bytes(int t) {
  return t == kQ5_0 || t == kQ5_1 || t == kQ5_K ? 128 : t == kQ6_K ? 256 : 0;
}
STEELYARD_HOST_DEVICE constexpr std::uint32_t chunk_bytes(int t) {
  return chunk_scale_bytes(t) + chunk_high_bytes(t) +
         (t == kQ8_0                ? 1024
          : t == kF16 || t == kBF16 ? 2048
                                    : 512);
}
STEELYARD_HOST_DEVICE constexpr std::uint32_t unit_bytes(int t) {
  return unit_header_bytes(t) + 4 * chunk_bytes(t);
}
// Units that cols columns take, the last one perhaps in part.
STEELYARD_HOST_DEVICE constexpr std::uint32_t units_of(std::uint32_t cols) {
  return (cols + kUnitCols - 1) / kUnitCols;
}
// Bytes of 16 rows; cols is a multiple of kChunkCols (of kUnitCols for 256-weight types).
STEELYARD_HOST_DEVICE constexpr std::uint64_t group_bytes(int t, std::uint32_t cols) {
  return std::uint64_t{cols / kUnitCols} * unit_bytes(t) +
         std::uint64_t{cols % kUnitCols / kChunkCols} * chunk_bytes(t);
}

}  // namespace steelyard::cuda::hopper
