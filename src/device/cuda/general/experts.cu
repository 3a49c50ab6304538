// Mixtures of experts by general kernels (ExpertsOp in program/program.h): any type, float but for the tiles
// of many rows. An "entry" is a row's use of an expert, entry = row * n_used + i for its i-th best.
#include <cfloat>

#include "device/cuda/common/dequant.cuh"
#include "device/cuda/common/ptx.cuh"
#include "device/cuda/general/args.h"

using namespace steelyard::cuda;

namespace {

constexpr std::uint32_t kTile = 64;  // outputs and entries of a tile

struct Candidate {
  float mark;
  std::uint32_t index;
};

__device__ bool better(const Candidate& a, const Candidate& b) {
  return a.mark > b.mark || (a.mark == b.mark && a.index < b.index);
}
// Of all lanes' the best, of equals the first.
__device__ Candidate best_of_warp(Candidate c) {
  for (int i = 16; i > 0; i /= 2) {
    const Candidate other{__shfl_xor_sync(~0u, c.mark, i), __shfl_xor_sync(~0u, c.index, i)};
    if (better(other, c)) c = other;
  }
  return c;
}
__device__ Candidate best(const float* marks, std::uint32_t n, std::uint32_t lane) {
  Candidate c{-INFINITY, ~0u};
  for (std::uint32_t i = lane; i < n; i += 32)
    if (better({marks[i], i}, c)) c = {marks[i], i};
  return best_of_warp(c);
}

__device__ float warp_sum(float x) {
  for (int i = 16; i > 0; i /= 2) x += __shfl_xor_sync(~0u, x, i);
  return x;
}
__device__ float warp_max(float x) {
  for (int i = 16; i > 0; i /= 2) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
  return x;
}

// x[n] becomes its softmax; a warp.
__device__ void warp_softmax(float* x, std::uint32_t n, std::uint32_t lane) {
  float most = -INFINITY, sum = 0;
  for (std::uint32_t i = lane; i < n; i += 32) most = fmaxf(most, x[i]);
  most = warp_max(most);
  for (std::uint32_t i = lane; i < n; i += 32) sum += x[i] = expf(x[i] - most);
  sum = warp_sum(sum);
  for (std::uint32_t i = lane; i < n; i += 32) x[i] /= sum;
  __syncwarp();
}

struct RouteShared {
  float scores[kMostRouted], marks[kMostRouted], groups[kMostRouted], weights[kMostChosen];
  std::uint32_t chosen[kMostChosen];
};

// Marks outside of the best groups become -infinity.
__device__ void leave_groups(RouteShared& s, const RouteArg& a, std::uint32_t lane) {
  const std::uint32_t size = a.n_experts / a.n_groups;
  for (std::uint32_t g = lane; g < a.n_groups; g += 32) {
    float first = -INFINITY, second = -INFINITY;
    for (std::uint32_t e = g * size; e < (g + 1) * size; ++e) {
      const float mark = s.marks[e];
      second = mark > first ? first : fmaxf(second, mark);
      first = fmaxf(first, mark);
    }
    s.groups[g] = size > 1 ? fmaxf(first + second, -FLT_MAX) : first;
  }
  __syncwarp();
  for (std::uint32_t i = 0; i < a.n_groups_used; ++i) {
    const Candidate c = best(s.groups, a.n_groups, lane);
    __syncwarp();
    if (lane == 0) s.chosen[i] = c.index, s.groups[c.index] = -INFINITY;
    __syncwarp();
  }
  for (std::uint32_t e = lane; e < a.n_experts; e += 32) {
    bool kept = false;
    for (std::uint32_t i = 0; i < a.n_groups_used; ++i) kept = kept || s.chosen[i] == e / size;
    if (!kept) s.marks[e] = -INFINITY;
  }
  __syncwarp();
}

__device__ float activated(std::int32_t activation, float gate, float up) {
  if (activation == 2) {
    const float g = fminf(gate, 7.0f), u = fminf(fmaxf(up, -7.0f), 7.0f);
    return g / (1.0f + expf(-1.702f * g)) * (u + 1.0f);
  }
  const float a =
      activation == 1
          ? 0.5f * gate * (1.0f + tanhf(0.7978845608028654f * gate * (1.0f + 0.044715f * gate * gate)))
          : gate / (1.0f + expf(-gate));
  return a * up;
}

// Eight bytes from any address on, as two words; reads whole words of four.
__device__ uint2 load_bytes8(const std::uint8_t* p) {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const auto* words = reinterpret_cast<const std::uint32_t*>(at & ~std::uintptr_t{3});
  const unsigned shift = static_cast<unsigned>(at & 3) * 8;
  if (shift == 0) return {words[0], words[1]};
  const std::uint64_t a = words[0] | static_cast<std::uint64_t>(words[1]) << 32,
                      b = words[1] | static_cast<std::uint64_t>(words[2]) << 32;
  return {static_cast<std::uint32_t>(a >> shift), static_cast<std::uint32_t>(b >> shift)};
}
__device__ int byte_of(const uint2& bytes, int i) { return (i < 4 ? bytes.x : bytes.y) >> 8 * (i % 4) & 255; }

// Weights [8 * index, 8 * index + 8) of a row at `p`, as exact floats: neighbouring lanes read neighbouring
// bytes, where load32 gives a lane a block of its own.
template <int T>
__device__ void load8(const std::uint8_t* p, std::uint32_t index, float* out) {
  const int k = index % 4;  // eighths of a group of 32
  if constexpr (T == 2 || T == 8 || T == 39) {
    p += index / 4 * (T == 2 ? 18ull : T == 8 ? 34ull : 17ull);
    const uint2 q = load_bytes8(p + (T == 39 ? 1 : 2) + (T == 8 ? 8 * k : 8 * (k % 2)));
    const float d = T == 39 ? e8m0_half(p[0]) : half_at(p);
    for (int i = 0; i < 8; ++i) {
      const int byte = byte_of(q, i), nibble = k < 2 ? byte & 15 : byte >> 4;
      out[i] = d * static_cast<float>(T == 8   ? static_cast<std::int8_t>(byte)
                                      : T == 2 ? nibble - 8
                                               : static_cast<int>(mxfp4_value(nibble)));
    }
  } else if constexpr (T == 12 || T == 13) {
    p += index / 32 * (T == 12 ? 144ull : 176ull);
    const int g = index % 32 / 4;
    float scale, min;
    scale_min(p + 4, g, scale, min);
    const float ds = half_at(p) * scale, m = half_at(p + 2) * min;
    const uint2 q = load_bytes8(p + (T == 12 ? 16 : 48) + g / 2 * 32 + 8 * k);
    uint2 high{};
    if constexpr (T == 13) high = load_bytes8(p + 16 + 8 * k);
    for (int i = 0; i < 8; ++i) {
      int code = byte_of(q, i) >> 4 * (g % 2) & 15;
      if constexpr (T == 13) code |= (byte_of(high, i) >> g & 1) << 4;
      out[i] = ds * code - m;
    }
  } else {
    p += index / 32 * 210ull;
    const int g = index % 32 / 4, half = g / 4, quarter = g % 4;
    const uint2 low = load_bytes8(p + 64 * half + 32 * (quarter % 2) + 8 * k);
    const uint2 high = load_bytes8(p + 128 + 32 * half + 8 * k);
    const float d = half_at(p + 208) * static_cast<std::int8_t>(p[192 + 2 * g + k / 2]);
    for (int i = 0; i < 8; ++i) {
      const int code = (byte_of(low, i) >> 4 * (quarter / 2) & 15) | (byte_of(high, i) >> 2 * quarter & 3)
                                                                         << 4;
      out[i] = d * (code - 32);
    }
  }
}

template <int T>
__device__ float dot_eights(const std::uint8_t* p, std::uint32_t cols, const float* x, std::uint32_t lane) {
  float sum = 0;
#pragma unroll 2
  for (std::uint32_t index = lane; index * 8 < cols; index += 32) {
    float values[8];
    load8<T>(p, index, values);
    const float4 a = *reinterpret_cast<const float4*>(x + index * 8),
                 b = *reinterpret_cast<const float4*>(x + index * 8 + 4);
    const float inputs[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
    for (int i = 0; i < 8; ++i) sum = fmaf(values[i], inputs[i], sum);
  }
  return warp_sum(sum);
}

// Row `row` of w times x, by a warp; the order of additions depends on the matrix alone. x is aligned to 16
// bytes (a whole number of blocks of 32 but for floats).
__device__ float dot(const MatrixArg& w, std::uint32_t row, const float* x, std::uint32_t lane) {
  const std::uint8_t* p = w.data + static_cast<std::uint64_t>(row) * w.row_bytes;
  switch (w.type) {
    case 2:
      return dot_eights<2>(p, w.cols, x, lane);
    case 8:
      return dot_eights<8>(p, w.cols, x, lane);
    case 12:
      return dot_eights<12>(p, w.cols, x, lane);
    case 13:
      return dot_eights<13>(p, w.cols, x, lane);
    case 14:
      return dot_eights<14>(p, w.cols, x, lane);
    case 39:
      return dot_eights<39>(p, w.cols, x, lane);
  }
  float sum = 0;
  for (std::uint32_t block = lane; block * 32 < w.cols; block += 32) {
    float values[32];
    load32(w, row, block, values);
    const std::uint32_t columns = min(32u, w.cols - block * 32);
    for (std::uint32_t i = 0; i < columns; ++i) sum = fmaf(values[i], x[block * 32 + i], sum);
  }
  return warp_sum(sum);
}

}  // namespace

// grid: rows, a warp each. Scores become what the routing makes of them.
extern "C" __global__ void __launch_bounds__(32) general_route(RouteArg a, RowsArg rows) {
  auto& s = *reinterpret_cast<RouteShared*>(hopper::static_shared<sizeof(RouteShared)>());
  const std::uint32_t row = blockIdx.x, lane = threadIdx.x, n = a.n_experts;
  if (row >= rows.header->n_rows) return;
  for (std::uint32_t e = lane; e < n; e += 32) {
    const float logit = a.scores[static_cast<std::uint64_t>(row) * n + e];
    s.scores[e] = a.scoring == kScoringSigmoid ? 1.0f / (1.0f + expf(-logit)) : logit;
  }
  __syncwarp();
  if (a.scoring == kScoringSoftmax) warp_softmax(s.scores, n, lane);
  for (std::uint32_t e = lane; e < n; e += 32) {
    const float mark = a.choice_bias ? s.scores[e] + a.choice_bias[e] : s.scores[e];
    s.marks[e] = fmaxf(mark, -FLT_MAX);  // of what is no number too: something is chosen
  }
  __syncwarp();
  if (a.n_groups_used < a.n_groups) leave_groups(s, a, lane);
  for (std::uint32_t i = 0; i < a.n_used; ++i) {
    const Candidate c = best(s.marks, n, lane);
    __syncwarp();
    if (lane == 0) s.chosen[i] = c.index, s.weights[i] = s.scores[c.index], s.marks[c.index] = -INFINITY;
    __syncwarp();
  }
  if (a.scoring == kScoringChosen) warp_softmax(s.weights, a.n_used, lane);
  float sum = 0;
  for (std::uint32_t i = lane; i < a.n_used; i += 32) sum += s.weights[i];
  sum = warp_sum(sum);
  const float factor = a.renormalise ? a.scale / sum : a.scale;
  for (std::uint32_t i = lane; i < a.n_used; i += 32) {
    a.chosen[static_cast<std::uint64_t>(row) * a.n_used + i] = s.chosen[i];
    a.weights[static_cast<std::uint64_t>(row) * a.n_used + i] = s.weights[i] * factor;
  }
}

// Few rows, or the same bits for any number of them: a warp an output. grid: (⌈feed-forward / 8⌉, entries).
extern "C" __global__ void __launch_bounds__(256) general_experts_gate_up(ExpertsArg a, RowsArg rows) {
  const std::uint32_t entry = blockIdx.y, row = entry / a.n_used, lane = threadIdx.x % 32;
  const std::uint32_t o = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows.header->n_rows || o >= a.n_ff) return;
  const std::uint32_t at = a.chosen[entry] * a.n_ff + o;
  const float* x = a.x + static_cast<std::uint64_t>(row) * a.gate.cols;
  float gate = dot(a.gate, at, x, lane), up = dot(a.up, at, x, lane);
  if (a.gate_bias) gate += a.gate_bias[at];
  if (a.up_bias) up += a.up_bias[at];
  if (lane == 0) a.inner[static_cast<std::uint64_t>(entry) * a.n_ff + o] = activated(a.activation, gate, up);
}

