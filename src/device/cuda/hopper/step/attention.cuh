// Attention inside the step kernel (hopper/step/step_sm90a.cu): rotation, append and softmax over f16 pages
// for a few rows.
#pragma once

#include "device/cuda/hopper/attention/softmax.cuh"
#include "device/cuda/hopper/gemv/units.cuh"
#include "device/cuda/hopper/step/words.cuh"

namespace steelyard::cuda::hopper {

// What a step says of its row, in shared memory.
struct StepRow {
  std::uint32_t position, n_outputs;
  const std::int32_t* tables;  // [groups][table_stride]
  std::uint32_t table_stride;
};

constexpr int kTileKeys = 16;

// Softmax's sums of a query: the maximum is in powers of two.
struct Sum {
  float most, sum, value;
};

// One dimension of a head's result. All lanes of a warp call, with neighbouring d.
template <int D>
__device__ __forceinline__ void write(const StepAttention& a, std::uint32_t tag, std::uint32_t head,
                                      std::uint32_t d, Sum s) {
  if (a.sinks) {
    const float sink = a.sinks[head] * kLog2e, top = fmaxf(s.most, sink), f = power_of_two(s.most - top);
    s.sum = s.sum * f + power_of_two(sink - top);
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
  look_until(flow, [&] {
    bool all = true;
#pragma unroll
    for (int p = 0; p < N; p++)
      if (static_cast<std::uint32_t>(p) < n) {
        const std::uint64_t w = load_word(words + p * (D + 1));
        all = all && static_cast<std::uint32_t>(w >> 32) == tag;
        to[p] = __uint_as_float(static_cast<std::uint32_t>(w));
      }
    return all;
  });
}

constexpr int kDims = 64;  // of the values that a warp sums: more would not fit its registers

// How the keys before the row's own are shared out: in tiles, dealt in turn to parts (blocks) and in these to
// workers (kDims of the values a warp).
struct Cut {
  std::uint32_t begin, end;    // keys
  std::uint32_t first, tiles;  // of the keys
  std::uint32_t parts;
  __device__ __forceinline__ Cut(const StepAttention& a, std::uint32_t position) {
    end = position;
    begin = a.window && position >= a.window ? position + 1 - a.window : 0;
    first = begin / kTileKeys;
    tiles = end > begin ? (end - 1) / kTileKeys - first + 1 : 0;
    const std::uint32_t two = 2u << a.worker_bits;  // to share is worth two tiles a worker
    parts = max(1u, min(a.most_parts, (tiles + two - 1) >> (a.worker_bits + 1)));
  }
};

// Which KV head and which of its parts is this block's; false: none.
__device__ __forceinline__ bool find_part(const StepAttention& a, std::uint32_t& kv_head,
                                          std::uint32_t& part) {
  kv_head = blockIdx.x * a.parts_reciprocal >> 16;
  part = blockIdx.x - kv_head * a.most_parts;
  return kv_head < a.kv.n_kv_heads;
}

// One block's part of the row and a KV head: queries x keys of 16 in tiles, dealt to the warps in turn. The
// state's values go through mma as right operands: their 8 x 8 tiles are transposed in registers.
//
// What counts is the chain from the product before to the result, and how many instructions it has: the first
// tile is read before the product is there, and the row's own key and value go straight to the sum, so that
// no tile waits for them.
template <int D>
class Attention {
 public:
  static constexpr int kSlices = D / kDims;
  static constexpr int kKeyDims = D < 128 ? D : 128;  // of keys in registers at once
  static constexpr int kEach = D / 32;                // neighbouring dimensions of a head that a lane holds

  // Op `index` of the step; region: shared memory.
  __device__ __forceinline__ Attention(const StepAttention& a, std::uint32_t index, const StepRow& row,
                                       Flow& flow, std::uint8_t* region)
      : a_(a),
        row_(row),
        flow_(flow),
        in_tag_(flow.tag(a.qkv_op)),
        tag_(flow.tag(index)),
        cut_(a, row.position) {
    q_ = reinterpret_cast<std::uint32_t*>(region);
    own_ = reinterpret_cast<float*>(region + 16 * D * 2);
    merge_ = own_ + kStepOwnFloats(D);
  }

  __device__ __forceinline__ void run() {
    std::uint32_t kv_head, part;
    if (!find_part(a_, kv_head, part) || part >= cut_.parts) return;
    int lane = threadIdx.x % 32;
    const std::uint32_t warp = threadIdx.x / 32, worker = warp / kSlices, slice = warp % kSlices;
    const std::uint32_t step = cut_.parts << a_.worker_bits;
    // The first tile of this worker.
    std::uint32_t t = worker >> a_.worker_bits ? cut_.tiles : worker * cut_.parts + part;
    KeyHalves k;
    std::uint64_t tile = tile_of(t < cut_.tiles ? t : 0, kv_head);
    // Also where there is none: registers without a value would be kept from the kernel's start.
    k.read(tile, 0, lane);
#pragma unroll 1
    for (std::uint32_t r = warp; r < a_.group + (part == 0 ? 2 : 0); r += kGemvWarps) prepare(r, kv_head);
    sync_warps();
    if (part == 0 && warp < a_.group) score(warp);
    State s;
#pragma unroll
    for (auto& o : s.o) o[0] = o[1] = o[2] = o[3] = 0;
    s.most[0] = s.most[1] = kLeastScore, s.sum[0] = s.sum[1] = 0;
#pragma unroll 1
    while (t < cut_.tiles) {
      renew(lane);  // or queries and addresses would be kept in registers
      float x[2][4] = {};
#pragma unroll
      for (int piece = 0; piece < D / kKeyDims; piece++) {
        if (piece != 0) k.read(tile, piece, lane);
        multiply(x, k, piece, lane);
      }
      Values v;  // not before: the keys were in their registers
      v.read(tile + a_.kv.v_offset, slice, lane);
      weigh(s, x, (cut_.first + t) * kTileKeys, lane);
      add(s, x, v);
      if ((t += step) < cut_.tiles) k.read(tile = tile_of(t, kv_head), 0, lane);
    }
    if (worker >> a_.worker_bits == 0) store(s, merge_ + worker * a_.group * (D + 4), slice);
    sync_warps();
    join(kv_head, part);
    sync_warps();  // the region was read
  }

 private:
  __device__ __forceinline__ std::int32_t page_of(std::uint32_t index) const {
    return row_.tables[static_cast<std::uint64_t>(a_.kv.group) * row_.table_stride + index];
  }
  // Address of token `at`'s key in its page.
  __device__ __forceinline__ std::uint64_t address(std::int32_t page, std::uint32_t kv_head,
                                                   std::uint32_t at) const {
    return a_.kv.base + page * a_.kv.page_bytes + (kv_head * kPageTokens + at % kPageTokens) * (D * 2u);
  }
  __device__ __forceinline__ std::uint64_t tile_of(std::uint32_t t, std::uint32_t kv_head) const {
    const std::uint32_t key = (cut_.first + t) * kTileKeys;
    return address(max(page_of(key / kPageTokens), 0), kv_head, key);
  }

  // kKeyDims dimensions of a tile's 16 keys: what the lane needs as right operands.
  struct KeyHalves {
    uint4 b[2][kKeyDims / 32];
    __device__ __forceinline__ void read(std::uint64_t tile, int piece, int lane) {
      const int g = lane / 4, c = lane % 4;
      const auto* k = reinterpret_cast<const uint4*>(tile) + g * (D / 8) + c + piece * (kKeyDims / 8);
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < kKeyDims / 32; i++) b[n][i] = __ldcg(k + n * D + 4 * i);
    }
  };
  struct Values {
    uint4 w[2][kDims / 32];
    __device__ __forceinline__ void read(std::uint64_t tile, std::uint32_t slice, int lane) {
      const int g = lane / 4, c = lane % 4;
      const auto* v = reinterpret_cast<const uint4*>(tile) + slice * (kDims / 8) + g * (D / 8) + c;
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int i = 0; i < kDims / 32; i++) w[n][i] = __ldcg(v + n * D + 4 * i);
    }
  };

