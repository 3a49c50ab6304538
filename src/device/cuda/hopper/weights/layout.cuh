// Device-side readers of repacked weights (layout: hopper/weights/format.h).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/hopper/weights/format.h"

namespace steelyard::cuda::hopper {

// Scale and minimum of a sub-block: value = d * code - m. Q6_K has a scale for each 16 columns: d16.
struct SubScale {
  float d, m;
  float d16;  // columns 16 .. 31; equal to d but for Q6_K
};

__device__ inline float half_at(const std::uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));
}

// Offset that is subtracted from a stored code before scaling.
template <int T>
__device__ constexpr float code_bias() {
  return T == kQ4_0 ? 8.f : T == kQ5_0 ? 16.f : T == kQ8_0 ? 128.f : T == kQ6_K ? 32.f : 0.f;
}

__device__ inline float e8m0(std::uint32_t e) {
  return e == 0 ? __uint_as_float(0x00400000u) : __uint_as_float(e << 23);
}

// Scales of sub-block `s` (0 .. 7) of `row` (0 .. 15) in a unit.
template <int T>
__device__ inline SubScale sub_scale(const std::uint8_t* unit, int row, int s) {
  SubScale r{1.f, 0.f, 1.f};
  if constexpr (T == kQ4_K || T == kQ5_K) {
    const uint4 h = *reinterpret_cast<const uint4*>(unit + row * 16);
    const int p = 8 * (s / 2);
    const std::uint32_t b0 = h.y >> p & 255, b1 = h.z >> p & 255, b2 = h.w >> p & 255;
    const float2 dm = __half22float2(*reinterpret_cast<const __half2*>(&h.x));
    const std::uint32_t sc = (s & 1 ? b2 : b0) & 63;
    const std::uint32_t mn = s & 1 ? (b0 >> 6) | (b1 >> 6 << 2) | (b2 >> 6 << 4) : b1 & 63;
    r.d = dm.x * sc;
    r.m = dm.y * mn;
    r.d16 = r.d;
  } else if constexpr (T == kQ6_K) {
    const float d = half_at(unit + row * 2);
    const auto* sc = reinterpret_cast<const std::int8_t*>(unit + 32 + row * 16 + s * 2);
    r.d = d * sc[0];
    r.d16 = d * sc[1];
  } else if constexpr (chunk_scale_bytes(T) != 0) {
    const std::uint8_t* c = unit + (s / 2) * chunk_bytes(T);
    if constexpr (T == kMXFP4) {
      r.d = e8m0(c[row * 2 + (s & 1)]);
    } else if constexpr (T == kQ4_1 || T == kQ5_1) {
      r.d = half_at(c + row * 8 + (s & 1) * 2);
      r.m = -half_at(c + row * 8 + 4 + (s & 1) * 2);
    } else {
      r.d = half_at(c + row * 4 + (s & 1) * 2);
      r.m = code_bias<T>() * r.d;
    }
    r.d16 = r.d;
  }
  return r;
}

