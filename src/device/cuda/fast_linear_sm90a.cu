// Matrix times 1 to 8 rows, bound by the weights' bytes: norm, product, bias, residual or activation in one
// kernel.
//
// A block fills an SM: 16 warps, each with its own ring in shared memory that bulk copies keep full. Row
// groups are shared out evenly over blocks, the units of a block's groups evenly over its warps; a warp
// leaves one partial sum per group it touched, and the block adds them in the warps' order, so results don't
// depend on timing. Weights are static: their copies start before the wait for the predecessor.
//
// One row: column s of mma's right operand holds sub-block s of the input and zeros elsewhere, so the eight
// columns of the result are the eight sub-blocks' sums of a unit, scaled once. 2 .. 8 rows: the columns are
// the rows.
#include <type_traits>

#include "device/cuda/fast_args.h"
#include "device/cuda/fast_mma.cuh"

namespace strata::cuda::fast {
namespace {

constexpr int kThreads = kLinearWarps * 32;
constexpr int kSlots = 8;  // units in flight a warp, at most

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
__device__ inline void barrier_init(std::uint64_t* b) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(b)) : "memory");
}
__device__ inline void barrier_expect(std::uint64_t* b, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(b)), "r"(bytes)
               : "memory");
}
__device__ inline void barrier_wait(std::uint64_t* b, std::uint32_t parity) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      " @!done bra again;\n}" ::"r"(shared_address(b)),
      "r"(parity)
      : "memory");
}
__device__ inline void bulk_copy(void* to, const void* from, std::uint32_t bytes, std::uint64_t* b,
                                 std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(b)), "l"(policy)
      : "memory");
}

// Sum of x * W over a unit for rows g and g + 8, this lane's share (sub-blocks 2t, 2t + 1). x: 256 halves in
// operand order; sums: of each 16 of them.
template <int T>
__device__ __forceinline__ void unit_one(const std::uint8_t* unit, const __half* x, const float* sums,
                                         int lane, int chunks, float (&acc)[2]) {
  const int g = lane / 4, t = lane % 4;
  float c[2][4] = {};
  const uint4 b = *reinterpret_cast<const uint4*>(x + g * 32 + t * 8);
#pragma unroll
  for (int chunk = 0; chunk < 4; chunk++) {
    if (!is_super(T) && chunk >= chunks) break;
    std::uint32_t a[4][4];
    load_chunk<T>(unit + unit_header_bytes(T) + chunk * chunk_bytes(T), lane, a);
#pragma unroll
    for (int sub = 0; sub < 2; sub++) {
      const bool mine = g == 2 * chunk + sub;
      mma<T>(c[0], a[2 * sub], mine ? b.x : 0, mine ? b.y : 0);
      mma<T>(c[1], a[2 * sub + 1], mine ? b.z : 0, mine ? b.w : 0);
    }
  }
  if (!is_super(T) && t >= chunks) return;
  const float4 s16 = *reinterpret_cast<const float4*>(sums + 4 * t);
  constexpr float u0 = code_unit<T>(0), u1 = code_unit<T>(1);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const SubScale s0 = sub_scale<T>(unit, g + 8 * r, 2 * t), s1 = sub_scale<T>(unit, g + 8 * r, 2 * t + 1);
    if constexpr (T == kQ6_K) {
      acc[r] += s0.d * (c[0][2 * r] * u0 - 32.f * s16.x) + s0.d16 * (c[1][2 * r] * u0 - 32.f * s16.y) +
                s1.d * (c[0][2 * r + 1] * u1 - 32.f * s16.z) + s1.d16 * (c[1][2 * r + 1] * u1 - 32.f * s16.w);
    } else {
      acc[r] += s0.d * ((c[0][2 * r] + c[1][2 * r]) * u0) + s1.d * ((c[0][2 * r + 1] + c[1][2 * r + 1]) * u1);
      if constexpr (T != kMXFP4 && T != kF16 && T != kBF16)
        acc[r] -= s0.m * (s16.x + s16.y) + s1.m * (s16.z + s16.w);
    }
  }
}