  // Cosine and sine of the lane's dimensions, and where each one's partner in the rotation stands.
  __device__ __forceinline__ void read_rotation(float2 (&turn)[kEach], int& partner) const {
    const RopeArg& rope = a_.rope;
    const std::uint32_t half = rope.n_rot / 2, d = threadIdx.x % 32 * kEach;
    const bool low = d < half;
    partner = !rope.halves ? 0 : low ? static_cast<int>(half) : -static_cast<int>(half);
#pragma unroll
    for (int e = 0; e < kEach; e++) {
      turn[e] = make_float2(1.f, 0.f);
      if (rope.cos_sin && d + e < rope.n_rot)
        turn[e] = reinterpret_cast<const float2*>(
            rope.cos_sin)[rope.halves ? d + e - (low ? 0 : half) : (d + e) / 2];
    }
  }

  // Head `r` of the product before, by one warp: normed and rotated, a query to halves, the row's own key and
  // value (r = group, group + 1) to their page too.
  __device__ __forceinline__ void prepare(std::uint32_t r, std::uint32_t kv_head) const {
    const std::uint32_t d = threadIdx.x % 32 * kEach;
    const bool query = r < a_.group, value = r == a_.group + 1;
    const std::uint64_t* words =
        query ? a_.q + (kv_head * a_.group + r) * D : (value ? a_.v : a_.k) + kv_head * D;
    const float* norm = query ? a_.q_norm : value ? nullptr : a_.k_norm;
    float2 turn[kEach];
    int partner;
    float x[kEach], w[kEach];
    read_rotation(turn, partner);
#pragma unroll
    for (int e = 0; e < kEach; e++) w[e] = norm ? __ldg(norm + d + e) : 1.f;
    const std::int32_t page = query ? -1 : page_of(row_.position / kPageTokens);
    read_words(words + d, x);
    if (norm) {
      float squares = 0;
#pragma unroll
      for (int e = 0; e < kEach; e++) squares += x[e] * x[e];
      for (int i = 16; i; i /= 2) squares += __shfl_xor_sync(~0u, squares, i);
      const float scale = rsqrtf(squares * (1.f / D) + (query ? a_.q_eps : a_.k_eps));
#pragma unroll
      for (int e = 0; e < kEach; e++) x[e] *= scale * w[e];
    }
    if (!value) {
      float* head = merge_ + threadIdx.x / 32 * D;
#pragma unroll
      for (int e = 0; e < kEach; e++) head[d + e] = x[e];
      __syncwarp();
#pragma unroll
      for (int e = 0; e < kEach; e++) {
        const float y = head[partner ? d + e + partner : (d + e) ^ 1];
        const bool first = partner ? partner > 0 : (e & 1) == 0;
        x[e] = x[e] * turn[e].x + (first ? -y : y) * turn[e].y;
      }
      __syncwarp();
    }
    std::uint32_t h[kEach / 2];
#pragma unroll
    for (int e = 0; e < kEach; e += 2) h[e / 2] = pack_halves(x[e], x[e + 1]);
    if (query) {
#pragma unroll
      for (int e = 0; e < kEach / 2; e++) q_[word_of(r, d + 2 * e)] = h[e];
      return;
    }
    float* own = own_ + (value ? D : 0) + d;
    const std::uint64_t to = address(page, kv_head, row_.position) + (value ? a_.kv.v_offset : 0) + d * 2;
#pragma unroll
    for (int e = 0; e < kEach / 2; e++) {
      *reinterpret_cast<float2*>(own + 2 * e) = __half22float2(*reinterpret_cast<const __half2*>(&h[e]));
      if (page >= 0) store_unseen(reinterpret_cast<std::uint32_t*>(to) + e, h[e]);
    }
  }

