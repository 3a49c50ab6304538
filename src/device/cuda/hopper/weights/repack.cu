// Repacking on the device: the file's blocks to the layout of hopper/weights/format.h. One thread a lane of a
// chunk; runs once a weight at load, far faster than the host link feeds it, so it reads bytes plainly.
#include "device/cuda/hopper/weights/layout.cuh"

namespace steelyard::cuda::hopper {
namespace {

__device__ inline std::uint16_t load16(const std::uint8_t* p) { return p[0] | p[1] << 8; }

template <int T>
__device__ constexpr std::uint32_t raw_block_bytes() {
  return T == kQ4_0    ? 18
         : T == kQ4_1  ? 20
         : T == kQ5_0  ? 22
         : T == kQ5_1  ? 24
         : T == kQ8_0  ? 34
         : T == kMXFP4 ? 17
         : T == kQ4_K  ? 144
         : T == kQ5_K  ? 176
         : T == kQ6_K  ? 210
                       : 2;
}
template <int T>
__device__ constexpr std::uint32_t raw_block_cols() {
  return is_super(T) ? 256 : T == kF16 || T == kBF16 ? 1 : 32;
}

// Stored code of element i of a block (for F16 and BF16: its bits).
template <int T>
__device__ inline std::uint32_t raw_code(const std::uint8_t* b, int i) {
  if constexpr (T == kF16 || T == kBF16) {
    return load16(b);
  } else if constexpr (T == kQ8_0) {
    return (b[2 + i] + 128) & 255;
  } else if constexpr (T == kQ4_0 || T == kQ4_1 || T == kMXFP4) {
    const std::uint8_t* qs = b + (T == kQ4_0 ? 2 : T == kQ4_1 ? 4 : 1);
    return qs[i & 15] >> (4 * (i >> 4)) & 15;
  } else if constexpr (T == kQ5_0 || T == kQ5_1) {
    const std::uint8_t* qh = b + (T == kQ5_0 ? 2 : 4);
    return (qh[4 + (i & 15)] >> (4 * (i >> 4)) & 15) | (qh[i >> 3] >> (i & 7) & 1) << 4;
  } else if constexpr (T == kQ4_K) {
    return b[16 + 32 * (i >> 6) + (i & 31)] >> (4 * (i >> 5 & 1)) & 15;
  } else if constexpr (T == kQ5_K) {
    return (b[48 + 32 * (i >> 6) + (i & 31)] >> (4 * (i >> 5 & 1)) & 15) | (b[16 + (i & 31)] >> (i >> 5) & 1)
                                                                               << 4;
  } else {
    static_assert(T == kQ6_K);
    const int n = i >> 7, quarter = i >> 5 & 3, l = i & 31;
    const std::uint32_t low = b[64 * n + 32 * (quarter & 1) + l] >> (4 * (quarter >> 1)) & 15;
    return low | (b[128 + 32 * n + l] >> (2 * quarter) & 3) << 4;
  }
}

// The 6-bit scale and minimum of sub-block j in the 12 packed bytes of Q4_K and Q5_K.
__device__ inline void raw_scale(const std::uint8_t* s, int j, std::uint32_t& sc, std::uint32_t& mn) {
  if (j < 4) {
    sc = s[j] & 63;
    mn = s[j + 4] & 63;
  } else {
    sc = (s[j + 4] & 15) | (s[j - 4] >> 6) << 4;
    mn = s[j + 4] >> 4 | (s[j] >> 6) << 4;
  }
}

template <int T>
__device__ void write_unit_header(std::uint8_t* unit, int row, const std::uint8_t* b) {
  if constexpr (T == kQ6_K) {
    *reinterpret_cast<std::uint16_t*>(unit + row * 2) = b ? load16(b + 208) : 0;
    for (int i = 0; i < 16; i++) unit[32 + row * 16 + i] = b ? b[192 + i] : 0;
  } else {
    std::uint32_t words[3] = {0, 0, 0};
    std::uint32_t d = 0;
    if (b) {
      d = load16(b) | std::uint32_t{load16(b + 2)} << 16;
      for (int p = 0; p < 4; p++) {
        std::uint32_t sc0, m0, sc1, m1;
        raw_scale(b + 4, 2 * p, sc0, m0);
        raw_scale(b + 4, 2 * p + 1, sc1, m1);
        words[0] |= (sc0 | (m1 & 3) << 6) << (8 * p);
        words[1] |= (m0 | (m1 >> 2 & 3) << 6) << (8 * p);
        words[2] |= (sc1 | (m1 >> 4) << 6) << (8 * p);
      }
    }
    *reinterpret_cast<uint4*>(unit + row * 16) = make_uint4(d, words[0], words[1], words[2]);
  }
}

// b: the row's block of sub-block 0 of the chunk, the next one follows; nullptr: a padding row.
template <int T>
__device__ void write_chunk_scales(std::uint8_t* chunk, int row, const std::uint8_t* b) {
  for (int s = 0; s < 2; s++, b += b ? raw_block_bytes<T>() : 0) {
    if constexpr (T == kMXFP4) {
      chunk[row * 2 + s] = b ? b[0] : 0;
    } else if constexpr (T == kQ4_1 || T == kQ5_1) {
      *reinterpret_cast<std::uint16_t*>(chunk + row * 8 + s * 2) = b ? load16(b) : 0;
      *reinterpret_cast<std::uint16_t*>(chunk + row * 8 + 4 + s * 2) = b ? load16(b + 2) : 0;
    } else {
      *reinterpret_cast<std::uint16_t*>(chunk + row * 4 + s * 2) = b ? load16(b) : 0;
    }
  }
}

// rows_raw[i]: the raw row g + 8 i of the lane, nullptr beyond the matrix. col: first column of the chunk.
template <int T>
__device__ void write_lane(std::uint8_t* chunk, int lane, const std::uint8_t* const rows_raw[2],
                           std::uint32_t col) {
  std::uint32_t low[16] = {}, high[2] = {};
  const int t = lane & 3;
  for (int sub = 0; sub < 2; sub++) {
    for (int k = 0; k < 8; k++) {  // e = k & 3, j = k >> 2
      const int j = k >> 2, e = k & 3, h = e & 1;
      for (int r = 0; r < 2; r++) {
        const std::uint32_t c = col + 32 * sub + 16 * j + 4 * t + e;
        const std::uint32_t q =
            rows_raw[r]
                ? raw_code<T>(rows_raw[r] + std::uint64_t{c / raw_block_cols<T>()} * raw_block_bytes<T>(),
                              c % raw_block_cols<T>())
                : 0;
        const int i = r + 2 * (e >> 1);
        if constexpr (T == kF16 || T == kBF16) {
          low[(sub * 2 + j) * 4 + i] |= q << (16 * h);
        } else if constexpr (T == kQ8_0) {
          low[sub * 4 + i] |= q << (16 * h + 8 * j);
        } else {
          low[i] |= (q & 15) << (16 * h + 4 * (sub + 2 * j));
          if constexpr (T == kQ6_K) high[j] |= (q >> 4) << (16 * h + 8 * sub + 2 * i);
          if constexpr (chunk_high_bytes(T) == 128) high[0] |= (q >> 4) << (16 * h + 8 * sub + 4 * j + i);
        }
      }
    }
  }
  auto* hp = reinterpret_cast<std::uint32_t*>(chunk + chunk_scale_bytes(T));
  if constexpr (chunk_high_bytes(T) == 128) hp[lane] = high[0];
  if constexpr (chunk_high_bytes(T) == 256) hp[lane * 2] = high[0], hp[lane * 2 + 1] = high[1];
  auto* lp = reinterpret_cast<uint4*>(chunk + chunk_scale_bytes(T) + chunk_high_bytes(T));
  constexpr int kVectors = T == kF16 || T == kBF16 ? 4 : T == kQ8_0 ? 2 : 1;
#pragma unroll
  for (int v = 0; v < kVectors; v++)
    lp[v * 32 + lane] = make_uint4(low[4 * v], low[4 * v + 1], low[4 * v + 2], low[4 * v + 3]);
}

template <int T>
__device__ void repack(std::uint32_t rows, std::uint32_t cols, std::uint32_t row_begin, std::uint32_t row_end,
                       const std::uint8_t* raw, std::uint8_t* matrix) {
  const std::uint32_t chunks = cols / kChunkCols;
  const std::uint32_t groups = (row_end - row_begin + kGroupRows - 1) / kGroupRows;
  const std::uint64_t work = std::uint64_t{groups} * chunks * 32;
  const std::uint64_t stride = std::uint64_t{gridDim.x} * blockDim.x;
  const std::uint64_t raw_row = std::uint64_t{cols / raw_block_cols<T>()} * raw_block_bytes<T>();
  for (std::uint64_t w = std::uint64_t{blockIdx.x} * blockDim.x + threadIdx.x; w < work; w += stride) {
    const int lane = w % 32;
    const std::uint32_t chunk = w / 32 % chunks, group = w / 32 / chunks;
    const std::uint32_t row0 = row_begin + group * kGroupRows;
    std::uint8_t* unit =
        matrix + (row0 / kGroupRows) * group_bytes(T, cols) + std::uint64_t{chunk / 4} * unit_bytes(T);
    std::uint8_t* dst = unit + unit_header_bytes(T) + (chunk % 4) * chunk_bytes(T);
    auto raw_at = [&](std::uint32_t r) -> const std::uint8_t* {
      return row0 + r < rows ? raw + std::uint64_t{row0 + r - row_begin} * raw_row : nullptr;
    };
    const std::uint8_t* lane_rows[2] = {raw_at(lane / 4), raw_at(lane / 4 + 8)};
    write_lane<T>(dst, lane, lane_rows, chunk * kChunkCols);
    if (lane < 16) {
      const std::uint8_t* r = raw_at(lane);
      const std::uint8_t* b =
          r ? r + std::uint64_t{chunk * kChunkCols / raw_block_cols<T>()} * raw_block_bytes<T>() : nullptr;
      if constexpr (unit_header_bytes(T) != 0) {
        if (chunk % 4 == 0) write_unit_header<T>(unit, lane, b);
      } else if constexpr (chunk_scale_bytes(T) != 0) {
        write_chunk_scales<T>(dst, lane, b);
      }
    }
  }
}

}  // namespace
}  // namespace steelyard::cuda::hopper

extern "C" __global__ void repack_weights(int type, std::uint32_t rows, std::uint32_t cols,
                                          std::uint32_t row_begin, std::uint32_t row_end,
                                          const std::uint8_t* raw, std::uint8_t* matrix) {
  using namespace steelyard::cuda::hopper;
  switch (type) {
    case kF16:
      return repack<kF16>(rows, cols, row_begin, row_end, raw, matrix);
    case kBF16:
      return repack<kBF16>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ4_0:
      return repack<kQ4_0>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ4_1:
      return repack<kQ4_1>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ5_0:
      return repack<kQ5_0>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ5_1:
      return repack<kQ5_1>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ8_0:
      return repack<kQ8_0>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ4_K:
      return repack<kQ4_K>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ5_K:
      return repack<kQ5_K>(rows, cols, row_begin, row_end, raw, matrix);
    case kQ6_K:
      return repack<kQ6_K>(rows, cols, row_begin, row_end, raw, matrix);
    case kMXFP4:
      return repack<kMXFP4>(rows, cols, row_begin, row_end, raw, matrix);
  }
}