// The rest, for all of a row's experts. grid: (⌈width / 8⌉, rows).
extern "C" __global__ void __launch_bounds__(256) general_experts_down(ExpertsArg a, RowsArg rows) {
  const std::uint32_t row = blockIdx.y, lane = threadIdx.x % 32;
  const std::uint32_t o = blockIdx.x * 8 + threadIdx.x / 32;
  if (row >= rows.header->n_rows || o >= a.width) return;
  float sum = a.residual[static_cast<std::uint64_t>(row) * a.width + o];
  for (std::uint32_t i = 0; i < a.n_used; ++i) {
    const std::uint32_t entry = row * a.n_used + i, at = a.chosen[entry] * a.width + o;
    float y = dot(a.down, at, a.inner + static_cast<std::uint64_t>(entry) * a.n_ff, lane);
    if (a.down_bias) y += a.down_bias[at];
    sum = fmaf(a.weights[entry], y, sum);
  }
  if (lane == 0) a.out[static_cast<std::uint64_t>(row) * a.width + o] = sum;
}

namespace {

struct ListShared {
  std::uint32_t count[kMostRouted], lanes[2][32];
};

}  // namespace

// Many rows: entries in the experts' order, and each expert's first entry and first tile. One block.
extern "C" __global__ void __launch_bounds__(256) general_experts_list(ExpertsArg a, RowsArg rows) {
  auto& s = *reinterpret_cast<ListShared*>(hopper::static_shared<sizeof(ListShared)>());
  const std::uint32_t entries = rows.header->n_rows * a.n_used, n = a.n_experts;
  for (std::uint32_t e = threadIdx.x; e < n; e += 256) s.count[e] = 0;
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < entries; i += 256) atomicAdd(&s.count[a.chosen[i]], 1u);
  __syncthreads();
  const std::uint32_t share = (n + 31) / 32;  // of a lane of the first warp
  const std::uint32_t begin = min(threadIdx.x * share, n), end = min(begin + share, n);
  std::uint32_t first = 0, tile = 0;
  if (threadIdx.x < 32) {
    for (std::uint32_t e = begin; e < end; ++e) first += s.count[e], tile += (s.count[e] + kTile - 1) / kTile;
    s.lanes[0][threadIdx.x] = first, s.lanes[1][threadIdx.x] = tile;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    first = tile = 0;
    for (std::uint32_t l = 0; l < threadIdx.x; ++l) first += s.lanes[0][l], tile += s.lanes[1][l];
    for (std::uint32_t e = begin; e < end; ++e) {
      const std::uint32_t count = s.count[e];
      a.first_entry[e] = s.count[e] = first, a.first_tile[e] = tile;
      first += count, tile += (count + kTile - 1) / kTile;
    }
    if (end == n) a.first_entry[n] = first, a.first_tile[n] = tile;  // the last lanes, all the same
  }
  __syncthreads();
  for (std::uint32_t i = threadIdx.x; i < entries; i += 256)
    a.order[atomicAdd(&s.count[a.chosen[i]], 1u)] = i;
}