// The same for up to 8 rows of x, `stride` halves apart: acc = {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t
// + 1)}. sums: [16][8 rows].
template <int T>
__device__ __forceinline__ void unit_many(const std::uint8_t* unit, const __half* x, std::uint32_t stride,
                                          const float* sums, int lane, int column, int chunks,
                                          float (&acc)[4]) {
  const int g = lane / 4, t = lane % 4;
  const __half* mine = x + column * stride + t * 8;
#pragma unroll
  for (int chunk = 0; chunk < 4; chunk++) {
    if (!is_super(T) && chunk >= chunks) break;
    std::uint32_t a[4][4];
    load_chunk<T>(unit + unit_header_bytes(T) + chunk * chunk_bytes(T), lane, a);
#pragma unroll
    for (int sub = 0; sub < 2; sub++) {
      const int s = 2 * chunk + sub;
      const uint4 b = *reinterpret_cast<const uint4*>(mine + s * 32);
      float c[4] = {}, e[4] = {};
      mma<T>(c, a[2 * sub], b.x, b.y);
      if constexpr (T == kQ6_K) {
        mma<T>(e, a[2 * sub + 1], b.z, b.w);
      } else {
        mma<T>(c, a[2 * sub + 1], b.z, b.w);
      }
      const float u = code_unit<T>(sub);
      const float2 s0 = *reinterpret_cast<const float2*>(sums + (2 * s) * 8 + 2 * t);
      const float2 s1 = *reinterpret_cast<const float2*>(sums + (2 * s + 1) * 8 + 2 * t);
#pragma unroll
      for (int r = 0; r < 2; r++) {
        const SubScale sc = sub_scale<T>(unit, g + 8 * r, s);
        if constexpr (T == kQ6_K) {
          acc[2 * r] += sc.d * (c[2 * r] * u - 32.f * s0.x) + sc.d16 * (e[2 * r] * u - 32.f * s1.x);
          acc[2 * r + 1] +=
              sc.d * (c[2 * r + 1] * u - 32.f * s0.y) + sc.d16 * (e[2 * r + 1] * u - 32.f * s1.y);
        } else if constexpr (T == kMXFP4 || T == kF16 || T == kBF16) {
          acc[2 * r] += sc.d * (c[2 * r] * u);
          acc[2 * r + 1] += sc.d * (c[2 * r + 1] * u);
        } else {
          acc[2 * r] += sc.d * (c[2 * r] * u) - sc.m * (s0.x + s1.x);
          acc[2 * r + 1] += sc.d * (c[2 * r + 1] * u) - sc.m * (s0.y + s1.y);
        }
      }
    }
  }
}

#define STRATA_FAST_TYPES(X) \
  X(kF16) X(kQ4_0) X(kQ4_1) X(kQ5_0) X(kQ5_1) X(kQ8_0) X(kQ4_K) X(kQ5_K) X(kQ6_K) X(kBF16) X(kMXFP4)

// A block's share of the work and how it is cut: phases of at most kPhaseGroups row groups and unit_span
// units of columns; in a phase, units are numbered group by group and given to warps in runs.
template <int kPhaseGroups>
struct Share {
  std::uint32_t first, local, units, span, group_phases, unit_phases;
  std::uint32_t group_phase = 0, unit_phase = 0;  // the walk's phase
  std::uint32_t left = 0, group = 0,
                unit = 0;  // units left in the warp's run; where it is (local group, unit)
  std::uint32_t phase_groups = 0, phase_units = 0, first_unit = 0;

  __device__ Share(const LinearArg& a, bool paired) {
    first = a.groups * blockIdx.x / gridDim.x;
    local = (a.groups * (blockIdx.x + 1) / gridDim.x - first) * (paired ? 2 : 1);
    units = (a.cols + kUnitCols - 1) / kUnitCols;
    span = min(a.unit_span, units);
    group_phases = (local + kPhaseGroups - 1) / kPhaseGroups;
    unit_phases = (units + span - 1) / span;
  }
  __device__ bool done() const { return group_phase >= group_phases; }
  __device__ void open(int warp) {
    phase_groups = min(static_cast<std::uint32_t>(kPhaseGroups), local - group_phase * kPhaseGroups);
    first_unit = unit_phase * span;
    phase_units = min(span, units - first_unit);
    const std::uint32_t n = phase_groups * phase_units, a = run(n, warp);
    left = run(n, warp + 1) - a;
    group = a / phase_units;
    unit = a - group * phase_units + first_unit;
  }
  __device__ static std::uint32_t run(std::uint32_t n, int warp) { return n * warp / kLinearWarps; }
  __device__ void close() {
    if (++unit_phase == unit_phases) {
      unit_phase = 0;
      ++group_phase;
    }
  }
  // Returns true at the end of a group's part in this phase.
  __device__ bool step() {
    --left;
    if (++unit < first_unit + phase_units) return false;
    unit = first_unit;
    ++group;
    return true;
  }
  // Local group -> segment and group in it.
  __device__ const Segment& locate(const LinearArg& a, bool paired, std::uint32_t in_phase,
                                   std::uint32_t& g) const {
    const std::uint32_t l = group_phase * kPhaseGroups + in_phase;
    if (paired) {
      g = first + l / 2;
      return a.segments[l & 1];
    }
    g = first + l;
    int s = 0;
    while (s + 1 < a.n_segments && g >= a.segments[s].groups) g -= a.segments[s++].groups;
    return a.segments[s];
  }
};