  // A lane's words of a head, once they are there.
  __device__ __forceinline__ void read_words(const std::uint64_t* words, float (&x)[kEach]) const {
    look_until(flow_, [&] {
      bool all = true;
#pragma unroll
      for (int i = 0; i < kEach / 2; i++) {
        const ulonglong2 w = load_words(words + 2 * i);
        all = all && has(w, in_tag_);
        x[2 * i] = __uint_as_float(static_cast<std::uint32_t>(w.x));
        x[2 * i + 1] = __uint_as_float(static_cast<std::uint32_t>(w.y));
      }
      return all;
    });
    __syncwarp();
  }

  // Where dimensions d and d + 1 of query r are: in the order in which lanes take them as left operands (a
  // lane has columns 8 c .. 8 c + 7 of every 32).
  __device__ __forceinline__ static std::uint32_t word_of(std::uint32_t r, std::uint32_t d) {
    return ((d / 32 * 2 + d % 8 / 4) * 32 + r % 8 * 4 + d % 32 / 8) * 4 + d % 4 / 2 * 2 + r / 8;
  }

  // Of query i and the row's own key.
  __device__ __forceinline__ void score(std::uint32_t i) const {
    const std::uint32_t d = threadIdx.x % 32 * kEach;
    float sum = 0;
#pragma unroll
    for (int e = 0; e < kEach; e += 2) {
      const float2 q = __half22float2(*reinterpret_cast<const __half2*>(q_ + word_of(i, d + e)));
      sum += q.x * own_[d + e] + q.y * own_[d + e + 1];
    }
    for (int n = 16; n; n /= 2) sum += __shfl_xor_sync(~0u, sum, n);
    float x[1][4] = {{sum, sum, sum, sum}};
    to_scores(x, a_.scale, a_.softcap);
    if (d == 0) own_[2 * D + i] = x[0][0];
  }

