// Mixtures of experts by general kernels (ExpertsOp in program/program.h): any type, float throughout. An
// "entry" is a row's use of an expert, entry = row * n_used + i for its i-th best.
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

// Row `row` of w times x, by a warp; the order of additions depends on the columns alone.
__device__ float dot(const MatrixArg& w, std::uint32_t row, const float* x, std::uint32_t lane) {
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

template <int N>
struct TileShared {
  float weights[N][32][kTile + 4], inputs[32][kTile + 4];
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

// sums[m][i][j] of the tile's entry 4 ty + i and output 4 tx + j. x: a row for every `entries_a_row` entries.
template <int N>
__device__ void tile_products(TileShared<N>& s, const MatrixArg* const (&w)[N], std::uint32_t first_row,
                              std::uint32_t outputs, const float* x, std::uint32_t entries_a_row,
                              std::uint32_t count, float (&sums)[N][4][4]) {
  const std::uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16, cols = w[0]->cols;
  for (std::uint32_t block = 0; block * 32 < cols; ++block) {
    __syncthreads();
    if (threadIdx.x < N * kTile) {
      const std::uint32_t m = threadIdx.x / kTile, o = threadIdx.x % kTile;
      float values[32] = {};
      if (o < outputs) load32(*w[m], first_row + o, block, values);
#pragma unroll
      for (int i = 0; i < 32; ++i) s.weights[m][i][o] = values[i];
    } else {
      for (std::uint32_t i = threadIdx.x - N * kTile; i < kTile * 32; i += 256 - N * kTile) {
        const std::uint32_t r = i / 32, c = block * 32 + i % 32;
        const std::uint64_t row = s.entries[r] / entries_a_row;
        s.inputs[i % 32][r] = r < count && c < cols ? x[row * cols + c] : 0.0f;
      }
    }
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < 32; ++c) {
      const float4 in = *reinterpret_cast<const float4*>(&s.inputs[c][4 * ty]);
      const float as[4] = {in.x, in.y, in.z, in.w};
#pragma unroll
      for (int m = 0; m < N; ++m) {
        const float4 b = *reinterpret_cast<const float4*>(&s.weights[m][c][4 * tx]);
        const float bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
        for (int i = 0; i < 4; ++i)
#pragma unroll
          for (int j = 0; j < 4; ++j) sums[m][i][j] = fmaf(as[i], bs[j], sums[m][i][j]);
      }
    }
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
  for (std::uint32_t i = 0; i < 4; ++i)
    for (std::uint32_t j = 0; j < 4; ++j) {
      const std::uint32_t r = threadIdx.x / 16 * 4 + i, o = threadIdx.x % 16 * 4 + j;
      if (r >= count || first + o >= a.n_ff) continue;
      const float gate = sums[0][i][j] + (a.gate_bias ? a.gate_bias[at + o] : 0.0f);
      const float up = sums[1][i][j] + (a.up_bias ? a.up_bias[at + o] : 0.0f);
      a.inner[static_cast<std::uint64_t>(s.entries[r]) * a.n_ff + first + o] =
          activated(a.activation, gate, up);
    }
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
  for (std::uint32_t i = 0; i < 4; ++i)
    for (std::uint32_t j = 0; j < 4; ++j) {
      const std::uint32_t r = threadIdx.x / 16 * 4 + i, o = threadIdx.x % 16 * 4 + j;
      if (r >= count || first + o >= a.width) continue;
      a.branch[static_cast<std::uint64_t>(s.entries[r]) * a.width + first + o] =
          sums[0][i][j] + (a.down_bias ? a.down_bias[at + o] : 0.0f);
    }
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