// The warp's ring: units at rising offsets that start over when the end is too near.
struct Ring {
  std::uint8_t* base;
  std::uint64_t* barriers;
  std::uint32_t size, offset = 0, virt = 0, count = 0;
  __device__ std::uint32_t place(std::uint32_t bytes) {  // where the next unit goes or lies
    if (offset + bytes > size) {
      virt += size - offset;
      offset = 0;
    }
    const std::uint32_t at = offset;
    offset += bytes;
    virt += bytes;
    ++count;
    return at;
  }
};

__device__ inline std::uint32_t unit_chunks(const LinearArg& a, std::uint32_t unit) {
  return min(4u, (a.cols - unit * kUnitCols + kChunkCols - 1) / kChunkCols);
}
__device__ inline std::uint32_t unit_size(const Segment& s, std::uint32_t chunks) {
  return chunks == 4 ? s.unit_bytes : chunks * s.chunk_bytes;
}

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

__device__ inline float block_sum(float v, float* scratch) {  // the same bits in every thread
  for (int i = 16; i; i /= 2) v += __shfl_xor_sync(~0u, v, i);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  __syncthreads();
  float s = 0;
  for (int i = 0; i < kLinearWarps; i++) s += scratch[i];
  __syncthreads();
  return s;
}

// Eight columns i * 8 .. to shared memory: in halves, in operand order, with the sums of each sixteen. All
// lanes call.
template <int N>
__device__ __forceinline__ void store_eight(const float (&v)[8], bool real, std::uint32_t i, __half* out,
                                            float* sums, int row) {
  __half2 h[4] = {};
  float sum = 0;
  if (real) {
#pragma unroll
    for (int k = 0; k < 4; k++) {
      h[k] = __floats2half2_rn(fminf(fmaxf(v[2 * k], -65504.f), 65504.f),
                               fminf(fmaxf(v[2 * k + 1], -65504.f), 65504.f));
      const float2 f = __half22float2(h[k]);
      sum += f.x + f.y;
    }
  }
  // Columns 16 j + 4 t + e of a sub-block stand at 8 t + 4 j + e.
  const std::uint32_t u = i & 3;
  __half* at = out + (i / 4) * 32 + (u & 1) * 16 + (u >> 1) * 4;
  *reinterpret_cast<uint2*>(at) = *reinterpret_cast<const uint2*>(h);
  *reinterpret_cast<uint2*>(at + 8) = *reinterpret_cast<const uint2*>(h + 2);
  sum += __shfl_xor_sync(~0u, sum, 1);
  if ((i & 1) == 0) sums[(i / 2) * N + row] = sum;
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

__device__ inline float activate(float x, bool gelu) {
  if (!gelu) return x / (1.f + __expf(-x));
  return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
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
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncwarp();
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  Ring in{memory + warp * a.ring_bytes, barriers + warp * kSlots, a.ring_bytes}, out = in;
  Share<kPhaseGroups> ahead(a, paired), walk(a, paired);
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
    const std::uint32_t first_unit = walk.first_unit, phase_groups = walk.phase_groups,
                        phase_units = walk.phase_units;
    if (loaded != first_unit) {
#pragma unroll
      for (int r = 0; r < N; r++)
        if (r < rows)
          load_row<N>(a, a.x + static_cast<std::uint64_t>(r) * a.cols, a.norm ? scale[r] : 1.f, first_unit,
                      phase_units, x + r * stride, sums, r);
      loaded = first_unit;
    }
    __syncthreads();
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
            unit_one<T>(unit, x + u * kUnitCols, sums + u * 16, lane, chunks, acc);
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
    __syncthreads();

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