namespace {

// A tile of entries of one expert times a tile of its outputs, 64 columns at a time, by the tensor cores:
// halves, float sums. Rows of halves are 8 apart from a multiple of 64, so that a warp's fragments lie in
// different banks.
constexpr std::uint32_t kColumns = 64, kPitch = kColumns + 8;
template <int N>
struct TileShared {
  __half weights[N][kTile][kPitch], inputs[kTile][kPitch];
  std::uint32_t entries[kTile];
};

// The expert of a tile, and its entries; false: there are fewer tiles. The block.
template <int N>
__device__ bool find_tile(TileShared<N>& s, const ExpertsArg& a, std::uint32_t tile, std::uint32_t& expert,
                          std::uint32_t& count) {
  if (tile >= a.first_tile[a.n_experts]) return false;
  std::uint32_t low = 0, high = a.n_experts;  // the last one whose first tile isn't behind
  while (high - low > 1) {
    const std::uint32_t middle = (low + high) / 2;
    (a.first_tile[middle] <= tile ? low : high) = middle;
  }
  expert = low;
  const std::uint32_t begin = a.first_entry[low] + (tile - a.first_tile[low]) * kTile;
  count = min(kTile, a.first_entry[low + 1] - begin);
  if (threadIdx.x < kTile) s.entries[threadIdx.x] = threadIdx.x < count ? a.order[begin + threadIdx.x] : 0;
  __syncthreads();
  return true;
}

// Values beyond a half's range become its largest.
__device__ __half2 halves(float x, float y) {
  constexpr float kMost = 65504.0f;
  return __floats2half2_rn(fminf(fmaxf(x, -kMost), kMost), fminf(fmaxf(y, -kMost), kMost));
}
template <int Count>
__device__ void store_halves(const float* values, __half* to) {
  auto* pairs = reinterpret_cast<__half2*>(to);
#pragma unroll
  for (int i = 0; i < Count / 2; ++i) pairs[i] = halves(values[2 * i], values[2 * i + 1]);
}

template <int T, int N>
__device__ void fill_eights(TileShared<N>& s, const MatrixArg* const (&w)[N], std::uint32_t first_row,
                            std::uint32_t outputs, std::uint32_t column) {
  for (std::uint32_t t = threadIdx.x; t < N * kTile * 8; t += 256) {
    const std::uint32_t m = t / (kTile * 8), o = t / 8 % kTile, k = t % 8;
    float values[8] = {};
    if (o < outputs && column + 8 * k < w[m]->cols)
      load8<T>(w[m]->data + static_cast<std::uint64_t>(first_row + o) * w[m]->row_bytes, column / 8 + k,
               values);
    store_halves<8>(values, &s.weights[m][o][8 * k]);
  }
}
template <int N>
__device__ void fill_blocks(TileShared<N>& s, const MatrixArg* const (&w)[N], std::uint32_t first_row,
                            std::uint32_t outputs, std::uint32_t column) {
  for (std::uint32_t t = threadIdx.x; t < N * kTile * 2; t += 256) {
    const std::uint32_t m = t / (kTile * 2), o = t / 2 % kTile, k = t % 2;
    float values[32] = {};
    if (o < outputs && column + 32 * k < w[m]->cols) load32(*w[m], first_row + o, column / 32 + k, values);
    store_halves<32>(values, &s.weights[m][o][32 * k]);
  }
}
template <int N>
__device__ void fill_weights(TileShared<N>& s, const MatrixArg* const (&w)[N], std::uint32_t first_row,
                             std::uint32_t outputs, std::uint32_t column) {
  bool same = true;
  for (int m = 1; m < N; ++m) same = same && w[m]->type == w[0]->type;
  switch (same ? w[0]->type : -1) {
    case 2:
      return fill_eights<2>(s, w, first_row, outputs, column);
    case 8:
      return fill_eights<8>(s, w, first_row, outputs, column);
    case 12:
      return fill_eights<12>(s, w, first_row, outputs, column);
    case 13:
      return fill_eights<13>(s, w, first_row, outputs, column);
    case 14:
      return fill_eights<14>(s, w, first_row, outputs, column);
    case 39:
      return fill_eights<39>(s, w, first_row, outputs, column);
    default:
      return fill_blocks(s, w, first_row, outputs, column);
  }
}

__device__ std::uint32_t pair_at(const __half* p) { return *reinterpret_cast<const std::uint32_t*>(p); }

// A warp has 16 entries and 32 outputs, in four products of 8: sums[m][n] as mma_f16 has them.
template <int N>
__device__ void multiply_tile(const TileShared<N>& s, float (&sums)[N][4][4]) {
  const std::uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  const std::uint32_t row = warp / 2 * 16 + g, output = warp % 2 * 32 + g;
#pragma unroll
  for (std::uint32_t c = 2 * t; c < kColumns; c += 16) {
    const std::uint32_t x[4] = {pair_at(&s.inputs[row][c]), pair_at(&s.inputs[row + 8][c]),
                                pair_at(&s.inputs[row][c + 8]), pair_at(&s.inputs[row + 8][c + 8])};
#pragma unroll
    for (int m = 0; m < N; ++m)
#pragma unroll
      for (int n = 0; n < 4; ++n)
        hopper::mma_f16(sums[m][n], x, pair_at(&s.weights[m][output + 8 * n][c]),
                        pair_at(&s.weights[m][output + 8 * n][c + 8]));
  }
}

// x: a row for every `entries_a_row` entries.
template <int N>
__device__ void tile_products(TileShared<N>& s, const MatrixArg* const (&w)[N], std::uint32_t first_row,
                              std::uint32_t outputs, const float* x, std::uint32_t entries_a_row,
                              std::uint32_t count, float (&sums)[N][4][4]) {
  const std::uint32_t cols = w[0]->cols;
  for (std::uint32_t column = 0; column < cols; column += kColumns) {
    __syncthreads();
    for (std::uint32_t i = threadIdx.x; i < kTile * kColumns / 2; i += 256) {
      const std::uint32_t r = i / (kColumns / 2), c = column + 2 * (i % (kColumns / 2));
      float2 value{};  // columns are even: a multiple of 16
      if (r < count && c < cols)
        value = *reinterpret_cast<const float2*>(
            x + static_cast<std::uint64_t>(s.entries[r] / entries_a_row) * cols + c);
      *reinterpret_cast<__half2*>(&s.inputs[r][c - column]) = halves(value.x, value.y);
    }
    fill_weights(s, w, first_row, outputs, column);
    __syncthreads();
    if (threadIdx.x / 64 * 16 < count) multiply_tile(s, sums);
  }
}

// Calls of (entry in the tile, output, its sums) that a thread has.
template <int N, typename F>
__device__ void each_sum(const float (&sums)[N][4][4], const F& f) {
  const std::uint32_t warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (std::uint32_t n = 0; n < 4; ++n)
    for (std::uint32_t i = 0; i < 4; ++i) {
      float values[N];
      for (int m = 0; m < N; ++m) values[m] = sums[m][n][i];
      f(warp / 2 * 16 + g + i / 2 * 8, warp % 2 * 32 + 8 * n + 2 * t + i % 2, values);
    }
}

}  // namespace

