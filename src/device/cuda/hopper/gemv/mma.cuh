// Chunks of repacked weights as left operands of mma.m16n8k16 (layout: hopper/weights/format.h).
//
// Integer codes enter the tensor cores as f16 subnormals: `word & 0x000f000f` is a pair of halves whose
// values are the codes times 2^-24, exactly, so that no conversion is needed; the power of two goes into the
// scale afterwards. Sub-block 1 of the 4- to 6-bit types stands four bits higher: 2^-20.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/common/ptx.cuh"
#include "device/cuda/hopper/weights/layout.cuh"

namespace steelyard::cuda::hopper {

// What turns mma's sums over sub-block `sub` (0, 1) of a chunk into sums of codes.
template <int T>
__device__ constexpr float code_unit(int sub) {
  return T == kF16 || T == kBF16  ? 1.f
         : T == kMXFP4            ? 16384.f
         : T == kQ8_0 || sub == 0 ? 16777216.f
                                  : 1048576.f;
}

// A four-bit float's bits (s e e m) at bit 0 of each half, moved to where they make the f16 of value * 2^-14.
__device__ inline std::uint32_t e2m1_pair(std::uint32_t w) {
  return (w << 12 & 0x80008000u) | (w << 9 & 0x0e000e00u);
}

// a[2 * sub + j]: the operand of columns 16 j .. 16 j + 15 of sub-block `sub`.
template <int T>
__device__ __forceinline__ void load_chunk(const std::uint8_t* chunk, int lane, std::uint32_t (&a)[4][4]) {
  const std::uint8_t* high = chunk + chunk_scale_bytes(T);
  const uint4* low = reinterpret_cast<const uint4*>(high + chunk_high_bytes(T));
  if constexpr (T == kF16 || T == kBF16) {
#pragma unroll
    for (int n = 0; n < 4; n++) {
      const uint4 v = low[n * 32 + lane];
      a[n][0] = v.x, a[n][1] = v.y, a[n][2] = v.z, a[n][3] = v.w;
    }
  } else if constexpr (T == kQ8_0) {
#pragma unroll
    for (int sub = 0; sub < 2; sub++) {
      const uint4 v = low[sub * 32 + lane];
      const std::uint32_t w[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
      for (int i = 0; i < 4; i++) {
        a[2 * sub][i] = w[i] & 0x00ff00ffu;
        a[2 * sub + 1][i] = w[i] >> 8 & 0x00ff00ffu;
      }
    }
  } else {
    const uint4 v = low[lane];
    const std::uint32_t w[4] = {v.x, v.y, v.z, v.w};
    std::uint32_t h[2] = {};
    if constexpr (chunk_high_bytes(T) == 128) h[0] = reinterpret_cast<const std::uint32_t*>(high)[lane];
    if constexpr (chunk_high_bytes(T) == 256) {
      const uint2 u = reinterpret_cast<const uint2*>(high)[lane];
      h[0] = u.x, h[1] = u.y;
    }
#pragma unroll
    for (int j = 0; j < 2; j++) {
#pragma unroll
      for (int i = 0; i < 4; i++) {
        const std::uint32_t u = j ? w[i] >> 8 : w[i];
        if constexpr (T == kMXFP4) {
          a[j][i] = e2m1_pair(u & 0x000f000fu);
          a[2 + j][i] = e2m1_pair(u >> 4 & 0x000f000fu);
        } else {
          a[j][i] = u & 0x000f000fu;
          a[2 + j][i] = u & 0x00f000f0u;
          if constexpr (T == kQ6_K) {
            a[j][i] |= (i < 3 ? h[j] << (4 - 2 * i) : h[j] >> 2) & 0x00300030u;
            a[2 + j][i] |= h[j] >> (2 * i) & 0x03000300u;
          } else if constexpr (chunk_high_bytes(T) != 0) {
            const int n = 4 * j + i;
            a[j][i] |= (n <= 4 ? h[0] << (4 - n) : h[0] >> (n - 4)) & 0x00100010u;
            a[2 + j][i] |= h[0] >> n & 0x01000100u;
          }
        }
      }
    }
  }
}

// A pair of halves as two pairs of bf16 whose sum holds 16 bits of each.
__device__ __forceinline__ void split_bf16(std::uint32_t halves, std::uint32_t& head, std::uint32_t& rest) {
  const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&halves));
  const __nv_bfloat162 h = __floats2bfloat162_rn(f.x, f.y);
  const __nv_bfloat162 r = __floats2bfloat162_rn(f.x - __low2float(h), f.y - __high2float(h));
  head = *reinterpret_cast<const std::uint32_t*>(&h);
  rest = *reinterpret_cast<const std::uint32_t*>(&r);
}

// c += A * B with A's type T and B in halves.
template <int T>
__device__ __forceinline__ void mma(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                    std::uint32_t b1) {
  if constexpr (T == kBF16) {
    std::uint32_t h0, r0, h1, r1;
    split_bf16(b0, h0, r0);
    split_bf16(b1, h1, r1);
    mma_bf16(c, a, h0, h1);
    mma_bf16(c, a, r0, r1);
  } else {
    mma_f16(c, a, b0, b1);
  }
}

}  // namespace steelyard::cuda::hopper
