// Attention over pages of f16 state on the tensor cores. A warp owns a tile of 16 queries: `tokens`
// consecutive rows of one sequence times the heads that share a KV head, so that a key is read once for all
// of them. K goes from memory straight into mma's operand (lane t reads columns 8 t .. 8 t + 7 of every 32,
// and Q is laid out to match), V through shared memory, transposed on the way. Softmax is running, in float,
// in powers of two.
//
// attention_*: a tile's keys stay with its warp. attention_split_*: a row's pages are dealt out to
// `workers` warps (page p to worker p mod workers, counted from the row's first page); attention_combine
// merges them in order.
#include "device/cuda/common/ptx.cuh"
#include "device/cuda/hopper/attention/attention.cuh"
#include "device/cuda/hopper/gemv/mma.cuh"
#include "device/cuda/hopper/gemv/units.cuh"

namespace steelyard::cuda::hopper {
namespace {

template <int D>
struct Tile {
  std::uint32_t q[D / 16][4];
  float o[D / 8][4];
  float most[2], sum[2];  // of rows g and g + 8; the maximum in powers of two
};

// Queries (row, head) of tile row r: row = first + r / group, head = r % group; nothing beyond `count` rows.
template <int D>
__device__ inline void start(Tile<D>& t, const AttentionTileArg& a, std::uint32_t first, std::uint32_t count,
                             std::uint32_t kv_head) {
  const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const std::uint32_t i = g + 8 * r, token = i / a.group;
    const float* q =
        a.q + (static_cast<std::uint64_t>(first + token) * a.n_heads + kv_head * a.group + i % a.group) * D;
#pragma unroll
    for (int s = 0; s < D / 32; s++) {
      float4 x = {}, y = {};
      if (token < count) {
        x = *reinterpret_cast<const float4*>(q + 32 * s + 8 * c);
        y = *reinterpret_cast<const float4*>(q + 32 * s + 8 * c + 4);
      }
      t.q[2 * s][r] = pack_halves(x.x, x.y), t.q[2 * s][2 + r] = pack_halves(x.z, x.w);
      t.q[2 * s + 1][r] = pack_halves(y.x, y.y), t.q[2 * s + 1][2 + r] = pack_halves(y.z, y.w);
    }
    t.most[r] = kLeastScore;
    t.sum[r] = 0;
  }
#pragma unroll
  for (int n = 0; n < D / 8; n++) t.o[n][0] = t.o[n][1] = t.o[n][2] = t.o[n][3] = 0;
}

// Adds one page's keys. k, v: [kPageTokens][D]; first_key: position of the page's first token; keys[r]: what
// rows g and g + 8 may see; end: of all rows. shared: the warp's own kPageTokens x (D + 8) halves.
template <int D>
__device__ inline void attend(Tile<D>& t, const AttentionTileArg& a, const __half* k, const __half* v,
                              std::uint32_t first_key, const Keys (&keys)[2], std::uint32_t end,
                              __half* shared) {
  constexpr int kStride = D + 8;
  const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
  __syncwarp();  // everybody has read the last page's values
#pragma unroll
  for (int i = 0; i < static_cast<int>(kPageTokens) * D / 8 / 32; i++) {
    const int e = i * 32 + lane, token = e / (D / 8), column = e % (D / 8) * 8;
    copy_async(shared + token * kStride + column, v + token * D + column);
  }
  commit_copies();
  float s[8][4];
#pragma unroll
  for (int n = 0; n < 8; n++) {
    s[n][0] = s[n][1] = s[n][2] = s[n][3] = 0;
    const __half* key = k + (n * 8 + g) * D + 8 * c;
    uint4 b[D / 32];
#pragma unroll
    for (int i = 0; i < D / 32; i++) b[i] = __ldcg(reinterpret_cast<const uint4*>(key + 32 * i));
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
      mma_f16(s[n], t.q[2 * i], b[i].x, b[i].y);
      mma_f16(s[n], t.q[2 * i + 1], b[i].z, b[i].w);
    }
  }
  to_scores(s, a.scale, a.softcap);
  hide_keys(s, first_key, keys);
  soften(s, t.most, t.sum, t.o);
  wait_for_copies<0>();
  __syncwarp();
#pragma unroll
  for (int kt = 0; kt < 4; kt++) {  // 16 tokens each
    if (first_key + kt * 16 >= end) break;
    std::uint32_t p[4];
    weights_of(s, kt, p);
    const __half* at = shared + (kt * 16 + (lane & 7) + (lane >> 3 & 1) * 8) * kStride + (lane >> 4) * 8;
#pragma unroll
    for (int n = 0; n < D / 16; n++) {
      std::uint32_t b[4];
      load_transposed(b, at + n * 16);
      mma_f16(t.o[2 * n], p, b[0], b[1]);
      mma_f16(t.o[2 * n + 1], p, b[2], b[3]);
    }
  }
}