  struct State {
    float o[kDims / 8][4];
    float most[2], sum[2];  // of queries g and g + 8; the maximum in powers of two
  };

  // Adds to the scores of a tile's keys what kKeyDims dimensions give.
  __device__ __forceinline__ void multiply(float (&x)[2][4], const KeyHalves& k, int piece, int lane) const {
#pragma unroll
    for (int i = 0; i < kKeyDims / 32; i++)
#pragma unroll
      for (int half = 0; half < 2; half++) {
        std::uint32_t q[4];  // volatile: or all would be kept in registers from tile to tile
        load_volatile(q, q_ + ((piece * (kKeyDims / 16) + 2 * i + half) * 32 + lane) * 4);
#pragma unroll
        for (int n = 0; n < 2; n++)
          half ? mma_f16(x[n], q, k.b[n][i].z, k.b[n][i].w) : mma_f16(x[n], q, k.b[n][i].x, k.b[n][i].y);
      }
  }

  // Scores to weights.
  __device__ __forceinline__ void weigh(State& s, float (&x)[2][4], std::uint32_t first_key, int lane) const {
    to_scores(x, a_.scale, a_.softcap);
    if (first_key < cut_.begin || first_key + kTileKeys > cut_.end) {
#pragma unroll
      for (int n = 0; n < 2; n++)
#pragma unroll
        for (int e = 0; e < 4; e++) {
          const std::uint32_t key = first_key + n * 8 + lane % 4 * 2 + (e & 1);
          if (key < cut_.begin || key >= cut_.end) x[n][e] = kNoScore;
        }
    }
    soften(x, s.most, s.sum, s.o);
  }

