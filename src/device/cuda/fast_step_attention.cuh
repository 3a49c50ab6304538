// Attention inside the step kernel (fast_step_sm90a.cu): rotation, append and softmax over f16 pages for a
// few rows.
#pragma once

#include <cfloat>

#include "device/cuda/fast_softmax.cuh"
#include "device/cuda/fast_units.cuh"
#include "device/cuda/fast_words.cuh"
#include "device/cuda/kv.cuh"
#include "device/cuda/rope.cuh"

namespace strata::cuda::fast {

// What a step says of its row, in shared memory.
struct StepRow {
  std::uint32_t position, n_outputs;
  const std::int32_t* tables;  // [groups][table_stride]
  std::uint32_t table_stride;
};

constexpr int kTileKeys = 16;

__device__ inline std::uint32_t transpose(std::uint32_t tile) {  // 8 x 8 halves
  std::uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(tile));
  return out;
}

// Softmax's sums of a query: the maximum is in powers of two.
struct Sum {
  float most, sum, value;
};

// One dimension of a head's result. All lanes of a warp call, with neighbouring d.
template <int D>
__device__ __forceinline__ void write(const StepAttention& a, std::uint32_t tag, std::uint32_t head,
                                      std::uint32_t d, Sum s) {
  if (a.sinks) {
    const float sink = a.sinks[head] * kLog2e, top = fmaxf(s.most, sink), f = exp2f(s.most - top);
    s.sum = s.sum * f + exp2f(sink - top);
    s.value *= f;
  }
  const float y = s.sum > 0 ? __fdividef(s.value, s.sum) : 0.f;
  const __half2 pair = clamped_halves(y, __shfl_down_sync(~0u, y, 1));
  if (d % 2 == 0) put(a.out + (head * D + d) / 2, *reinterpret_cast<const std::uint32_t*>(&pair), tag);
}

// What a part of a head's keys gives: its share of the softmax as a power of two, and the values that it
// would give alone.
template <int D>
__device__ __forceinline__ std::uint64_t* part_words(const StepAttention& a, std::uint32_t head,
                                                     std::uint32_t part) {
  return a.partials + (std::uint64_t{head} * kStepParts + part) * (D + 1);
}

// One word of each of the first n parts, n > 0.
template <int D, int N>
__device__ __forceinline__ void read_parts(const std::uint64_t* words, std::uint32_t n, std::uint32_t tag,
                                           Flow& flow, float (&to)[N]) {
  std::uint32_t looks = 0;
  while (true) {
    bool all = true;
#pragma unroll
    for (int p = 0; p < N; p++)
      if (p < n) {
        std::uint64_t w;
        asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(w) : "l"(words + p * (D + 1)) : "memory");
        all = all && static_cast<std::uint32_t>(w >> 32) == tag;
        to[p] = __uint_as_float(static_cast<std::uint32_t>(w));
      }
    if (all || hopeless(flow, looks)) return;
  }
}

constexpr int kDims = 64;  // of the values that a warp sums: more would not fit its registers

__device__ __forceinline__ std::uint32_t most_parts(const StepAttention& a) {
  return min(kStepParts, max(1u, gridDim.x / a.kv.n_kv_heads));
}

// How a KV head's keys are shared out: in tiles, over parts (blocks) and workers (kDims of the values a
// warp).
template <int D>
struct Cut {
  std::uint32_t begin, end;    // keys
  std::uint32_t first, tiles;  // of the keys
  std::uint32_t floats;        // of a worker's result
  std::uint32_t workers, parts;
  __device__ __forceinline__ Cut(const StepAttention& a, const StepRow& row, std::uint32_t region_bytes,
                                 std::uint32_t most) {
    end = row.position + 1;
    begin = a.window && end > a.window ? end - a.window : 0;
    first = begin / kTileKeys;
    tiles = (end - 1) / kTileKeys - first + 1;
    floats = a.group * (D + 4);
    const std::uint32_t room = (region_bytes - 16 * (D + 8) * 2) / 4 / floats;
    workers = min(static_cast<std::uint32_t>(kLinearWarps * kDims / D), room);
    parts = min(most, (tiles + 2 * workers - 1) / (2 * workers));  // to share is worth two tiles a warp
  }
};

// One block's part of the row and a KV head: queries x keys of 16 in tiles, dealt to the warps in turn. The
// state's values go through mma as right operands: their 8 x 8 tiles are transposed in registers.
template <int D>
class Attention {
 public:
  static constexpr int kSlices = D / kDims;
  static constexpr int kStride = D + 8;

