// Attention of prompts over pages of f16 state: a block has a.prefill_rows rows of one sequence, a warpgroup
// its share of them, 64 queries (rows times the heads that share a KV head). Its warps read a page's keys and
// values to shared memory together, some pages ahead; both products are the tensor cores' warpgroup products.
// Softmax is running, in float, in powers of two.
//
// Tiles with rows of several sequences are left to attention_* (hopper/attention/attention_sm90a.cu).
#include "device/cuda/common/ptx.cuh"
#include "device/cuda/hopper/attention/attention.cuh"
#include "device/cuda/hopper/gemm/wgmma.cuh"

namespace steelyard::cuda::hopper {
namespace {

// Queries, keys and values stand in slices of 64 lines: 64 columns of a query, key or value each.
constexpr int kLineBytes = 128, kSliceBytes = 64 * kLineBytes;

// A warpgroup's queries, times `scale`, to shared memory: query i is row i, in slices of 64 columns.
template <int D>
__device__ inline void store_queries(const AttentionTileArg& a, std::uint32_t first, std::uint32_t count,
                                     std::uint32_t kv_head, float scale, std::uint8_t* to) {
#pragma unroll 4
  for (int n = 0; n < 64 * D / 8 / 128; n++) {
    const int piece = n * 128 + static_cast<int>(threadIdx.x) % 128, i = piece / (D / 8),
              column = piece % (D / 8);
    const std::uint32_t token = i / a.group, head = kv_head * a.group + i % a.group;
    const float4* from = reinterpret_cast<const float4*>(
        a.q + (static_cast<std::uint64_t>(first + token) * a.n_heads + head) * D + 8 * column);
    float4 x = {}, y = {};
    if (token < count) x = from[0], y = from[1];
    *reinterpret_cast<uint4*>(to + column / 8 * kSliceBytes + i * kLineBytes + ((column ^ i) % 8) * 16) = {
        pack_halves(x.x * scale, x.y * scale), pack_halves(x.z * scale, x.w * scale),
        pack_halves(y.x * scale, y.y * scale), pack_halves(y.z * scale, y.w * scale)};
  }
}

// One head of a page to shared memory: keys, then values, each in slices of 64 columns, swizzled for wgmma.
// Two warpgroups do it: with a power of two, a thread's pieces are a constant apart.
template <int D>
__device__ inline void fetch(const KvView& kv, std::int32_t page, std::uint32_t head, std::uint8_t* to) {
  constexpr int kThreads = 256, kKeys = kThreads / (D / 8);  // a thread has a piece of every kKeys-th key
  if (threadIdx.x >= kThreads) return;
  const int key = threadIdx.x / (D / 8), column = threadIdx.x % (D / 8);
  to += column / 8 * kSliceBytes + key * kLineBytes + ((column ^ key) % 8) * 16;
#pragma unroll
  for (int is_v = 0; is_v < 2; is_v++) {
    const __half* from = head_of<D>(kv, page, is_v, head) + threadIdx.x * 8;
#pragma unroll
    for (int n = 0; n < static_cast<int>(kPageTokens) / kKeys; n++)
      copy_async(to + is_v * (D / 64) * kSliceBytes + n * kKeys * kLineBytes, from + n * kKeys * D);
  }
}

// grid: (KV heads, tiles)
template <int D>
__device__ inline void prompt(const AttentionTileArg& a, const StepView& step, const KvView& kv) {
  constexpr int kStages = kPrefillStages(D), kStageBytes = 2 * (D / 64) * kSliceBytes;
  // Late tiles see the most keys: start them first.
  const std::uint32_t tokens = a.prefill_rows, share = tokens / kPrefillWarpgroups(D);
  const std::uint32_t kv_head = blockIdx.x, first = (gridDim.y - 1 - blockIdx.y) * tokens;
  if (!is_prompt_tile(step, first, tokens)) return;
  const std::uint32_t sequence = step.row_sequence[first], position = step.positions[first];
  const std::uint32_t count = min(tokens, step.header->n_rows - first);
  const std::uint32_t page_begin = keys_of(position, a.window).begin / kPageTokens;
  const std::uint32_t page_end = (position + count + kPageTokens - 1) / kPageTokens;

  // This warpgroup's rows, and what this thread's two queries see.
  const std::uint32_t part = threadIdx.x / 128 * share;
  const std::uint32_t my_first = first + part, my_count = count > part ? min(count - part, share) : 0;
  const std::uint32_t row = threadIdx.x % 128 / 32 * 16 + threadIdx.x % 32 / 4, i[2] = {row, row + 8};
  Keys keys[2];
#pragma unroll
  for (int r = 0; r < 2; r++)
    keys[r] = i[r] / a.group < my_count ? keys_of(position + part + i[r] / a.group, a.window) : Keys{0, 0};
  const Keys all = {keys_of(position + part, a.window).begin, my_count ? position + part + my_count : 0};
  float o[D / 8][4] = {}, most[2] = {kLeastScore, kLeastScore}, sums[2] = {};

  std::uint8_t* pages = dynamic_shared();
  pages += (1024 - shared_address(pages) % 1024) % 1024;
  std::uint8_t* queries = pages + kStages * kStageBytes + threadIdx.x / 128 * (D / 64) * kSliceBytes;
  store_queries<D>(a, my_first, my_count, kv_head, a.scale * kLog2e, queries);
  std::uint32_t there = 0;  // bit n: the page asked for n pages ago exists
  const auto ask = [&](std::uint32_t p) {
    const std::int32_t page = p < page_end ? kv_page(step, kv, sequence, p) : -1;
    there = there << 1 | (page >= 0);
    if (page >= 0) fetch<D>(kv, page, kv_head, pages + (p - page_begin) % kStages * kStageBytes);
    commit_copies();
  };
#pragma unroll
  for (int n = 0; n < kStages - 1; n++) ask(page_begin + n);
  for (std::uint32_t p = page_begin; p < page_end; p++) {
    wait_for_copies<kStages - 2>();
    fence_async_shared();
    __syncthreads();  // everybody's pieces of this page are there, and everybody has read the page before
    ask(p + kStages - 1);
    const std::uint32_t first_key = p * kPageTokens;
    if (!(there >> (kStages - 1) & 1) || first_key >= all.end || first_key + kPageTokens <= all.begin)
      continue;
    const std::uint32_t k = shared_address(pages + (p - page_begin) % kStages * kStageBytes),
                        v = k + D / 64 * kSliceBytes, q = shared_address(queries);
    float s[8][4];
    wgmma_fence();
    wgmma_slices<false>(s, slice(q), slice(k));
#pragma unroll
    for (int n = 1; n < D / 16; n++) {
      const std::uint32_t at = n / 4 * kSliceBytes + n % 4 * 32;
      wgmma_slices<true>(s, slice(q + at), slice(k + at));
    }
    wgmma_commit();
    wgmma_wait<0>();
    pin(s);
    if (a.softcap > 0) to_scores(s, 1.f / kLog2e, a.softcap);  // the scale is in the queries
    hide_keys(s, first_key, keys);
    soften(s, most, sums, o);
    std::uint32_t weights[4][4];
#pragma unroll
    for (int n = 0; n < 4; n++) weights_of(s, n, weights[n]);
    pin(o), pin(weights);
    wgmma_fence();
#pragma unroll
    for (int n = 0; n < 4; n++)  // 16 tokens each
#pragma unroll
      for (int columns = 0; columns < D / 64; columns++)
        wgmma_slice(o, 8 * columns, weights[n], slice(v + columns * kSliceBytes + n * 16 * kLineBytes));
    wgmma_commit();
    wgmma_wait<0>();
    pin(o);
  }
  finish<D>(a, my_first, my_count, kv_head, i, o, most, sums);
}

}  // namespace
}  // namespace steelyard::cuda::hopper

using steelyard::cuda::KvView;
using steelyard::cuda::StepView;
using steelyard::cuda::hopper::AttentionTileArg;

#define STEELYARD_PROMPT(D)                                                                             \
  extern "C" __global__ void __launch_bounds__(steelyard::cuda::hopper::kPrefillWarpgroups(D) * 128, 1) \
      prefill_##D(const __grid_constant__ AttentionTileArg a, const __grid_constant__ StepView step,    \
                  const __grid_constant__ KvView kv) {                                                  \
    steelyard::cuda::hopper::wait_for_predecessor();                                                    \
    steelyard::cuda::hopper::prompt<D>(a, step, kv);                                                    \
  }
STEELYARD_PROMPT(64)
STEELYARD_PROMPT(128)
STEELYARD_PROMPT(256)