// grid: (⌈feed-forward / 64⌉, at least as many as there are tiles), 256 threads; dynamic shared memory
// kExpertsTileBytes.
extern "C" __global__ void __launch_bounds__(256) general_experts_gate_up_tile(ExpertsArg a) {
  auto& s = *reinterpret_cast<TileShared<2>*>(hopper::dynamic_shared());
  static_assert(sizeof(TileShared<2>) <= kExpertsTileBytes);
  std::uint32_t expert, count;
  if (!find_tile(s, a, blockIdx.y, expert, count)) return;
  const std::uint32_t first = blockIdx.x * kTile, at = expert * a.n_ff + first;
  const MatrixArg* const w[2] = {&a.gate, &a.up};
  float sums[2][4][4] = {};
  tile_products<2>(s, w, at, a.n_ff - first, a.x, a.n_used, count, sums);
  each_sum<2>(sums, [&](std::uint32_t r, std::uint32_t o, const float(&values)[2]) {
    if (r >= count || first + o >= a.n_ff) return;
    const float gate = values[0] + (a.gate_bias ? a.gate_bias[at + o] : 0.0f);
    const float up = values[1] + (a.up_bias ? a.up_bias[at + o] : 0.0f);
    a.inner[static_cast<std::uint64_t>(s.entries[r]) * a.n_ff + first + o] =
        activated(a.activation, gate, up);
  });
}

