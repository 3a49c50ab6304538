// The running softmax of attention on the tensor cores: scores lie as mma's results, in powers of two.
#pragma once

#include <cuda_fp16.h>

#include <cfloat>
#include <cstdint>

namespace strata::cuda::fast {

constexpr float kLog2e = 1.4426950408889634f;

__device__ inline std::uint32_t pack_halves(float a, float b) {
  const __half2 h = __floats2half2_rn(a, b);
  return *reinterpret_cast<const std::uint32_t*>(&h);
}

// Turns scores x of rows g and g + 8 (-FLT_MAX: none) into weights under the running maximum `most`; sums and
// weighted values o so far move with it. top: this lane's largest score of each row, and of `most`.
template <int N, int M>
__device__ __forceinline__ void soften(float (&x)[N][4], float (&top)[2], float (&most)[2], float (&sums)[2],
                                       float (&o)[M][4]) {
  float keep[2], sum[2] = {};
#pragma unroll
  for (int r = 0; r < 2; r++) {
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 1));
    top[r] = fmaxf(top[r], __shfl_xor_sync(~0u, top[r], 2));
    keep[r] = exp2f(most[r] - top[r]);
    most[r] = top[r];
  }
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      x[n][e] = x[n][e] == -FLT_MAX ? 0.f : exp2f(x[n][e] - top[e / 2]);
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

}  // namespace strata::cuda::fast
