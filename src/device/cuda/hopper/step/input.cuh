// The step kernel's input of a product: the one row, from words (hopper/step/words.cuh) to halves in shared
// memory.
#pragma once

#include "device/cuda/hopper/step/state.cuh"

namespace steelyard::cuda::hopper {

// The same bits in every multiplying thread. scratch() is free again after the next sync_warps().
__device__ __forceinline__ float sum_of_block(float v) {
  for (int i = 16; i; i /= 2) v += __shfl_xor_sync(~0u, v, i);
  if (threadIdx.x % 32 == 0) scratch()[threadIdx.x / 32] = v;
  sync_warps();
  float s = 0;
#pragma unroll
  for (int i = 0; i < kGemvWarps / 4; i++) {
    const float4 f = reinterpret_cast<const float4*>(scratch())[i];
    s += (f.x + f.y) + (f.z + f.w);
  }
  return s;
}

// Eight floats of each of Q pieces of the input, from words or from before the kernel; zeros beyond its end.
template <int Q>
__device__ __forceinline__ void read_floats(const StepLinear& o, Flow& flow, float (&v)[Q][8]) {
  const std::uint32_t cols = o.linear.cols;
  if (o.x_op == kBeforeStep) {
#pragma unroll
    for (int q = 0; q < Q; q++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const std::uint32_t col = (threadIdx.x + q * kThreads) * 8;
        const float4 f =
            col < cols ? __ldcg(reinterpret_cast<const float4*>(o.linear.x + col) + k) : float4{};
        v[q][4 * k] = f.x, v[q][4 * k + 1] = f.y, v[q][4 * k + 2] = f.z, v[q][4 * k + 3] = f.w;
      }
    return;
  }
  const auto* words = reinterpret_cast<const std::uint64_t*>(o.linear.x) + threadIdx.x * 8;
  const std::uint32_t tag = flow.tag(o.x_op);
  look_until(flow, [&] {
    bool all = true;
#pragma unroll
    for (int q = 0; q < Q; q++)
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const bool real = (threadIdx.x + q * kThreads) * 8 < cols;
        const ulonglong2 w = real ? load_words(words + q * kThreads * 8 + 2 * k) : ulonglong2{};
        all = all && (!real || has(w, tag));
        v[q][2 * k] = __uint_as_float(static_cast<std::uint32_t>(w.x));
        v[q][2 * k + 1] = __uint_as_float(static_cast<std::uint32_t>(w.y));
      }
    return all;
  });
}

__device__ __forceinline__ void read_norm(const float* norm, std::uint32_t col, float (&w)[8]) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const float4 f = __ldg(reinterpret_cast<const float4*>(norm + col) + k);
    w[4 * k] = f.x, w[4 * k + 1] = f.y, w[4 * k + 2] = f.z, w[4 * k + 3] = f.w;
  }
}

// Brings an op's norm into L2 before it is its turn.
__device__ __forceinline__ void prefetch_norm(const StepOp& op) {
  if (op.kind != StepKind::linear || !op.linear.linear.norm || blockIdx.x != 0) return;
  for (std::uint32_t i = threadIdx.x; i < op.linear.linear.cols / 32; i += kThreads)
    prefetch_l2(op.linear.linear.norm + i * 32);
}

// A row of up to Q x 4096 normed columns: read once, it stays in registers between norm and conversion.
template <int Q>
__device__ __forceinline__ void load_normed(const StepLinear& o, Flow& flow, std::uint32_t units, __half* x,
                                            float* sums) {
  const LinearArg& a = o.linear;
  float v[Q][8], w[Q][8] = {}, squares = 0;
#pragma unroll
  for (int q = 0; q < Q; q++) {
    const std::uint32_t col = (threadIdx.x + q * kThreads) * 8;
    if (col < a.cols) read_norm(a.norm, col, w[q]);
  }
  read_floats<Q>(o, flow, v);
#pragma unroll
  for (int q = 0; q < Q; q++)
#pragma unroll
    for (int k = 0; k < 8; k++) squares += v[q][k] * v[q][k];
  const float scale = rsqrtf(__fdividef(sum_of_block(squares), a.cols) + a.eps);
#pragma unroll
  for (int q = 0; q < Q; q++) {
    const std::uint32_t i = threadIdx.x + q * kThreads, col = i * 8;
    if (i >= units * 32) continue;  // whole warps
#pragma unroll
    for (int k = 0; k < 8; k++) v[q][k] *= scale * w[q][k];
    if (o.normed && blockIdx.x == 0 && col < a.cols) {
      float4* to = reinterpret_cast<float4*>(o.normed + col);
      to[0] = make_float4(v[q][0], v[q][1], v[q][2], v[q][3]);
      to[1] = make_float4(v[q][4], v[q][5], v[q][6], v[q][7]);
    }
    store_eight<1>(v[q], col < a.cols, i, x, sums);
  }
}

// A row of half words, four pieces of each thread at a time.
__device__ __forceinline__ void load_halves(const StepLinear& o, Flow& flow, std::uint32_t units, __half* x,
                                            float* sums) {
  constexpr int Q = 4;
  const std::uint32_t tag = flow.tag(o.x_op), cols = o.linear.cols;
#pragma unroll 1
  for (std::uint32_t first = threadIdx.x; first < units * 32; first += Q * kThreads) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(o.linear.x) + first * 4;
    __half2 h[Q][4];
    look_until(flow, [&] {
      bool all = true;
#pragma unroll
      for (int q = 0; q < Q; q++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
          const bool real = (first + q * kThreads) * 8 < cols;
          const ulonglong2 w = real ? load_words(words + q * kThreads * 4 + 2 * k) : ulonglong2{};
          all = all && (!real || has(w, tag));
          const std::uint32_t pairs[2] = {static_cast<std::uint32_t>(w.x), static_cast<std::uint32_t>(w.y)};
          h[q][2 * k] = *reinterpret_cast<const __half2*>(&pairs[0]);
          h[q][2 * k + 1] = *reinterpret_cast<const __half2*>(&pairs[1]);
        }
      return all;
    });
#pragma unroll
    for (int q = 0; q < Q; q++)
      if (first + q * kThreads < units * 32) store_eight<1>(h[q], first + q * kThreads, x, sums);
  }
}

}  // namespace steelyard::cuda::hopper
