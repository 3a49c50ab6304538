// Matrix times 1 to 8 rows, bound by the weights' bytes: norm, product, bias, residual or activation in one
// kernel (fast_units.cuh says how). Weights are static: their copies start before the wait for the
// predecessor.
#include <type_traits>

#include "device/cuda/fast_units.cuh"

namespace strata::cuda::fast {
namespace {

// Copies units ahead until the ring is full.
template <class Walk>
__device__ __forceinline__ void fill(const LinearArg& a, bool paired, Walk& walk, Ring& ring,
                                     std::uint32_t eaten_virt, std::uint32_t eaten_count, int warp, int lane,
                                     std::uint64_t policy) {
  while (true) {
    while (walk.left == 0) {
      if (walk.done()) return;
      walk.close();
      if (walk.done()) return;
      walk.open(warp);
    }
    std::uint32_t g;
    const Segment& s = walk.locate(a, paired, walk.group, g);
    const std::uint32_t bytes = unit_size(s, unit_chunks(a, walk.unit));
    const std::uint32_t pad = ring.offset + bytes > ring.size ? ring.size - ring.offset : 0;
    if (ring.count - eaten_count >= kSlots || ring.virt + pad + bytes - eaten_virt > ring.size) return;
    const std::uint32_t slot = ring.count % kSlots;
    const std::uint32_t at = ring.place(bytes);
    if (lane == 0) {
      barrier_expect(ring.barriers + slot, bytes);
      bulk_copy(ring.base + at,
                s.w + g * s.group_bytes + static_cast<std::uint64_t>(walk.unit) * s.unit_bytes, bytes,
                ring.barriers + slot, policy);
    }
    walk.step();
  }
}

// Units [first_unit, first_unit + count) of one row, scaled.
template <int N>
__device__ inline void load_row(const LinearArg& a, const float* x, float scale, std::uint32_t first_unit,
                                std::uint32_t count, __half* out, float* sums, int row) {
  for (std::uint32_t i = threadIdx.x; i < count * 32; i += kThreads) {
    const std::uint32_t col = first_unit * kUnitCols + i * 8;
    float v[8] = {};
    if (col < a.cols) {
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const float4 f = __ldcg(reinterpret_cast<const float4*>(x + col) + k);
        v[4 * k] = f.x, v[4 * k + 1] = f.y, v[4 * k + 2] = f.z, v[4 * k + 3] = f.w;
        if (a.norm) {
          const float4 w = __ldg(reinterpret_cast<const float4*>(a.norm + col) + k);
          v[4 * k] *= scale * w.x, v[4 * k + 1] *= scale * w.y, v[4 * k + 2] *= scale * w.z,
              v[4 * k + 3] *= scale * w.w;
        }
      }
    }
    store_eight<N>(v, col < a.cols, i, out, sums, row);
  }
}

// N = 1: exactly one row; N = 8: up to 8.
template <int N>
__device__ __forceinline__ void linear(const LinearArg& a) {
  constexpr int kPhaseGroups = N == 1 ? 32 : 16;
  constexpr int kResults = kPhaseGroups * 16 * N / kThreads;  // results a thread
  extern __shared__ __align__(128) std::uint8_t memory[];
  const bool paired = a.epilogue == Epilogue::gate_up;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const std::uint32_t stride = a.unit_span * kUnitCols + 32;
  __half* x = reinterpret_cast<__half*>(memory + kLinearWarps * a.ring_bytes);
  float* sums = reinterpret_cast<float*>(x + stride * (N == 1 ? 1 : a.max_rows));
  float* partial = sums + a.unit_span * 16 * N;  // [kPhaseGroups + warps][16 rows][N]
  float* scratch = partial + (kPhaseGroups + kLinearWarps) * 16 * N;
  std::uint64_t* barriers = reinterpret_cast<std::uint64_t*>(scratch + kLinearWarps);

  if (lane < kSlots) barrier_init(barriers + warp * kSlots + lane);
  fence_async_shared();
  __syncwarp();
  const std::uint64_t policy = evict_first();
  Ring in{memory + warp * a.ring_bytes, barriers + warp * kSlots, a.ring_bytes}, out = in;
  Share<kPhaseGroups> ahead(a, paired, a.unit_span, a.groups * blockIdx.x / gridDim.x,
                            a.groups * (blockIdx.x + 1) / gridDim.x),
      walk = ahead;
  if (!ahead.done()) ahead.open(warp);
  fill(a, paired, ahead, in, 0, 0, warp, lane, policy);

  float weights[2][8];  // of the norm, for the columns this thread converts
  if (N == 1 && a.norm) {
#pragma unroll
    for (int q = 0; q < 2; q++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const std::uint32_t col = (threadIdx.x + q * kThreads) * 8 + 4 * k;
        const float4 f = col < a.cols ? __ldg(reinterpret_cast<const float4*>(a.norm + col)) : float4{};
        weights[q][4 * k] = f.x, weights[q][4 * k + 1] = f.y, weights[q][4 * k + 2] = f.z,
                       weights[q][4 * k + 3] = f.w;
      }
  }
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
  asm volatile("griddepcontrol.wait;" ::: "memory");
  const std::uint32_t rows = min(a.outputs ? a.header->n_outputs : a.header->n_rows, a.max_rows);
  const int column = min(static_cast<std::uint32_t>(g), max(rows, 1u) - 1);

  float results[kResults] = {}, others[kResults] = {};  // others: of the up matrix
  std::uint32_t loaded = ~0u;
  float scale[N];
  // One row of up to 8192 columns stays in registers between its norm and its conversion.
  const bool kept = N == 1 && a.norm && a.cols <= kThreads * 16;
  if (kept && rows > 0) {
    float v[2][8], squares = 0;
#pragma unroll
    for (int q = 0; q < 2; q++) {
      const std::uint32_t col = (threadIdx.x + q * kThreads) * 8;
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const float4 f = col < a.cols ? __ldcg(reinterpret_cast<const float4*>(a.x + col) + k) : float4{};
        v[q][4 * k] = f.x, v[q][4 * k + 1] = f.y, v[q][4 * k + 2] = f.z, v[q][4 * k + 3] = f.w;
        squares += f.x * f.x + f.y * f.y + f.z * f.z + f.w * f.w;
      }
    }
    scale[0] = rsqrtf(block_sum(squares, scratch) / a.cols + a.eps);
#pragma unroll
    for (int q = 0; q < 2; q++) {
      const std::uint32_t i = threadIdx.x + q * kThreads, col = i * 8;
      if (i >= walk.units * 32) continue;  // whole warps
#pragma unroll
      for (int k = 0; k < 8; k++) v[q][k] *= scale[0] * weights[q][k];
      store_eight<N>(v[q], col < a.cols, i, x, sums, 0);
    }
    loaded = 0;
  } else if (a.norm) {
    float squares[N] = {};
#pragma unroll
    for (int r = 0; r < N; r++)
      if (r < rows)
        for (std::uint32_t i = threadIdx.x; i < a.cols / 4; i += kThreads) {
          const float4 v =
              __ldcg(reinterpret_cast<const float4*>(a.x + static_cast<std::uint64_t>(r) * a.cols) + i);
          squares[r] += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
        }
#pragma unroll
    for (int r = 0; r < N; r++)
      scale[r] = r < rows ? rsqrtf(block_sum(squares[r], scratch) / a.cols + a.eps) : 0.f;
  }
  for (; !walk.done(); walk.close()) {
    walk.open(warp);
    const std::uint32_t first_unit = walk.first_unit, phase_groups = walk.groups_now(),
                        phase_units = walk.units_now();
    if (loaded != first_unit) {
#pragma unroll
      for (int r = 0; r < N; r++)
        if (r < rows)
          load_row<N>(a, a.x + static_cast<std::uint64_t>(r) * a.cols, a.norm ? scale[r] : 1.f, first_unit,
                      phase_units, x + r * stride, sums, r);
      loaded = first_unit;
    }
    sync_warps();
    float acc[N == 1 ? 2 : 4] = {};
    const auto flush = [&](std::uint32_t group) {
      float* p = partial + (group + warp) * 16 * N;
      if constexpr (N == 1) {
#pragma unroll
        for (int r = 0; r < 2; r++) {
          acc[r] += __shfl_xor_sync(~0u, acc[r], 1);
          acc[r] += __shfl_xor_sync(~0u, acc[r], 2);
          if (t == 0) p[g + 8 * r] = acc[r];
        }
      } else {
        *reinterpret_cast<float2*>(p + g * 8 + 2 * t) = make_float2(acc[0], acc[1]);
        *reinterpret_cast<float2*>(p + (g + 8) * 8 + 2 * t) = make_float2(acc[2], acc[3]);
      }
      for (float& v : acc) v = 0;
    };
    while (walk.left != 0) {  // the units of one group under one choice of type
      std::uint32_t unused;
      const Segment& s = walk.locate(a, paired, walk.group, unused);
      const std::uint32_t group = walk.group;
      bool ended = false;
      const auto units_of = [&](auto type) {
        constexpr int T = decltype(type)::value;
        do {
          const int chunks = unit_chunks(a, walk.unit);
          const std::uint32_t slot = out.count % kSlots, parity = out.count / kSlots & 1;
          const std::uint8_t* unit =
              out.base + out.place(chunks == 4 ? unit_bytes(T) : chunks * chunk_bytes(T));
          const std::uint32_t u = walk.unit - first_unit;
          barrier_wait(out.barriers + slot, parity);
          if constexpr (N == 1)
            unit_one<T, false>(unit, x + u * kUnitCols, sums + u * 16, lane, chunks, acc);
          else
            unit_many<T>(unit, x + u * kUnitCols, stride, sums + u * 16 * N, lane, column, chunks, acc);
          __syncwarp();
          ended = walk.step();
          fill(a, paired, ahead, in, out.virt, out.count, warp, lane, policy);
        } while (!ended && walk.left != 0);
      };
      switch (s.type) {
#define STRATA_CASE(T)                          \
  case T:                                       \
    units_of(std::integral_constant<int, T>{}); \
    break;
        STRATA_FAST_TYPES(STRATA_CASE)
#undef STRATA_CASE
      }
      flush(group);
    }
    sync_warps();

    // Add the warps' partial sums; the last unit phase writes.
    const std::uint32_t n = phase_groups * phase_units;
    const auto gather = [&](std::uint32_t group, std::uint32_t row, std::uint32_t column) {
      float sum = 0;
#pragma unroll
      for (int w = 0; w < kLinearWarps; w++) {
        const std::uint32_t from = walk.run(n, w), to = walk.run(n, w + 1);
        if (to > from && to > group * phase_units && from < (group + 1) * phase_units)
          sum += partial[((group + w) * 16 + row) * N + column];
      }
      return sum;
    };
    const bool last = walk.unit_phase + 1 == walk.unit_phases;
#pragma unroll
    for (int q = 0; q < kResults; q++) {
      const std::uint32_t e = threadIdx.x + q * kThreads, row = e % 16, group = e / 16 % kPhaseGroups;
      const std::uint32_t n_row = e / (16 * kPhaseGroups);
      if (group >= phase_groups || n_row >= rows || (paired && (group & 1))) continue;
      results[q] += gather(group, row, n_row);
      if (paired) others[q] += gather(group + 1, row, n_row);
      if (!last) continue;
      std::uint32_t in_segment;
      const Segment& s = walk.locate(a, paired, group, in_segment);
      const std::uint32_t o = in_segment * 16 + row;
      float y = results[q];
      if (o < s.rows) {
        const std::uint64_t at = static_cast<std::uint64_t>(n_row) * s.rows + o;
        if (s.bias) y += s.bias[o];
        if (paired) y = activate(y, a.gelu) * others[q];
        if (a.epilogue == Epilogue::residual) y += __ldcg(a.residual + at);
        if (a.softcap > 0) y = a.softcap * tanhf(y / a.softcap);
        s.out[at] = y;
      }
      results[q] = others[q] = 0;
    }
  }
}

}  // namespace
}  // namespace strata::cuda::fast

extern "C" __global__ void __launch_bounds__(strata::cuda::fast::kThreads, 1)
    fast_linear_1(const __grid_constant__ strata::cuda::fast::LinearArg a) {
  strata::cuda::fast::linear<1>(a);
}
extern "C" __global__ void __launch_bounds__(strata::cuda::fast::kThreads, 1)
    fast_linear_8(const __grid_constant__ strata::cuda::fast::LinearArg a) {
  strata::cuda::fast::linear<8>(a);
}
