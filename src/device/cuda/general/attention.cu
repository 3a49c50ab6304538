// General attention over paged state: causal, grouped heads, sliding window, soft cap, sinks; any state type.
#include <cfloat>

#include "device/cuda/common/kv.cuh"
#include "device/cuda/general/args.h"

using namespace steelyard::cuda;

namespace {

// Running softmax of one worker; lane l holds elements l, l + 32, … of a head.
template <int kPerLane>
struct Running {
  float most = -FLT_MAX, sum = 0;
  float values[kPerLane] = {};
};

template <int kPerLane>
__device__ void attend_page(Running<kPerLane>& run, const AttentionArg& a, const KvView& kv, const float* q,
                            std::int32_t page, std::uint32_t kv_head, std::uint32_t begin,
                            std::uint32_t end) {
  const std::uint32_t lane = threadIdx.x % 32;
  for (std::uint32_t t = begin; t < end; ++t) {
    const KvAddress k = kv_address(kv, page, false, kv_head, t);
    const KvAddress v = kv_address(kv, page, true, kv_head, t);
    float score = 0, value[kPerLane];
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const std::uint32_t d = i * 32 + lane;
      if (d < kv.head_dim_k) score = fmaf(q[i], kv_load(kv, k, d), score);
      value[i] = d < kv.head_dim_v ? kv_load(kv, v, d) : 0.0f;
    }
    for (int i = 16; i > 0; i /= 2) score += __shfl_xor_sync(~0u, score, i);
    score *= a.scale;
    if (a.softcap > 0) score = a.softcap * tanhf(score / a.softcap);
    const float most = fmaxf(run.most, score);
    const float keep = expf(run.most - most), add = expf(score - most);
    run.most = most;
    run.sum = run.sum * keep + add;
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) run.values[i] = run.values[i] * keep + add * value[i];
  }
}

template <int kPerLane>
__device__ Running<kPerLane> work(const AttentionArg& a, const StepView& step, const KvView& kv,
                                  std::uint32_t row, std::uint32_t head, std::uint32_t worker) {
  Running<kPerLane> run;
  const std::uint32_t lane = threadIdx.x % 32, kv_head = head / (a.n_heads / kv.n_kv_heads);
  const Keys keys = keys_of(step.positions[row], a.window);
  const float* from = a.q + (static_cast<std::uint64_t>(row) * a.n_heads + head) * kv.head_dim_k;
  float q[kPerLane];
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) q[i] = i * 32 + lane < kv.head_dim_k ? from[i * 32 + lane] : 0.0f;
  const std::uint32_t first = keys.begin / kPageTokens;
  std::uint32_t index = first + (worker + kAttentionWorkers - first % kAttentionWorkers) % kAttentionWorkers;
  for (; index * kPageTokens < keys.end; index += kAttentionWorkers) {
    const std::int32_t page = kv_page(step, kv, step.row_sequence[row], index);
    if (page < 0) continue;
    const std::uint32_t start = index * kPageTokens;
    attend_page(run, a, kv, q, page, kv_head, max(keys.begin, start) - start,
                min(keys.end - start, kPageTokens));
  }
  return run;
}

// Adds `from` (a later worker's result) to `into`.
template <int kPerLane>
__device__ void merge(Running<kPerLane>& into, float most, float sum, const float* values,
                      std::uint32_t dim) {
  const std::uint32_t lane = threadIdx.x % 32;
  if (sum == 0) return;
  const float top = fmaxf(into.most, most);
  const float a = expf(into.most - top), b = expf(most - top);
  into.most = top;
  into.sum = into.sum * a + sum * b;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i) {
    const std::uint32_t d = i * 32 + lane;
    into.values[i] = into.values[i] * a + (d < dim ? values[d] : 0.0f) * b;
  }
}

