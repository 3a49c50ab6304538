// What the kernels of attention over tiles of queries share (hopper/attention/attention_sm90a.cu,
// hopper/attention/prefill_sm90a.cu).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/common/kv.cuh"
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/attention/softmax.cuh"

namespace steelyard::cuda::hopper {

// Whether the `tokens` rows from row `first` on (fewer at the end) exist and belong to one sequence.
__device__ inline bool is_prompt_tile(const StepView& step, std::uint32_t first, std::uint32_t tokens) {
  const std::uint32_t end = min(first + tokens, step.header->n_rows);
  return first < end && step.row_sequence[first] == step.row_sequence[end - 1];
}

// One head's keys or values of a page: [kPageTokens][D].
template <int D>
__device__ inline const __half* head_of(const KvView& kv, std::int32_t page, bool is_v, std::uint32_t head) {
  return reinterpret_cast<const __half*>(kv.base + page * kv.page_bytes + (is_v ? kv.v_offset : 0)) +
         static_cast<std::uint64_t>(head) * kPageTokens * D;
}

// Scores of a page's keys that rows g and g + 8 don't see (keys[0], keys[1]) don't count.
__device__ __forceinline__ void hide_keys(float (&s)[8][4], std::uint32_t first_key, const Keys (&keys)[2]) {
  const int c = threadIdx.x % 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    if (first_key >= keys[r].begin && first_key + kPageTokens <= keys[r].end) continue;
#pragma unroll
    for (int n = 0; n < 8; n++)
#pragma unroll
      for (int e = 0; e < 2; e++) {
        const std::uint32_t key = first_key + n * 8 + 2 * c + e;
        if (key < keys[r].begin || key >= keys[r].end) s[n][2 * r + e] = kNoScore;
      }
  }
}

// Weights of 16 keys from number 16 kt on, as mma's left operand.
__device__ __forceinline__ void weights_of(const float (&s)[8][4], int kt, std::uint32_t (&p)[4]) {
  p[0] = pack_halves(s[2 * kt][0], s[2 * kt][1]), p[1] = pack_halves(s[2 * kt][2], s[2 * kt][3]);
  p[2] = pack_halves(s[2 * kt + 1][0], s[2 * kt + 1][1]);
  p[3] = pack_halves(s[2 * kt + 1][2], s[2 * kt + 1][3]);
}

// Results of the queries of rows g and g + 8, number i[0] and i[1] of the tile that starts at row `first` and
// has `count` rows: query i is head i % group of row i / group.
template <int D>
__device__ inline void finish(const AttentionTileArg& a, std::uint32_t first, std::uint32_t count,
                              std::uint32_t kv_head, const std::uint32_t (&i)[2], const float (&o)[D / 8][4],
                              const float (&most)[2], const float (&sums)[2]) {
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const std::uint32_t token = i[r] / a.group, head = kv_head * a.group + i[r] % a.group;
    if (token >= count) continue;
    float scale = 1.f, sum = sums[r];
    if (a.sinks) {
      const float sink = a.sinks[head] * kLog2e, top = fmaxf(most[r], sink);
      scale = power_of_two(most[r] - top);
      sum = sum * scale + power_of_two(sink - top);
    }
    scale = sum > 0 ? scale / sum : 0.f;
    float* out =
        a.out + (static_cast<std::uint64_t>(first + token) * a.n_heads + head) * D + 2 * (threadIdx.x % 4);
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(out + n * 8) = make_float2(o[n][2 * r] * scale, o[n][2 * r + 1] * scale);
  }
}

}  // namespace steelyard::cuda::hopper