  // Op `index` of the step; region: shared memory of region_bytes.
  __device__ __forceinline__ Attention(const StepAttention& a, std::uint32_t index, const StepRow& row,
                                       Flow& flow, std::uint8_t* region, std::uint32_t region_bytes)
      : a_(a),
        row_(row),
        flow_(flow),
        in_tag_(flow.tag(a.qkv_op)),
        tag_(flow.tag(index)),
        region_bytes_(region_bytes) {
    q_ = reinterpret_cast<__half*>(region);
    merge_ = reinterpret_cast<float*>(region + 16 * kStride * 2);
  }

  __device__ __forceinline__ void run() {
    const std::uint32_t heads = a_.kv.n_kv_heads, parts = most_parts(a_);
    for (std::uint32_t i = blockIdx.x; i < heads * parts; i += gridDim.x) item(i / parts, i % parts, parts);
    sync_warps();  // the region was read
  }

 private:
  __device__ __forceinline__ std::int32_t page_of(std::uint32_t index) const {
    return row_.tables[static_cast<std::uint64_t>(a_.kv.group) * row_.table_stride + index];
  }

  // A head of the product before, by one warp.
  __device__ __forceinline__ void read_head(const std::uint64_t* words, float* head) const {
    const std::uint32_t lane = threadIdx.x % 32;
    ulonglong2 w[D / 64];
    std::uint32_t looks = 0;
    while (true) {
      bool all = true;
#pragma unroll
      for (int i = 0; i < D / 64; i++) {
        w[i] = look(words + (i * 32 + lane) * 2);
        all = all && has(w[i], in_tag_);
      }
      if (all || hopeless(flow_, looks)) break;
    }
#pragma unroll
    for (int i = 0; i < D / 64; i++)
      reinterpret_cast<float2*>(head)[i * 32 + lane] =
          make_float2(__uint_as_float(static_cast<std::uint32_t>(w[i].x)),
                      __uint_as_float(static_cast<std::uint32_t>(w[i].y)));
    __syncwarp();
  }

  __device__ __forceinline__ void append(std::uint32_t kv_head, bool key, bool value) const {
    const std::uint32_t position = row_.position;
    const std::int32_t page = page_of(position / kPageTokens);
    if (page < 0) return;
    float* head = merge_ + threadIdx.x / 32 * D;
    const std::uint64_t at = std::uint64_t{kv_head} * D;
    if (key) {
      read_head(a_.k + at, head);
      norm_and_rotate(head, D, a_.k_norm, a_.k_eps, a_.rope, 0);
      kv_store(a_.kv, page, false, kv_head, position % kPageTokens, head);
      __syncwarp();
    }
    if (value) {
      read_head(a_.v + at, head);
      kv_store(a_.kv, page, true, kv_head, position % kPageTokens, head);
    }
  }

  __device__ __forceinline__ void load_query(std::uint32_t kv_head) const {
    const std::uint32_t warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    if (warp >= a_.group) return;
    float* head = merge_ + warp * D;
    read_head(a_.q + (kv_head * a_.group + warp) * D, head);
    norm_and_rotate(head, D, a_.q_norm, a_.q_eps, a_.rope, 0);
    for (int i = lane; i < D; i += 32) q_[warp * kStride + i] = __float2half_rn(head[i]);
  }

  struct State {
    float o[kDims / 8][4];
    float most[2], sum[2];  // of queries g and g + 8; the maximum in powers of two
  };

  // Adds the keys of one tile.
  __device__ __forceinline__ void attend(State& s, const __half* k, const __half* v, std::uint32_t first_key,
                                         std::uint32_t begin, std::uint32_t end, int slice) const {
    const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
    float x[2][4] = {};
    uint4 b[2][D / 32];
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < D / 32; i++)
        b[n][i] = __ldcg(reinterpret_cast<const uint4*>(k + (n * 8 + g) * D + 32 * i + 8 * c));
#pragma unroll
    for (int i = 0; i < D / 32; i++) {
      const uint4 lo = *reinterpret_cast<const uint4*>(q_ + g * kStride + 32 * i + 8 * c);
      const uint4 hi = *reinterpret_cast<const uint4*>(q_ + (g + 8) * kStride + 32 * i + 8 * c);
      const std::uint32_t q0[4] = {lo.x, hi.x, lo.y, hi.y}, q1[4] = {lo.z, hi.z, lo.w, hi.w};
#pragma unroll
      for (int n = 0; n < 2; n++) {
        mma_f16(x[n], q0, b[n][i].x, b[n][i].y);
        mma_f16(x[n], q1, b[n][i].z, b[n][i].w);
      }
    }
    // Not before: the keys were in their registers.
    uint4 w[2][kDims / 32];
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int i = 0; i < kDims / 32; i++)
        w[n][i] =
            __ldcg(reinterpret_cast<const uint4*>(v + (n * 8 + g) * D + slice * kDims + 32 * i + 8 * c));
    weigh(s, x, first_key, begin, end);
    const std::uint32_t p[4] = {pack_halves(x[0][0], x[0][1]), pack_halves(x[0][2], x[0][3]),
                                pack_halves(x[1][0], x[1][1]), pack_halves(x[1][2], x[1][3])};
