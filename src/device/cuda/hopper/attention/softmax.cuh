// The running softmax of attention on the tensor cores: scores lie as mma's results, in powers of two.
#pragma once

#include <cuda_fp16.h>

#include <cfloat>
#include <cstdint>

#include "device/cuda/common/ptx.cuh"

namespace steelyard::cuda::hopper {

constexpr float kLog2e = 1.4426950408889634f;

__device__ inline std::uint32_t pack_halves(float a, float b) {
  const __half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&h);
}

// Scores stay in powers of two. One that doesn't count is kNoScore; a running maximum starts at kLeastScore,
// far enough above it for the difference to have no weight.
constexpr float kNoScore = -FLT_MAX, kLeastScore = -1e30f;

// Products of queries and keys to scores.
template <int N>
__device__ __forceinline__ void to_scores(float (&x)[N][4], float scale, float softcap) {
  if (softcap > 0) {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const float y =
            power_of_two(x[n][e] * (__fdividef(scale, softcap) * 2 * kLog2e));  // tanh is 1 - 2 / (y + 1)
        x[n][e] = softcap * kLog2e * (1.f - __fdividef(2.f, y + 1.f));
      }
  } else {
#pragma unroll
    for (int n = 0; n < N; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) x[n][e] *= scale * kLog2e;
  }
}

// Turns scores x of rows g and g + 8 into weights under the running maximum `most`; sums and weighted values
// o so far move with it.
template <int N, int M>
__device__ __forceinline__ void soften(float (&x)[N][4], float (&most)[2], float (&sums)[2],
                                       float (&o)[M][4]) {
  float top[2] = {most[0], most[1]}, keep[2], sum[2] = {};
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) top[e / 2] = fmaxf(top[e / 2], x[n][e]);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    keep[r] = power_of_two(most[r] - top[r]);
    most[r] = top[r];
  }
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      x[n][e] = power_of_two(x[n][e] - top[e / 2]);
      sum[e / 2] += x[n][e];
    }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    sum[r] += __shfl_xor_sync(~0u, sum[r], 1);
    sum[r] += __shfl_xor_sync(~0u, sum[r], 2);
    sums[r] = sums[r] * keep[r] + sum[r];
  }
#pragma unroll
  for (int n = 0; n < M; n++) o[n][0] *= keep[0], o[n][1] *= keep[0], o[n][2] *= keep[1], o[n][3] *= keep[1];
}

}  // namespace steelyard::cuda::hopper