  // The values of a tile under their weights.
  __device__ __forceinline__ void add(State& s, const float (&x)[2][4], const Values& v) const {
    const std::uint32_t p[4] = {pack_halves(x[0][0], x[0][1]), pack_halves(x[0][2], x[0][3]),
                                pack_halves(x[1][0], x[1][1]), pack_halves(x[1][2], x[1][3])};
#pragma unroll
    for (int i = 0; i < kDims / 32; i++) {
      const uint4 &a = v.w[0][i], &b = v.w[1][i];
      const std::uint32_t lo[4] = {a.x, a.y, a.z, a.w}, hi[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int q = 0; q < 4; q++) mma_f16(s.o[4 * i + q], p, transpose(lo[q]), transpose(hi[q]));
    }
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

  // Dimension d of query i: the workers' results in order, after the row's own key where `own`.
  __device__ __forceinline__ Sum gather(std::uint32_t i, std::uint32_t d, bool own) const {
    const std::uint32_t stride = a_.group * (D + 4), workers = 1u << a_.worker_bits;
    const float* from = merge_ + i * (D + 4);
    Sum r{own ? own_[2 * D + i] : kLeastScore, 0, 0};
    const float mine = r.most;
#pragma unroll 4
    for (std::uint32_t w = 0; w < workers; w++) r.most = fmaxf(r.most, from[w * stride]);
    if (own) {
      r.sum = power_of_two(mine - r.most);
      r.value = r.sum * own_[D + d];
    }
#pragma unroll 4
    for (std::uint32_t w = 0; w < workers; w++) {
      const float* p = from + w * stride;
      const float f = power_of_two(p[0] - r.most);
      r.sum += f * p[1];
      r.value += f * p[4 + d];
    }
    return r;
  }

  // With several parts, add_parts() goes on.
  __device__ __forceinline__ void join(std::uint32_t kv_head, std::uint32_t part) const {
#pragma unroll 1
    for (std::uint32_t e = threadIdx.x; e < a_.group * D; e += kThreads) {
      const std::uint32_t i = e / D, d = e % D, head = kv_head * a_.group + i;
      const Sum r = gather(i, d, part == 0);
      if (cut_.parts == 1) {
        write<D>(a_, tag_, head, d, r);
        continue;
      }
      std::uint64_t* to = part_words<D>(a_, head, part);
      if (d == 0) put(to, r.sum > 0 ? r.most + log2f(r.sum) : kLeastScore, tag_);
      put(to + 1 + d, r.sum > 0 ? __fdividef(r.value, r.sum) : 0.f, tag_);
    }
  }

  const StepAttention& a_;
  const StepRow& row_;
  Flow& flow_;
  const std::uint32_t in_tag_, tag_;
  const Cut cut_;
  std::uint32_t* q_;  // 16 queries, by word_of()
  float* own_;        // the row's own key and value, rounded as in their page, and its score with each query
  float* merge_;      // heads on their way to halves or pages, then the workers' results
};

// Where keys were shared out over parts, the block of the first adds them.
template <int D>
__device__ __forceinline__ void add_parts(const StepAttention& a, std::uint32_t index, const StepRow& row,
                                          Flow& flow, std::uint8_t* region) {
  constexpr int kAtOnce = 8;
  std::uint32_t kv_head, part;
  const std::uint32_t parts = Cut(a, row.position).parts, tag = flow.tag(index);
  if (parts == 1 || !find_part(a, kv_head, part) || part != 0) return;
  float* shares = reinterpret_cast<float*>(region);  // [queries][parts]
  for (std::uint32_t n = threadIdx.x; n < a.group * parts; n += kThreads)
    shares[n] = take_float(part_words<D>(a, kv_head * a.group + n / parts, n % parts), tag, flow);
  sync_warps();
  for (std::uint32_t e = threadIdx.x; e < a.group * D; e += kThreads) {
    const std::uint32_t i = e / D, d = e % D, head = kv_head * a.group + i;
    const float* share = shares + i * parts;
    const std::uint64_t* words = part_words<D>(a, head, 0) + 1 + d;
    Sum r{kLeastScore, 0, 0};
#pragma unroll 1
    for (std::uint32_t p = 0; p < parts; p++) r.most = fmaxf(r.most, share[p]);
#pragma unroll 1
    for (std::uint32_t first = 0; first < parts; first += kAtOnce, words += kAtOnce * (D + 1)) {
      float value[kAtOnce] = {};  // what may be uninitialised is live, here in the whole kernel
      read_parts<D>(words, parts - first, tag, flow, value);
#pragma unroll
      for (int p = 0; p < kAtOnce; p++)
        if (first + p < parts) {
          const float f = power_of_two(share[first + p] - r.most);
          r.sum += f;
          r.value += f * value[p];
        }
    }
    write<D>(a, tag, head, d, r);
  }
  sync_warps();  // shares were read
}

}  // namespace steelyard::cuda::hopper