#pragma unroll
    for (int i = 0; i < kDims / 32; i++) {
      const std::uint32_t lo[4] = {w[0][i].x, w[0][i].y, w[0][i].z, w[0][i].w},
                          hi[4] = {w[1][i].x, w[1][i].y, w[1][i].z, w[1][i].w};
#pragma unroll
      for (int q = 0; q < 4; q++) mma_f16(s.o[4 * i + q], p, transpose(lo[q]), transpose(hi[q]));
    }
  }

  // Scores to weights: those of keys [begin, end) count.
  __device__ __forceinline__ void weigh(State& s, float (&x)[2][4], std::uint32_t first_key,
                                        std::uint32_t begin, std::uint32_t end) const {
    const int c = threadIdx.x % 4;
    float most[2] = {s.most[0], s.most[1]};
#pragma unroll
    for (int n = 0; n < 2; n++)
#pragma unroll
      for (int e = 0; e < 4; e++) {
        const std::uint32_t key = first_key + n * 8 + 2 * c + (e & 1);
        float y = x[n][e] * a_.scale;
        if (a_.softcap > 0) y = a_.softcap * tanhf(__fdividef(y, a_.softcap));
        y = key >= begin && key < end ? y * kLog2e : -FLT_MAX;
        x[n][e] = y;
        most[e / 2] = fmaxf(most[e / 2], y);
      }
    soften(x, most, s.most, s.sum, s.o);
  }

  // A worker's results for the real queries: per query {maximum, sum, -, -, values}.
  __device__ __forceinline__ void store(const State& s, float* to, int slice) const {
    const int lane = threadIdx.x % 32, g = lane / 4, c = lane % 4;
#pragma unroll
    for (int r = 0; r < 2; r++) {
      const std::uint32_t i = g + 8 * r;
      if (i >= a_.group) continue;
      float* at = to + i * (D + 4);
      if (c == 0 && slice == 0) at[0] = s.most[r], at[1] = s.sum[r];
      at += 4 + slice * kDims + 8 * c;
#pragma unroll
      for (int n = 0; n < kDims / 32; n++)
#pragma unroll
        for (int q = 0; q < 4; q++)
          *reinterpret_cast<float2*>(at + 32 * n + 2 * q) =
              make_float2(s.o[4 * n + q][2 * r], s.o[4 * n + q][2 * r + 1]);
    }
  }

  // The workers' results for query i's dimension d, in order; `from`: the first worker's of the query.
  __device__ __forceinline__ Sum add(const float* from, std::uint32_t n, std::uint32_t stride,
                                     std::uint32_t d) const {
    Sum r{-FLT_MAX, 0, 0};
#pragma unroll 4
    for (std::uint32_t w = 0; w < n; w++) r.most = fmaxf(r.most, from[w * stride]);
#pragma unroll 4
    for (std::uint32_t w = 0; w < n; w++) {
      const float* p = from + w * stride;
      const float f = exp2f(p[0] - r.most);
      r.sum += f * p[1];
      r.value += f * p[4 + d];
    }
    return r;
  }

  __device__ __forceinline__ void item(std::uint32_t kv_head, std::uint32_t part, std::uint32_t parts) {
    const Cut<D> cut(a_, row_, region_bytes_, parts);
    const std::uint32_t begin = cut.begin, end = cut.end, first = cut.first, floats = cut.floats,
                        workers = cut.workers;
    parts = cut.parts;
    if (part >= parts) return;
    const std::uint32_t from = cut.tiles * part / parts, to = cut.tiles * (part + 1) / parts;
    sync_warps();  // shared memory is free again
    load_query(kv_head);
    const std::uint32_t warp = threadIdx.x / 32;
    if (part + 1 == parts && warp >= kLinearWarps - 2) {
      __syncwarp();
      append(kv_head, warp == kLinearWarps - 2, warp == kLinearWarps - 1);
    }
    sync_warps();
    const std::uint32_t worker = warp / kSlices, slice = warp % kSlices;
    State s;
#pragma unroll
    for (auto& o : s.o) o[0] = o[1] = o[2] = o[3] = 0;
    s.most[0] = s.most[1] = -FLT_MAX, s.sum[0] = s.sum[1] = 0;
    if (worker < workers)
      for (std::uint32_t t = from + worker; t < to; t += workers) {
        const std::uint32_t key = (first + t) * kTileKeys;
        const std::int32_t page = page_of(key / kPageTokens);
        if (page < 0) continue;
        const std::uint64_t at = (static_cast<std::uint64_t>(kv_head) * kPageTokens + key % kPageTokens) * D;
        const auto* base = reinterpret_cast<const __half*>(a_.kv.base + page * a_.kv.page_bytes);
        attend(s, base + at, base + a_.kv.v_offset / 2 + at, key, begin, end, slice);
      }
    const std::uint32_t active = min(workers, to - from);
    if (worker < active) store(s, merge_ + worker * floats, slice);
    sync_warps();
    join(kv_head, part, parts, active, floats);
  }

  // The workers' results; with several parts, add_parts() goes on.
  __device__ __forceinline__ void join(std::uint32_t kv_head, std::uint32_t part, std::uint32_t parts,
                                       std::uint32_t active, std::uint32_t floats) const {
    for (std::uint32_t e = threadIdx.x; e < a_.group * D; e += kThreads) {
      const std::uint32_t i = e / D, d = e % D, head = kv_head * a_.group + i;
      const Sum r = add(merge_ + i * (D + 4), active, floats, d);
      if (parts == 1) {
        write<D>(a_, tag_, head, d, r);
        continue;
      }
      std::uint64_t* to = part_words<D>(a_, head, part);
      if (d == 0) put(to, r.sum > 0 ? r.most + log2f(r.sum) : -FLT_MAX, tag_);
      put(to + 1 + d, r.sum > 0 ? __fdividef(r.value, r.sum) : 0.f, tag_);
    }
  }

  const StepAttention& a_;
  const StepRow& row_;
  Flow& flow_;
  const std::uint32_t in_tag_, tag_, region_bytes_;
  __half* q_;     // [16 queries][kStride]
  float* merge_;  // heads on their way to halves or pages, then the workers' results
};

