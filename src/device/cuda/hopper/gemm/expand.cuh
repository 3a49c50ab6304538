// A chunk of repacked weights as the left operands of warpgroup products, in halves with scale and minimum
// applied (layout: hopper/weights/format.h).
#pragma once

#include "device/cuda/hopper/gemm/wgmma.cuh"
#include "device/cuda/hopper/gemv/mma.cuh"

namespace steelyard::cuda::hopper {

__device__ inline std::uint32_t bits(__half2 h) { return *reinterpret_cast<const std::uint32_t*>(&h); }
__device__ inline __half2 halves(std::uint32_t w) { return *reinterpret_cast<const __half2*>(&w); }
__device__ inline std::uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// What a lane reads of a chunk: low bits (or values), high bits.
template <int T>
struct Raw {
  static constexpr int kVectors = T == kF16 || T == kBF16 ? 4 : T == kQ8_0 ? 2 : 1;
  uint4 low[kVectors];
  std::uint32_t high[2];
  __device__ __forceinline__ void load(const std::uint8_t* chunk, int lane) {
    const std::uint8_t* h = chunk + chunk_scale_bytes(T);
    if constexpr (chunk_high_bytes(T) == 128) high[0] = reinterpret_cast<const std::uint32_t*>(h)[lane];
    if constexpr (chunk_high_bytes(T) == 256) {
      const uint2 v = reinterpret_cast<const uint2*>(h)[lane];
      high[0] = v.x, high[1] = v.y;
    }
#pragma unroll
    for (int i = 0; i < kVectors; i++)
      low[i] = reinterpret_cast<const uint4*>(h + chunk_high_bytes(T))[i * 32 + lane];
  }
  // Keeps what is made of it behind a wait.
  __device__ __forceinline__ void pin() {
#pragma unroll
    for (int i = 0; i < kVectors; i++) renew(low[i]);
  }
  // Rows g + 8 half of this chunk and of `up`, as rows g and g + 8.
  __device__ __forceinline__ void join(const Raw& up, bool half) {
#pragma unroll
    for (int i = 0; i < kVectors; i++)
      low[i] = half ? make_uint4(low[i].y, up.low[i].y, low[i].w, up.low[i].w)
                    : make_uint4(low[i].x, up.low[i].x, low[i].z, up.low[i].z);
    constexpr std::uint32_t kBits = chunk_high_bytes(T) == 128 ? 1 : 2,
                            kMask = kBits == 1 ? 0x55555555u : 0x33333333u;
#pragma unroll
    for (int j = 0; j < static_cast<int>(chunk_high_bytes(T)) / 128; j++) {
      const std::uint32_t a = half ? high[j] >> kBits : high[j], b = half ? up.high[j] : up.high[j] << kBits;
      high[j] = (a & kMask) | (b & ~kMask);
    }
  }
};

template <int T>
__device__ constexpr bool has_scales() {
  return T != kF16 && T != kBF16;
}

// Factors of a row's two sub-blocks in chunk `c` of its unit: {scale, -minimum}; Q6_K: the scales of columns
// 0 .. 15 and 16 .. 31. Codes enter as they are, so that MXFP4's carries their power of two.
template <int T>
__device__ __forceinline__ void row_factors(const std::uint8_t* header, const std::uint8_t* chunk,
                                            std::uint32_t c, int row, __half2 (&f)[2]) {
  if constexpr (T == kQ4_K || T == kQ5_K) {
    const uint4 h = *reinterpret_cast<const uint4*>(header + row * 16);
    const std::uint32_t x = h.y >> 8 * c, y = h.z >> 8 * c, z = h.w >> 8 * c;
    const std::uint32_t m1 = (x >> 6 & 3) | (y >> 4 & 12) | (z >> 2 & 48);
    const std::uint32_t first = (x & 63) | (y << 16 & 0x3f0000) | 0x64006400u,
                        second = (z & 63) | m1 << 16 | 0x64006400u;
    const __half2 dm = halves(h.x ^ 0x80000000u), bias = __float2half2_rn(1024.f);
    f[0] = __hmul2(__hsub2(halves(first), bias), dm);
    f[1] = __hmul2(__hsub2(halves(second), bias), dm);
  } else if constexpr (T == kQ6_K) {
    const __half2 d = __half2half2(*reinterpret_cast<const __half*>(header + row * 2));
    const std::uint32_t s =
        *reinterpret_cast<const std::uint32_t*>(header + 32 + row * 16 + c * 4) ^ 0x80808080u;
    const __half2 bias = __float2half2_rn(1152.f);
    f[0] = __hmul2(__hsub2(halves(__byte_perm(s, 0x64646464u, 0x4140)), bias), d);
    f[1] = __hmul2(__hsub2(halves(__byte_perm(s, 0x64646464u, 0x4342)), bias), d);
  } else if constexpr (T == kQ4_1 || T == kQ5_1) {
    const uint2 w = *reinterpret_cast<const uint2*>(chunk + row * 8);
    f[0] = halves(__byte_perm(w.x, w.y, 0x5410));
    f[1] = halves(__byte_perm(w.x, w.y, 0x7632));
  } else if constexpr (T == kMXFP4) {
    for (int s = 0; s < 2; s++) f[s] = __float2half2_rn(fminf(e8m0(chunk[row * 2 + s]) * 16384.f, 65504.f));
  } else if constexpr (has_scales<T>()) {
    const __half2 d = *reinterpret_cast<const __half2*>(chunk + row * 4);
    f[0] = __low2half2(d), f[1] = __high2half2(d);
  }
}

// Where a lane finds its part of a chunk: its group's (for gate_up: gate's and up's), and the row whose
// factors it computes for the lanes of its row.
struct Source {
  const std::uint8_t *chunk, *up, *row_head, *row_chunk;
  int row;
};

// f[row half][sub-block]: lanes of a row take turns computing.
template <int T>
__device__ __forceinline__ void factors(const Source& s, std::uint32_t c, int lane, __half2 (&f)[2][2]) {
  if constexpr (has_scales<T>()) {
    __half2 mine[2];
    row_factors<T>(s.row_head, s.row_chunk, c, s.row, mine);
#pragma unroll
    for (int r = 0; r < 2; r++)
#pragma unroll
      for (int k = 0; k < 2; k++) f[r][k] = halves(__shfl_sync(~0u, bits(mine[k]), (lane & ~3) | r));
  }
}

// Operand a[j] of sub-block `sub` as halves: codes join the exponent of 1024 (or of 1024 with the code 16
// times), from which a subtraction leaves them exactly; then one multiply-add. f[row half][sub-block].
template <int T>
__device__ __forceinline__ void expand(const Raw<T>& raw, int sub, int j, const __half2 (&f)[2][2],
                                       std::uint32_t exponent, std::uint32_t (&a)[4]) {
#pragma unroll
  for (int i = 0; i < 4; i++) {
    if constexpr (T == kF16) {
      a[i] = word(raw.low[sub * 2 + j], i);
    } else if constexpr (T == kBF16) {
      const std::uint32_t w = word(raw.low[sub * 2 + j], i);
      a[i] = bits(__floats2half2_rn(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u)));
    } else if constexpr (T == kMXFP4) {
      a[i] = bits(
          __hmul2(halves(e2m1_pair(word(raw.low[0], i) >> (8 * j + 4 * sub) & 0x000f000fu)), f[i & 1][sub]));
    } else {
      __half2 q;
      constexpr float bias = code_bias<T>();
      if constexpr (T == kQ8_0) {
        q = __hsub2(halves(hopper::join<0x00ff00ffu>(word(raw.low[sub], i) >> (8 * j), exponent)),
                    __float2half2_rn(1152.f));
      } else {
        const std::uint32_t u = word(raw.low[0], i) >> (8 * j);
        std::uint32_t w =
            sub ? hopper::join<0x00f000f0u>(u, exponent) : hopper::join<0x000f000fu>(u, exponent);
        if constexpr (T == kQ6_K) {
          const std::uint32_t h = raw.high[j];
          w |= sub ? h >> (2 * i) & 0x03000300u : (i < 3 ? h << (4 - 2 * i) : h >> 2) & 0x00300030u;
        } else if constexpr (chunk_high_bytes(T) != 0) {
          const std::uint32_t h = raw.high[0];
          const int n = 4 * j + i;
          w |= sub ? h >> n & 0x01000100u : (n <= 4 ? h << (4 - n) : h >> (n - 4)) & 0x00100010u;
        }
        q = sub ? __hfma2(halves(w), __float2half2_rn(0.0625f), __float2half2_rn(-64.f - bias))
                : __hsub2(halves(w), __float2half2_rn(1024.f + bias));
      }
      const __half2 s = f[i & 1][sub];
      if constexpr (T == kQ4_1 || T == kQ5_1 || T == kQ4_K || T == kQ5_K)
        a[i] = bits(__hfma2(q, __low2half2(s), __high2half2(s)));
      else
        a[i] = bits(__hmul2(q, j ? __high2half2(s) : __low2half2(s)));
    }
  }
}