// Stored code (or the value itself for MXFP4, F16, BF16) of sub-block `sub` (0, 1) of a chunk. Slow, for
// checks, embedding rows and general kernels; the Hopper kernels read whole chunks (hopper/gemv/mma.cuh).
template <int T>
__device__ inline float chunk_code(const std::uint8_t* chunk, int row, int sub, int k) {
  const int lane = (row & 7) * 4 + (k & 15) / 4, j = k / 16, e = k & 3;
  const int i = (row >> 3) + 2 * (e >> 1), h = e & 1;
  const std::uint8_t* high = chunk + chunk_scale_bytes(T);
  const std::uint8_t* low = high + chunk_high_bytes(T);
  if constexpr (T == kF16 || T == kBF16) {
    const std::uint16_t v =
        *reinterpret_cast<const std::uint16_t*>(low + (((sub * 2 + j) * 32 + lane) * 4 + i) * 4 + 2 * h);
    if constexpr (T == kBF16) return __uint_as_float(std::uint32_t{v} << 16);
    return __half2float(__ushort_as_half(v));
  } else if constexpr (T == kQ8_0) {
    return low[((sub * 32 + lane) * 4 + i) * 4 + 2 * h + j];
  } else {
    const std::uint32_t half = *reinterpret_cast<const std::uint16_t*>(low + (lane * 4 + i) * 4 + 2 * h);
    std::uint32_t q = half >> (4 * (sub + 2 * j)) & 15;
    if constexpr (T == kMXFP4) {
      const std::uint32_t mag = q & 7;
      const float v = mag < 2 ? 0.5f * mag : (1.f + 0.5f * (mag & 1)) * float(1u << (mag >> 1) >> 1);
      return q & 8 ? -v : v;
    }
    if constexpr (T == kQ6_K) {
      const std::uint32_t w = *reinterpret_cast<const std::uint16_t*>(high + lane * 8 + 4 * j + 2 * h);
      q |= (w >> (8 * sub + 2 * i) & 3) << 4;
    } else if constexpr (chunk_high_bytes(T) != 0) {
      const std::uint32_t w = *reinterpret_cast<const std::uint16_t*>(high + lane * 4 + 2 * h);
      q |= (w >> (8 * sub + 4 * j + i) & 1) << 4;
    }
    return q;
  }
}

template <int T>
__device__ inline void block32(const std::uint8_t* matrix, std::uint32_t cols, std::uint32_t row,
                               std::uint32_t block, float* out) {
  const std::uint8_t* unit =
      matrix + (row / kGroupRows) * group_bytes(T, cols) + std::uint64_t{block / 8} * unit_bytes(T);
  const int s = block % 8, r = row % kGroupRows;
  const SubScale sc = sub_scale<T>(unit, r, s);
  const std::uint8_t* chunk = unit + unit_header_bytes(T) + (s / 2) * chunk_bytes(T);
#pragma unroll
  for (int k = 0; k < 32; k++) {
    const float q = chunk_code<T>(chunk, r, s & 1, k);
    if constexpr (T == kQ4_1 || T == kQ5_1 || T == kQ4_K || T == kQ5_K) {
      // The product is exact in float32 (as quant/ computes it), so that fusing changes nothing.
      out[k] = __fsub_rn(__fmul_rn(sc.d, q), sc.m);
    } else {
      out[k] = (q - code_bias<T>()) * (k < 16 ? sc.d : sc.d16);
    }
  }
}

}  // namespace steelyard::cuda::hopper

namespace steelyard::cuda {

// Columns [32 * block, 32 * block + 32) of row `row` as exact floats, for general kernels that meet a
// repacked matrix (embedding rows, row counts without a kernel of Hopper's). `matrix`: the whole repacked
// matrix.
__device__ inline void repacked_block32(int type, const std::uint8_t* matrix, std::uint32_t /*rows*/,
                                        std::uint32_t cols, std::uint32_t row, std::uint32_t block,
                                        float* out) {
  using namespace hopper;
  switch (type) {
    case kF16:
      return block32<kF16>(matrix, cols, row, block, out);
    case kBF16:
      return block32<kBF16>(matrix, cols, row, block, out);
    case kQ4_0:
      return block32<kQ4_0>(matrix, cols, row, block, out);
    case kQ4_1:
      return block32<kQ4_1>(matrix, cols, row, block, out);
    case kQ5_0:
      return block32<kQ5_0>(matrix, cols, row, block, out);
    case kQ5_1:
      return block32<kQ5_1>(matrix, cols, row, block, out);
    case kQ8_0:
      return block32<kQ8_0>(matrix, cols, row, block, out);
    case kQ4_K:
      return block32<kQ4_K>(matrix, cols, row, block, out);
    case kQ5_K:
      return block32<kQ5_K>(matrix, cols, row, block, out);
    case kQ6_K:
      return block32<kQ6_K>(matrix, cols, row, block, out);
    case kMXFP4:
      return block32<kMXFP4>(matrix, cols, row, block, out);
  }
}

}  // namespace steelyard::cuda