// Where keys were shared out over parts, the block of the first adds them. A function of its own: inside
// attention the compiler would take its registers from the tiles.
template <int D>
__device__ __noinline__ void add_parts(const StepAttention& a, std::uint32_t index, const StepRow& row,
                                       Flow& flow, std::uint8_t* region, std::uint32_t region_bytes) {
  constexpr int kAtOnce = 8;
  const std::uint32_t most = most_parts(a), kv_head = blockIdx.x / most, tag = flow.tag(index);
  if (blockIdx.x % most != 0 || kv_head >= a.kv.n_kv_heads) return;
  const std::uint32_t parts = Cut<D>(a, row, region_bytes, most).parts;
  if (parts == 1) return;
  float* shares = reinterpret_cast<float*>(region);  // [queries][parts]
  for (std::uint32_t n = threadIdx.x; n < a.group * parts; n += kThreads)
    shares[n] = take_float(part_words<D>(a, kv_head * a.group + n / parts, n % parts), tag, flow);
  sync_warps();
  for (std::uint32_t e = threadIdx.x; e < a.group * D; e += kThreads) {
    const std::uint32_t i = e / D, d = e % D, head = kv_head * a.group + i;
    const float* share = shares + i * parts;
    const std::uint64_t* words = part_words<D>(a, head, 0) + 1 + d;
    Sum r{-FLT_MAX, 0, 0};
#pragma unroll 1
    for (std::uint32_t p = 0; p < parts; p++) r.most = fmaxf(r.most, share[p]);
#pragma unroll 1
    for (std::uint32_t first = 0; first < parts; first += kAtOnce, words += kAtOnce * (D + 1)) {
      float value[kAtOnce];
      read_parts<D>(words, parts - first, tag, flow, value);
#pragma unroll
      for (int p = 0; p < kAtOnce; p++)
        if (first + p < parts) {
          const float f = exp2f(share[first + p] - r.most);
          r.sum += f;
          r.value += f * value[p];
        }
    }
    write<D>(a, tag, head, d, r);
  }
  sync_warps();  // shares were read
}

}  // namespace strata::cuda::fast