// branch[entry] = W_down · inner[entry] + bias. grid: (⌈width / 64⌉, as above).
extern "C" __global__ void __launch_bounds__(256) general_experts_down_tile(ExpertsArg a) {
  auto& s = *reinterpret_cast<TileShared<1>*>(hopper::dynamic_shared());
  std::uint32_t expert, count;
  if (!find_tile(s, a, blockIdx.y, expert, count)) return;
  const std::uint32_t first = blockIdx.x * kTile, at = expert * a.width + first;
  const MatrixArg* const w[1] = {&a.down};
  float sums[1][4][4] = {};
  tile_products<1>(s, w, at, a.width - first, a.inner, 1, count, sums);
  each_sum<1>(sums, [&](std::uint32_t r, std::uint32_t o, const float(&values)[1]) {
    if (r >= count || first + o >= a.width) return;
    a.branch[static_cast<std::uint64_t>(s.entries[r]) * a.width + first + o] =
        values[0] + (a.down_bias ? a.down_bias[at + o] : 0.0f);
  });
}

// out = residual + the weighted sum of a row's branches. grid: (⌈width / 256⌉, rows).
extern "C" __global__ void __launch_bounds__(256) general_experts_add(ExpertsArg a, RowsArg rows) {
  const std::uint32_t row = blockIdx.y, o = blockIdx.x * 256 + threadIdx.x;
  if (row >= rows.header->n_rows || o >= a.width) return;
  float sum = a.residual[static_cast<std::uint64_t>(row) * a.width + o];
  for (std::uint32_t i = 0; i < a.n_used; ++i) {
    const std::uint32_t entry = row * a.n_used + i;
    sum = fmaf(a.weights[entry], a.branch[static_cast<std::uint64_t>(entry) * a.width + o], sum);
  }
  a.out[static_cast<std::uint64_t>(row) * a.width + o] = sum;
}