// grid: (ceil(tiles / warps of a block), KV heads)
template <int D>
__device__ inline void whole(const AttentionTileArg& a, const StepView& step, const KvView& kv) {
  __half* shared = reinterpret_cast<__half*>(dynamic_shared()) + threadIdx.x / 32 * kPageTokens * (D + 8);
  const std::uint32_t tokens = 16 / a.group, tiles = gridDim.x * (blockDim.x / 32);
  // Late tiles see the most keys: start them first.
  const std::uint32_t tile = tiles - 1 - (blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
  const std::uint32_t kv_head = blockIdx.y, g = threadIdx.x % 32 / 4;
  const std::uint32_t last = min((tile + 1) * tokens, step.header->n_rows);
  for (std::uint32_t first = tile * tokens; first < last;) {
    const std::uint32_t sequence = step.row_sequence[first];
    std::uint32_t count = 1;
    std::uint32_t stop = last;
    if (a.prefill_rows) {  // some tiles are prefill_*'s
      const std::uint32_t begin = first / a.prefill_rows * a.prefill_rows;
      stop = min(stop, begin + a.prefill_rows);
      if (is_prompt_tile(step, begin, a.prefill_rows)) {
        first = stop;
        continue;
      }
    }
    while (first + count < stop && step.row_sequence[first + count] == sequence) ++count;
    Tile<D> t;
    start(t, a, first, count, kv_head);
    const std::uint32_t position = step.positions[first];
    Keys keys[2];
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const std::uint32_t token = (g + 8 * r) / a.group;
      keys[r] = token < count ? keys_of(position + token, a.window) : Keys{0, 0};
    }
    const std::uint32_t end = position + count;
    for (std::uint32_t p = keys_of(position, a.window).begin / kPageTokens; p * kPageTokens < end; p++) {
      const std::int32_t page = kv_page(step, kv, sequence, p);
      if (page < 0) continue;
      attend<D>(t, a, head_of<D>(kv, page, false, kv_head), head_of<D>(kv, page, true, kv_head),
                p * kPageTokens, keys, end, shared);
    }
    finish<D>(a, first, count, kv_head, {g, g + 8}, t.o, t.most, t.sum);
    first += count;
  }
}

// grid: (workers / warps of a block, KV heads, rows)
template <int D>
__device__ inline void split(const AttentionTileArg& a, const StepView& step, const KvView& kv) {
  __half* shared = reinterpret_cast<__half*>(dynamic_shared()) + threadIdx.x / 32 * kPageTokens * (D + 8);
  const std::uint32_t row = blockIdx.z, kv_head = blockIdx.y,
                      worker = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const std::uint32_t lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
  if (row >= step.header->n_rows) return;
  const Keys mine = keys_of(step.positions[row], a.window);
  std::uint32_t p = mine.begin / kPageTokens + worker;
  if (p * kPageTokens >= mine.end) return;
  const Keys keys[2] = {mine, mine};
  const std::uint32_t sequence = step.row_sequence[row];
  Tile<D> t;
  start(t, a, row, 1, kv_head);
  for (; p * kPageTokens < mine.end; p += a.workers) {
    const std::int32_t page = kv_page(step, kv, sequence, p);
    if (page < 0) continue;
    attend<D>(t, a, head_of<D>(kv, page, false, kv_head), head_of<D>(kv, page, true, kv_head),
              p * kPageTokens, keys, mine.end, shared);
  }
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const std::uint32_t i = g + 8 * r;
    if (i >= a.group) continue;
    const std::uint64_t index = static_cast<std::uint64_t>(row) * a.n_heads + kv_head * a.group + i;
    float* to = a.partials + (index * a.workers + worker) * (D + 4);
    if (c == 0) to[0] = t.most[r], to[1] = t.sum[r];
#pragma unroll
    for (int n = 0; n < D / 8; n++)
      *reinterpret_cast<float2*>(to + 4 + n * 8 + 2 * c) = make_float2(t.o[n][2 * r], t.o[n][2 * r + 1]);
  }
}