// A chunk as four operands; c: its number in the unit. Waits for the last products before it writes them.
template <int T>
__device__ __forceinline__ void expand_chunk(const Source& s, std::uint32_t c, int lane,
                                             std::uint32_t (&a)[4][4]) {
  if constexpr (!has_scales<T>()) wgmma_wait<0>();
  Raw<T> raw;
  raw.load(s.chunk, lane);
  if (s.up) {
    Raw<T> up;
    up.load(s.up, lane);
    raw.join(up, threadIdx.x & 32);
  }
  __half2 f[2][2];
  factors<T>(s, c, lane, f);
  if constexpr (has_scales<T>()) {
    wgmma_wait<0>();
    raw.pin();
  }
  const std::uint32_t exponent = in_register<0x64006400u>();
#pragma unroll
  for (int n = 0; n < 4; n++) expand<T>(raw, n / 2, n % 2, f, exponent, a[n]);
}

// One place for all types, so that the products that follow are written once: the compiler serialises them
// when each type has a loop of its own.
__device__ __forceinline__ void expand_any(int type, const Source& s, std::uint32_t c, int lane,
                                           std::uint32_t (&a)[4][4]) {
  if (type == kQ4_K) return expand_chunk<kQ4_K>(s, c, lane, a);
  if (type == kQ6_K) return expand_chunk<kQ6_K>(s, c, lane, a);
  if (type == kQ8_0) return expand_chunk<kQ8_0>(s, c, lane, a);
  switch (type) {
#define STEELYARD_CASE(T)           \
  case T:                           \
    expand_chunk<T>(s, c, lane, a); \
    break;
    STEELYARD_CASE(kF16)
    STEELYARD_CASE(kQ4_0)
    STEELYARD_CASE(kQ4_1)
    STEELYARD_CASE(kQ5_0)
    STEELYARD_CASE(kQ5_1)
    STEELYARD_CASE(kQ5_K)
    STEELYARD_CASE(kBF16)
    STEELYARD_CASE(kMXFP4)
#undef STEELYARD_CASE
  }
}

}  // namespace steelyard::cuda::hopper
