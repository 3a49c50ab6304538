// Matrix times 1 to 8 rows, bound by the weights' bytes: product, bias, residual or activation in one kernel
// (hopper/gemv/units.cuh says how). Weights are static: their copies start before the wait for the
// predecessor. One row is normed and made halves by every block for itself; several stand ready as halves,
// from gemv_input or from the op before (LinearArg::y16, attention_combine_*), and come by bulk
// copies.
#include <type_traits>

#include "device/cuda/hopper/gemv/units.cuh"

namespace steelyard::cuda::hopper {
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

// Eight columns of a row from `col` on; normed, if the input is.
__device__ __forceinline__ void load_eight(const LinearArg& a, const float* x, std::uint32_t col, float scale,
                                           float (&v)[8]) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const float4 f = __ldcg(reinterpret_cast<const float4*>(x + col) + k);
    v[4 * k] = f.x, v[4 * k + 1] = f.y, v[4 * k + 2] = f.z, v[4 * k + 3] = f.w;
    if (!a.norm) continue;
    const float4 w = __ldg(reinterpret_cast<const float4*>(a.norm + col) + k);
    v[4 * k] *= scale * w.x, v[4 * k + 1] *= scale * w.y, v[4 * k + 2] *= scale * w.z,
        v[4 * k + 3] *= scale * w.w;
  }
}

// 1 / rms of a row, by the block.
__device__ inline float row_scale(const LinearArg& a, const float* x, float* scratch) {
  float squares = 0;
  for (std::uint32_t i = threadIdx.x; i < a.cols / 4; i += kThreads) {
    const float4 v = __ldcg(reinterpret_cast<const float4*>(x) + i);
    squares += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
  }
  return rsqrtf(block_sum(squares, scratch) / a.cols + a.eps);
}

// Units [first_unit, first_unit + count) of one row, scaled.
__device__ inline void load_row(const LinearArg& a, float scale, std::uint32_t first_unit,
                                std::uint32_t count, __half* out, float* sums) {
  for (std::uint32_t i = threadIdx.x; i < count * 32; i += kThreads) {
    const std::uint32_t col = first_unit * kUnitCols + i * 8;
    float v[8] = {};
    if (col < a.cols) load_eight(a, a.x, col, scale, v);
    store_eight<1>(v, col < a.cols, i, out, sums);
  }
}

// Units of all rows, by the first warp's lanes; they are there in the next phase of `barrier`.
__device__ inline void bring_rows(const LinearArg& a, std::uint32_t first_unit, std::uint32_t count,
                                  const GemvInput& to, std::uint64_t* barrier) {
  const std::uint32_t lane = threadIdx.x, halves = kUnitCols * a.max_rows;
  const std::uint64_t policy = evict_last();  // every block reads it
  const GemvInput from(a.x16, units_of(a.cols), a.max_rows);
  if (lane == 0) barrier_expect(barrier, kGemvInputBytes(count, a.max_rows));
  __syncwarp();
  for (std::uint32_t u = lane; u < count; u += 32)
    bulk_copy(to.halves + u * halves, from.halves + static_cast<std::uint64_t>(first_unit + u) * halves,
              halves * 2, barrier, policy);
  if (lane == 31)
    bulk_copy(to.sums, from.sums + first_unit * kUnitSums, count * kUnitSums * 4, barrier, policy);
}

// The warps that have a part of a group of this phase, where warp w has units [n w / warps, n (w + 1) /
// warps).
struct Writers {
  std::uint32_t n, begin, end;
  template <class Walk>
  __device__ Writers(const Walk& walk, std::uint32_t group) {
    const std::uint32_t units = walk.units_now(), first = group * units;
    n = walk.groups_now() * units;
    begin = ((first + 1) * kGemvWarps + n - 1) / n - 1;
    end = ((first + units) * kGemvWarps + n - 1) / n;
  }
  // partial: warp 0's; the next warp's are a group further.
  template <int N>
  __device__ float sum(const float* partial) const {
    float sum = 0;
    for (std::uint32_t w = begin; w < end; w++)
      if (n >= kGemvWarps || n * (w + 1) / kGemvWarps > n * w / kGemvWarps) sum += partial[w * 16 * N];
    return sum;
  }
};