// One warp: merges the workers' partial results (most, sum, values[dim]) in order and writes the head.
template <int kPerLane>
__device__ void finish(const AttentionArg& a, const KvView& kv, const float* partials, std::uint32_t row,
                       std::uint32_t head) {
  const std::uint32_t dim = kv.head_dim_v, lane = threadIdx.x % 32;
  Running<kPerLane> all;
  for (std::uint32_t w = 0; w < kAttentionWorkers; ++w, partials += dim + 2)
    merge<kPerLane>(all, partials[0], partials[1], partials + 2, dim);
  if (a.sinks) {
    const float top = fmaxf(all.most, a.sinks[head]), keep = expf(all.most - top);
    all.sum = all.sum * keep + expf(a.sinks[head] - top);
    for (int i = 0; i < kPerLane; ++i) all.values[i] *= keep;
  }
  float* to = a.out + (static_cast<std::uint64_t>(row) * a.n_heads + head) * dim;
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (i * 32 + lane < dim) to[i * 32 + lane] = all.sum > 0 ? all.values[i] / all.sum : 0.0f;
}

template <int kPerLane>
__device__ void store(const Running<kPerLane>& run, float* to, std::uint32_t dim) {
  const std::uint32_t lane = threadIdx.x % 32;
  if (lane == 0) {
    to[0] = run.most;
    to[1] = run.sum;
  }
#pragma unroll
  for (int i = 0; i < kPerLane; ++i)
    if (i * 32 + lane < dim) to[2 + i * 32 + lane] = run.values[i];
}

// All workers of a row and head in one block, partial results in shared memory. grid: (heads, rows).
template <int kPerLane>
__device__ void whole(const AttentionArg& a, const StepView& step, const KvView& kv) {
  extern __shared__ float shared[];
  const std::uint32_t head = blockIdx.x, row = blockIdx.y, warp = threadIdx.x / 32;
  if (row >= step.header->n_rows) return;
  for (std::uint32_t w = warp; w < kAttentionWorkers; w += kAttentionWarps)
    store<kPerLane>(work<kPerLane>(a, step, kv, row, head, w), shared + w * (kv.head_dim_v + 2),
                    kv.head_dim_v);
  __syncthreads();
  if (warp == 0) finish<kPerLane>(a, kv, shared, row, head);
}

// Workers of a row and head over several blocks. grid: (heads, rows, kAttentionWorkers / kAttentionWarps).
template <int kPerLane>
__device__ void split(const AttentionArg& a, const StepView& step, const KvView& kv) {
  const std::uint32_t head = blockIdx.x, row = blockIdx.y;
  const std::uint32_t worker = blockIdx.z * kAttentionWarps + threadIdx.x / 32;
  if (row >= step.header->n_rows) return;
  const std::uint64_t index =
      (static_cast<std::uint64_t>(row) * a.n_heads + head) * kAttentionWorkers + worker;
  store<kPerLane>(work<kPerLane>(a, step, kv, row, head, worker), a.partials + index * (kv.head_dim_v + 2),
                  kv.head_dim_v);
}

// grid: (heads, rows), one warp.
template <int kPerLane>
__device__ void combine(const AttentionArg& a, const StepView& step, const KvView& kv) {
  const std::uint32_t head = blockIdx.x, row = blockIdx.y;
  if (row >= step.header->n_rows) return;
  const std::uint64_t index = (static_cast<std::uint64_t>(row) * a.n_heads + head) * kAttentionWorkers;
  finish<kPerLane>(a, kv, a.partials + index * (kv.head_dim_v + 2), row, head);
}

}  // namespace

// By the longer of head_dim_k and head_dim_v: 64, 128, 256, 512.
#define STEELYARD_ATTENTION(dim)                                                  \
  extern "C" __global__ void __launch_bounds__(128)                               \
      general_attention_##dim(AttentionArg a, StepView step, KvView kv) {         \
    whole<dim / 32>(a, step, kv);                                                 \
  }                                                                               \
  extern "C" __global__ void __launch_bounds__(128)                               \
      general_attention_split_##dim(AttentionArg a, StepView step, KvView kv) {   \
    split<dim / 32>(a, step, kv);                                                 \
  }                                                                               \
  extern "C" __global__ void __launch_bounds__(32)                                \
      general_attention_combine_##dim(AttentionArg a, StepView step, KvView kv) { \
    combine<dim / 32>(a, step, kv);                                               \
  }
STEELYARD_ATTENTION(64)
STEELYARD_ATTENTION(128)
STEELYARD_ATTENTION(256)
STEELYARD_ATTENTION(512)