// grid: (heads, rows), D threads.
template <int D>
__device__ inline void combine(const AttentionTileArg& a, const StepView& step) {
  const std::uint32_t head = blockIdx.x, row = blockIdx.y;
  if (row >= step.header->n_rows) return;
  const Keys keys = keys_of(step.positions[row], a.window);
  const std::uint32_t pages = (keys.end - 1) / kPageTokens - keys.begin / kPageTokens + 1;
  const std::uint32_t n = min(pages, a.workers);
  const float* from = a.partials + (static_cast<std::uint64_t>(row) * a.n_heads + head) * a.workers * (D + 4);
  float most = a.sinks ? a.sinks[head] * kLog2e : kLeastScore;
  const float first = most;
#pragma unroll 8
  for (std::uint32_t w = 0; w < n; w++) most = fmaxf(most, __ldcg(from + w * (D + 4)));
  float sum = a.sinks ? power_of_two(first - most) : 0.f, value = 0;
#pragma unroll 8
  for (std::uint32_t w = 0; w < n; w++) {
    const float* p = from + w * (D + 4);
    const float f = power_of_two(__ldcg(p) - most);
    sum += f * __ldcg(p + 1);
    value += f * __ldcg(p + 4 + threadIdx.x);
  }
  value = sum > 0 ? value / sum : 0.f;
  const std::uint32_t column = head * D + threadIdx.x;
  a.out[static_cast<std::uint64_t>(row) * a.n_heads * D + column] = value;
  if (a.x16) store_one(GemvInput(a.x16, units_of(a.n_heads * D), a.max_rows), value, true, column, row);
}

}  // namespace
}  // namespace steelyard::cuda::hopper

using steelyard::cuda::KvView;
using steelyard::cuda::StepView;
using steelyard::cuda::hopper::AttentionTileArg;

#define STEELYARD_ATTENTION(D)                                                                               \
  extern "C" __global__ void __launch_bounds__(128)                                                          \
      attention_##D(const __grid_constant__ AttentionTileArg a, const __grid_constant__ StepView step,       \
                    const __grid_constant__ KvView kv) {                                                     \
    steelyard::cuda::hopper::wait_for_predecessor();                                                         \
    steelyard::cuda::hopper::whole<D>(a, step, kv);                                                          \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(128)                                                          \
      attention_split_##D(const __grid_constant__ AttentionTileArg a, const __grid_constant__ StepView step, \
                          const __grid_constant__ KvView kv) {                                               \
    steelyard::cuda::hopper::wait_for_predecessor();                                                         \
    steelyard::cuda::hopper::split<D>(a, step, kv);                                                          \
  }                                                                                                          \
  extern "C" __global__ void __launch_bounds__(D) attention_combine_##D(                                     \
      const __grid_constant__ AttentionTileArg a, const __grid_constant__ StepView step) {                   \
    steelyard::cuda::hopper::wait_for_predecessor();                                                         \
    steelyard::cuda::hopper::combine<D>(a, step);                                                            \
  }
STEELYARD_ATTENTION(64)
STEELYARD_ATTENTION(128)
STEELYARD_ATTENTION(256)