// The norm's weights for the columns that this thread converts.
__device__ __forceinline__ void load_norm(const LinearArg& a, float (&weights)[2][8]) {
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

// One row of up to 8192 columns stays in registers between its norm and its conversion.
__device__ __forceinline__ float norm_in_registers(const LinearArg& a, const float (&weights)[2][8],
                                                   std::uint32_t units, __half* x, float* sums,
                                                   float* scratch) {
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
  const float scale = rsqrtf(block_sum(squares, scratch) / a.cols + a.eps);
#pragma unroll
  for (int q = 0; q < 2; q++) {
    const std::uint32_t i = threadIdx.x + q * kThreads, col = i * 8;
    if (i >= units * 32) continue;  // whole warps
#pragma unroll
    for (int k = 0; k < 8; k++) v[q][k] *= scale * weights[q][k];
    store_eight<1>(v[q], col < a.cols, i, x, sums);
  }
  return scale;
}

// Leaves a warp's sums of a group at p, and clears them.
template <int N, int M>
__device__ __forceinline__ void flush(float* p, int g, int t, float (&acc)[M]) {
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
}

// Row `o` of segment s for row n_row of the step: y of the product, `up` of the up matrix.
template <int N>
__device__ __forceinline__ void write(const LinearArg& a, bool paired, const Segment& s, std::uint32_t o,
                                      std::uint32_t n_row, bool real, float y, float up) {
  if (real) {
    const std::uint64_t at = static_cast<std::uint64_t>(n_row) * s.rows + o;
    if (s.bias) y += s.bias[o];
    if (paired) y = activate(y, a.gelu) * up;
    if (a.epilogue == Epilogue::residual) y += __ldcg(a.residual + at);
    if (a.softcap > 0) y = a.softcap * tanhf(y / a.softcap);
    s.out[at] = y;
  }
  if (N > 1 && a.y16)
    store_one(GemvInput(a.y16, units_of(s.rows), a.max_rows), real ? y : 0.f, real, o, n_row);
}

// The units of one group that the warp has next, of type T: to acc.
template <int N, int T, class Walk, class Fill, int M>
__device__ __forceinline__ void multiply(const LinearArg& a, const GemvInput& input, std::uint32_t first_unit,
                                         int column, int lane, Walk& walk, Ring& out, const Fill& fill_more,
                                         float (&acc)[M]) {
  bool ended = false;
  do {
    const int chunks = unit_chunks(a, walk.unit);
    const std::uint32_t slot = out.count % kSlots, parity = out.count / kSlots & 1;
    const std::uint8_t* unit = out.base + out.place(chunks == 4 ? unit_bytes(T) : chunks * chunk_bytes(T));
    const std::uint32_t u = walk.unit - first_unit;
    barrier_wait(out.barriers + slot, parity);
    if constexpr (N == 1)
      unit_one<T, false>(unit, input.halves + u * kUnitCols, input.sums + u * 16, lane, chunks, acc);
    else
      unit_rows<T>(unit, input, u, lane, column, chunks, acc);
    __syncwarp();
    ended = walk.step();
    fill_more(out.virt, out.count);
  } while (!ended && walk.left != 0);
}

// The warp's run of units in this phase, to partial sums.
template <int N, class Walk, class Fill>
__device__ __forceinline__ void multiply_run(const LinearArg& a, bool paired, const GemvInput& input,
                                             std::uint32_t first_unit, int column, int warp, int lane,
                                             Walk& walk, Ring& out, float* partial, const Fill& fill_more) {
  const int g = lane / 4, t = lane % 4;
  float acc[N == 1 ? 2 : 4] = {};
  while (walk.left != 0) {  // the units of one group under one choice of type
    std::uint32_t unused;
    const Segment& s = walk.locate(a, paired, walk.group, unused);
    const std::uint32_t group = walk.group;
    switch (s.type) {
#define STEELYARD_CASE(T)                                                          \
  case T:                                                                          \
    multiply<N, T>(a, input, first_unit, column, lane, walk, out, fill_more, acc); \
    break;
      STEELYARD_REPACKED_TYPES(STEELYARD_CASE)
#undef STEELYARD_CASE
    }
    flush<N>(partial + (group + warp) * 16 * N, g, t, acc);
  }
}

// The results of a phase, of threads that each have kResults of one group, or of one of gate and the same of
// up: adds the warps' partial sums; the last phase of columns writes.
template <int N, class Walk, int kResults>
__device__ __forceinline__ void add_up(const LinearArg& a, bool paired, const Walk& walk,
                                       std::uint32_t phase_groups, std::uint32_t rows, const float* partial,
                                       float (&results)[kResults], float (&others)[kResults]) {
  constexpr int kPhaseGroups = kResults * kThreads / (16 * N);
  const std::uint32_t width = 16 * kPhaseGroups / (paired ? 2 : 1), row = threadIdx.x % 16,
                      group = threadIdx.x % width / 16 * (paired ? 2 : 1);
  const bool has_group = group < phase_groups;
  const Writers first(walk, group), second(walk, group + 1);
  std::uint32_t in_segment = 0;
  const Segment& s = has_group ? walk.locate(a, paired, group, in_segment) : a.segments[0];
  const std::uint32_t o = in_segment * 16 + row;
  const bool real = has_group && o < s.rows;
#pragma unroll
  for (int q = 0; q < kResults; q++) {
    const std::uint32_t n_row = threadIdx.x / width + q * (kThreads / width);
    if (n_row >= rows) break;
    if (has_group) results[q] += first.sum<N>(partial + (group * 16 + row) * N + n_row);
    if (has_group && paired) others[q] += second.sum<N>(partial + ((group + 1) * 16 + row) * N + n_row);
    if (walk.unit_phase + 1 != walk.unit_phases) continue;
    write<N>(a, paired, s, o, n_row, real, results[q], others[q]);
    results[q] = others[q] = 0;
  }
}

// A block's shared memory (kGemvSharedBytes).
template <int N, int kPhaseGroups>
struct Memory {
  std::uint8_t* rings;
  GemvInput input;
  float *partial, *scratch;           // partial: [kPhaseGroups + warps][16 rows][N]
  std::uint64_t *barriers, *arrived;  // arrived: the input
  __device__ __forceinline__ Memory(const LinearArg& a, std::uint8_t* memory)
      : rings(memory), input(memory + kGemvWarps * a.ring_bytes, a.unit_span, a.max_rows) {
    partial = input.sums + a.unit_span * 16 * N;
    scratch = partial + (kPhaseGroups + kGemvWarps) * 16 * N;
    barriers = reinterpret_cast<std::uint64_t*>(scratch + kGemvWarps);
    arrived = barriers + kGemvWarps * kSlots;
  }
  __device__ __forceinline__ void init_barriers(int warp, int lane) const {
    if (lane < kSlots) barrier_init(barriers + warp * kSlots + lane);
    if (N > 1 && threadIdx.x == 0) barrier_init(arrived);
    fence_async_shared();
    __syncwarp();
  }
};

// The factor of the one row's norm, if it is normed. Up to 8192 columns stay in registers between norm and
// conversion, which leaves the units `loaded` from the first on.
template <class M>
__device__ __forceinline__ void norm_row(const LinearArg& a, const M& m, const float (&weights)[2][8],
                                         std::uint32_t units, std::uint32_t rows, float& scale,
                                         std::uint32_t& loaded) {
  const bool kept = a.norm && a.cols <= kThreads * 16;
  if (kept && rows > 0) {
    scale = norm_in_registers(a, weights, units, m.input.halves, m.input.sums, m.scratch);
    loaded = 0;
  } else if (a.norm) {
    scale = row_scale(a, a.x, m.scratch);
  }
}

// The input's units of a phase, to shared memory, if they aren't there; `brought`: copies before.
template <int N, class M>
__device__ __forceinline__ void bring(const LinearArg& a, const M& m, float scale, std::uint32_t first_unit,
                                      std::uint32_t units, bool load, int warp, std::uint32_t& brought) {
  if (N == 1 && load) load_row(a, scale, first_unit, units, m.input.halves, m.input.sums);
  if (N > 1 && load && warp == 0) bring_rows(a, first_unit, units, m.input, m.arrived);
  sync_warps();
  if (N > 1 && load) barrier_wait(m.arrived, brought++ & 1);
}

// N = 1: exactly one row; N = 8: up to 8.
template <int N>
__device__ __forceinline__ void gemv(const LinearArg& a) {
  constexpr int kPhaseGroups = N == 1 ? 32 : 16;
  constexpr int kResults = kPhaseGroups * 16 * N / kThreads;  // results a thread
  const bool paired = a.epilogue == Epilogue::gate_up;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Memory<N, kPhaseGroups> m(a, dynamic_shared());
  m.init_barriers(warp, lane);
  const std::uint64_t policy = evict_first();
  Ring in{m.rings + warp * a.ring_bytes, m.barriers + warp * kSlots, a.ring_bytes}, out = in;
  Share<kPhaseGroups> ahead(a, paired, a.unit_span, a.groups * blockIdx.x / gridDim.x,
                            a.groups * (blockIdx.x + 1) / gridDim.x),
      walk = ahead;
  if (!ahead.done()) ahead.open(warp);
  const auto fill_more = [&](std::uint32_t eaten_virt, std::uint32_t eaten_count) {
    fill(a, paired, ahead, in, eaten_virt, eaten_count, warp, lane, policy);
  };
  fill_more(0, 0);

  float weights[2][8];  // of the norm, for the columns this thread converts
  if (N == 1 && a.norm) load_norm(a, weights);
  wait_for_predecessor();
  const std::uint32_t rows = min(a.outputs ? a.header->n_outputs : a.header->n_rows, a.max_rows);
  const int column = min(static_cast<std::uint32_t>(lane / 4), max(rows, 1u) - 1);

  float results[kResults] = {}, others[kResults] = {};  // others: of the up matrix
  std::uint32_t loaded = ~0u, brought = 0;
  float scale = 1;
  if constexpr (N == 1) norm_row(a, m, weights, walk.units, rows, scale, loaded);
  for (; !walk.done(); walk.close()) {
    walk.open(warp);
    const std::uint32_t first_unit = walk.first_unit, groups = walk.groups_now(), units = walk.units_now();
    bring<N>(a, m, scale, first_unit, units, loaded != first_unit, warp, brought);
    loaded = first_unit;
    multiply_run<N>(a, paired, m.input, first_unit, column, warp, lane, walk, out, m.partial, fill_more);
    sync_warps();
    add_up<N>(a, paired, walk, groups, rows, m.partial, results, others);
  }
}

// A share of the units of one row, to a.x16.
__device__ inline void spread(const LinearArg& a) {
  float* scratch = reinterpret_cast<float*>(static_shared<kGemvWarps * 4>());
  wait_for_predecessor();
  const std::uint32_t row = blockIdx.x, units = units_of(a.cols);
  if (row >= (a.outputs ? a.header->n_outputs : a.header->n_rows)) return;
  const float* x = a.x + static_cast<std::uint64_t>(row) * a.cols;
  const float scale = a.norm ? row_scale(a, x, scratch) : 1.f;
  const GemvInput to(a.x16, units, a.max_rows);
  const std::uint32_t end = units * (blockIdx.y + 1) / gridDim.y * 32;
  for (std::uint32_t i = units * blockIdx.y / gridDim.y * 32 + threadIdx.x; i < end; i += kThreads) {
    float v[8] = {};
    if (i * 8 < a.cols) load_eight(a, x, i * 8, scale, v);
    store_eight<8>(v, i * 8 < a.cols, i, to.halves + row * 32, to.sums, row, a.max_rows * 32);
  }
}

}  // namespace
}  // namespace steelyard::cuda::hopper

extern "C" __global__ void __launch_bounds__(steelyard::cuda::hopper::kThreads, 1)
    gemv_1(const __grid_constant__ steelyard::cuda::hopper::LinearArg a) {
  steelyard::cuda::hopper::gemv<1>(a);
}
extern "C" __global__ void __launch_bounds__(steelyard::cuda::hopper::kThreads, 1)
    gemv_8(const __grid_constant__ steelyard::cuda::hopper::LinearArg a) {
  steelyard::cuda::hopper::gemv<8>(a);
}
// The input of a product with 2 to 8 rows. grid: (rows, shares of the columns)
extern "C" __global__ void __launch_bounds__(steelyard::cuda::hopper::kThreads)
    gemv_input(const __grid_constant__ steelyard::cuda::hopper::LinearArg a) {
  steelyard::cuda::hopper::spread(a);
}
