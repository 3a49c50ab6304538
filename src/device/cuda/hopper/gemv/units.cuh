// Parts of the kernels for 1 to 8 rows: rings of bulk copies, products of a unit, shares of the work.
//
// A block fills an SM: 16 warps, each with its own ring in shared memory that bulk copies keep full. Row
// groups are shared out evenly over blocks, the units of a block's groups evenly over its warps; a warp
// leaves one partial sum per group it touched, and the block adds them in the warps' order, so results don't
// depend on timing.
//
// One row: every column of mma's right operand is that row. 2 .. 8 rows: the columns are the rows.
#pragma once

#include "device/cuda/common/ptx.cuh"
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/gemv/mma.cuh"

namespace steelyard::cuda::hopper {

constexpr int kThreads = kGemvWarps * 32;

// The 16 warps that multiply; a kernel may have others.
__device__ inline void sync_warps() { sync_threads<kThreads>(); }

__device__ inline void barrier_init(std::uint64_t* b) { barrier_init(shared_address(b), 1); }
__device__ inline void barrier_expect(std::uint64_t* b, std::uint32_t bytes) {
  barrier_expect(shared_address(b), bytes);
}
__device__ inline void barrier_wait(std::uint64_t* b, std::uint32_t parity) {
  barrier_wait(shared_address(b), parity);
}
// Sum of x * W over a unit for rows g and g + 8, this lane's share (sub-blocks 2t, 2t + 1). x: 256 halves in
// operand order; sums: of each 16 of them. kWhole: the unit has 4 chunks.
//
// Every column of mma's right operand is the one row of x, so that all lanes of a row hold each sub-block's
// sum and each lane keeps those that it scales.
template <int T, bool kWhole>
__device__ __forceinline__ void unit_one(const std::uint8_t* unit, const __half* x, const float* sums,
                                         int lane, int chunks, float (&acc)[2]) {
  const int g = lane / 4, t = lane % 4;
  const uint4* mine = reinterpret_cast<const uint4*>(x) + t;
  float v[2][2] = {}, w[2][2] = {};  // [sub-block][row]; w: of columns 16 .. 31, where they have a scale
#pragma unroll
  for (int chunk = 0; chunk < 4; chunk++) {
    if (!kWhole && chunk >= chunks) break;
    std::uint32_t a[4][4];
    load_chunk<T>(unit + unit_header_bytes(T) + chunk * chunk_bytes(T), lane, a);
#pragma unroll
    for (int sub = 0; sub < 2; sub++) {
      const uint4 b = mine[(2 * chunk + sub) * 4];
      float c[4] = {}, e[4] = {};
      mma<T>(c, a[2 * sub], b.x, b.y);
      if constexpr (T == kQ6_K) {
        mma<T>(e, a[2 * sub + 1], b.z, b.w);
      } else {
        mma<T>(c, a[2 * sub + 1], b.z, b.w);
      }
#pragma unroll
      for (int r = 0; r < 2; r++) {
        v[sub][r] = t == chunk ? c[2 * r] : v[sub][r];
        if constexpr (T == kQ6_K) w[sub][r] = t == chunk ? e[2 * r] : w[sub][r];
      }
    }
  }
  if (!kWhole && t >= chunks) return;
  const float4 s16 = *reinterpret_cast<const float4*>(sums + 4 * t);
  constexpr float u0 = code_unit<T>(0), u1 = code_unit<T>(1);
#pragma unroll
  for (int r = 0; r < 2; r++) {
    const SubScale s0 = sub_scale<T>(unit, g + 8 * r, 2 * t), s1 = sub_scale<T>(unit, g + 8 * r, 2 * t + 1);
    if constexpr (T == kQ6_K) {
      acc[r] += s0.d * (v[0][r] * u0 - 32.f * s16.x) + s0.d16 * (w[0][r] * u0 - 32.f * s16.y) +
                s1.d * (v[1][r] * u1 - 32.f * s16.z) + s1.d16 * (w[1][r] * u1 - 32.f * s16.w);
    } else {
      acc[r] += s0.d * (v[0][r] * u0) + s1.d * (v[1][r] * u1);
      if constexpr (T != kMXFP4 && T != kF16 && T != kBF16)
        acc[r] -= s0.m * (s16.x + s16.y) + s1.m * (s16.z + s16.w);
    }
  }
}

// Numbers below 2^23 as floats without a conversion, which is slow: their bits in 2^23's.
constexpr std::uint32_t kBits23 = 0x4b000000u;
constexpr float k23 = 8388608.f;

// Scales of a unit's rows g and g + 8, times code_unit().
template <int T>
struct UnitScales {
  const std::uint8_t* unit;
  int g;
  std::uint32_t words[2][4];
  float d[2], m[2];

  __device__ __forceinline__ UnitScales(const std::uint8_t* u, int row) : unit(u), g(row) {
#pragma unroll
    for (int r = 0; r < 2; r++) {
      if constexpr (T == kQ4_K || T == kQ5_K) {
        const uint4 h = *reinterpret_cast<const uint4*>(unit + (g + 8 * r) * 16);
        const float2 dm = __half22float2(*reinterpret_cast<const __half2*>(&h.x));
        words[r][0] = h.y, words[r][1] = h.z, words[r][2] = h.w;
        d[r] = dm.x, m[r] = dm.y;
      } else if constexpr (T == kQ6_K) {
        const uint4 h = *reinterpret_cast<const uint4*>(unit + 32 + (g + 8 * r) * 16);
        words[r][0] = h.x ^ 0x80808080u, words[r][1] = h.y ^ 0x80808080u, words[r][2] = h.z ^ 0x80808080u,
        words[r][3] = h.w ^ 0x80808080u;
        d[r] = half_at(unit + (g + 8 * r) * 2);
      }
    }
  }
  // Of a chunk's sub-block `sub` and row r: {scale, minimum}; Q6_K: scales of columns 0 .. 15 and 16 .. 31.
  __device__ __forceinline__ float2 at(int chunk, int sub, int r) const {
    const float unit_of_code = code_unit<T>(sub);
    if constexpr (T == kQ4_K || T == kQ5_K) {
      const int p = 8 * chunk;
      const std::uint32_t low = words[r][0] >> p, mid = words[r][1] >> p, high = words[r][2] >> p;
      const std::uint32_t minimum =
          sub ? (words[r][0] >> (p + 6) & 3) | (words[r][1] >> (p + 4) & 12) | (words[r][2] >> (p + 2) & 48)
              : mid & 63;
      const float scale = __uint_as_float(((sub ? high : low) & 63) | kBits23),
                  least = __uint_as_float(minimum | kBits23), step = d[r] * unit_of_code;
      return {fmaf(step, scale, -step * k23), fmaf(m[r], least, -m[r] * k23)};
    } else if constexpr (T == kQ6_K) {
      const int first = chunk * 4 + sub * 2;
      const auto scale = [&](int i) {
        return __uint_as_float(__byte_perm(words[r][i / 4], kBits23, 0x7440 | i % 4)) - (k23 + 128.f);
      };
      return {d[r] * scale(first), d[r] * scale(first + 1)};
    } else {
      const SubScale s = sub_scale<T>(unit, g + 8 * r, 2 * chunk + sub);
      return {s.d * unit_of_code, s.m};
    }
  }
};

// Input of a product with several rows (LinearArg::x16), at `at`: columns of `units` units.
struct GemvInput {
  __half* halves;  // [columns / 32][max_rows][32] in operand order
  float* sums;     // of sixteen columns each: [columns / 16][8]
  std::uint32_t max_rows;
  __device__ GemvInput(void* at, std::uint32_t units, std::uint32_t rows)
      : halves(static_cast<__half*>(at)),
        sums(reinterpret_cast<float*>(halves + static_cast<std::uint64_t>(units) * kUnitCols * rows)),
        max_rows(rows) {}
};

// The same for several rows, unit `u` of the input: acc = {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t +
// 1)}.
template <int T>
__device__ __forceinline__ void unit_rows(const std::uint8_t* unit, const GemvInput& input, std::uint32_t u,
                                          int lane, int column, int chunks, float (&acc)[4]) {
  const int g = lane / 4, t = lane % 4;
  const __half* mine = input.halves + u * kUnitCols * input.max_rows + column * 32 + t * 8;
  const float* sums = input.sums + u * kUnitSums + 2 * t;
  const UnitScales<T> scales(unit, g);
#pragma unroll
  for (int chunk = 0; chunk < 4; chunk++) {
    if (!is_super(T) && chunk >= chunks) break;
    std::uint32_t a[4][4];
    load_chunk<T>(unit + unit_header_bytes(T) + chunk * chunk_bytes(T), lane, a);
#pragma unroll
    for (int sub = 0; sub < 2; sub++) {
      const int s = 2 * chunk + sub;
      const uint4 b = *reinterpret_cast<const uint4*>(mine + s * 32 * input.max_rows);
      const float2 s0 = *reinterpret_cast<const float2*>(sums + s * 16);
      const float2 s1 = *reinterpret_cast<const float2*>(sums + s * 16 + 8);
      float c[4] = {}, e[4] = {};
      mma<T>(c, a[2 * sub], b.x, b.y);
      if constexpr (T == kQ6_K) {
        mma<T>(e, a[2 * sub + 1], b.z, b.w);
        const float u = code_unit<T>(sub);
        const float bias[4] = {-32.f * s0.x, -32.f * s0.y, -32.f * s1.x, -32.f * s1.y};
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float2 d = scales.at(chunk, sub, i / 2);
          acc[i] += d.x * fmaf(c[i], u, bias[i % 2]);
          acc[i] += d.y * fmaf(e[i], u, bias[2 + i % 2]);
        }
      } else {
        mma<T>(c, a[2 * sub + 1], b.z, b.w);
        const float sum[2] = {s0.x + s1.x, s0.y + s1.y};
#pragma unroll
        for (int i = 0; i < 4; i++) {
          const float2 d = scales.at(chunk, sub, i / 2);
          acc[i] += d.x * c[i];
          if constexpr (T != kMXFP4 && T != kF16 && T != kBF16) acc[i] -= d.y * sum[i % 2];
        }
      }
    }
  }
}

#define STEELYARD_REPACKED_TYPES(X) \
  X(kF16) X(kQ4_0) X(kQ4_1) X(kQ5_0) X(kQ5_1) X(kQ8_0) X(kQ4_K) X(kQ5_K) X(kQ6_K) X(kBF16) X(kMXFP4)

// A block's share of the work and how it is cut: phases of at most kPhaseGroups row groups and unit_span
// units of columns; in a phase, units are numbered group by group and given to warps in runs.
//
// Where the units need no phases (kWhole), a walk has that much less to carry.
template <bool kWhole>
struct Spans {
  static constexpr std::uint32_t unit_phases = 1, unit_phase = 0, first_unit = 0;
};
template <>
struct Spans<false> {
  std::uint32_t span, unit_phases, unit_phase = 0, phase_units = 0, first_unit = 0;
};

template <int kPhaseGroups, bool kWhole = false>
struct Share : Spans<kWhole> {
  using Of = Spans<kWhole>;
  std::uint32_t first, local, units;
  std::uint32_t group_phase = 0;  // the walk's phase
  std::uint32_t left = 0, group = 0,
                unit = 0;  // units left in the warp's run; where it is (local group, unit)

  Share() = default;
  // Row groups [begin, end) of the matrix, of gate and up each where they are paired.
  __device__ Share(const LinearArg& a, bool paired, std::uint32_t unit_span, std::uint32_t begin,
                   std::uint32_t end) {
    first = begin;
    local = (end - begin) * (paired ? 2 : 1);
    units = units_of(a.cols);
    if constexpr (!kWhole) {
      Of::span = min(unit_span, units);
      Of::unit_phases = (units + Of::span - 1) / Of::span;
    }
  }
  __device__ std::uint32_t group_phases() const { return (local + kPhaseGroups - 1) / kPhaseGroups; }
  __device__ std::uint32_t groups_now() const {
    return min(static_cast<std::uint32_t>(kPhaseGroups), local - group_phase * kPhaseGroups);
  }
  __device__ std::uint32_t units_now() const {
    if constexpr (kWhole)
      return units;
    else
      return Of::phase_units;
  }
  __device__ bool done() const { return group_phase >= group_phases(); }
  __device__ void open(int warp) {
    if constexpr (!kWhole) {
      Of::first_unit = Of::unit_phase * Of::span;
      Of::phase_units = min(Of::span, units - Of::first_unit);
    }
    const std::uint32_t n = groups_now() * units_now(), a = run(n, warp);
    left = run(n, warp + 1) - a;
    group = a / units_now();
    unit = a - group * units_now() + Of::first_unit;
  }
  __device__ static std::uint32_t run(std::uint32_t n, int warp) { return n * warp / kGemvWarps; }
  __device__ void close() {
    if constexpr (kWhole) {
      ++group_phase;
    } else if (++Of::unit_phase == Of::unit_phases) {
      Of::unit_phase = 0;
      ++group_phase;
    }
  }
  // Returns true at the end of a group's part in this phase.
  __device__ bool step() {
    --left;
    if (++unit < Of::first_unit + units_now()) return false;
    unit = Of::first_unit;
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
//
// virt counts bytes as offset does, but goes on rising, with what is left free at the end: in a ring of 100,
// units of 40 lie at 0, 40, 0, 40 and their ends are at virt 40, 80, 140, 180. One ring counts what is
// copied, another what is read; the difference of their virt is what is in use, gap included.
struct Ring {
  std::uint8_t* base;
  std::uint64_t* barriers;
  std::uint32_t size, offset = 0, virt = 0, count = 0;   // count: of units
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

__device__ inline float block_sum(float v, float* scratch) {  // the same bits in every thread
  for (int i = 16; i; i /= 2) v += __shfl_xor_sync(~0u, v, i);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  sync_warps();
  float s = 0;
  for (int i = 0; i < kGemvWarps; i++) s += scratch[i];
  sync_warps();
  return s;
}

// Eight columns i * 8 .. of row `row` as halves in operand order, with the sums of each sixteen, N rows of
// them; out: the row's, 32 columns every `stride` halves. All lanes call.
template <int N>
__device__ __forceinline__ void store_eight(const __half2 (&h)[4], std::uint32_t i, __half* out, float* sums,
                                            int row = 0, std::uint32_t stride = 32) {
  float sum = 0;
#pragma unroll
  for (int k = 0; k < 4; k++) {
    const float2 f = __half22float2(h[k]);
    sum += f.x + f.y;
  }
  const std::uint32_t u = i & 3, j = u >> 1, t = u & 1;
  __half* at = out + i / 4 * stride;
  const uint2* pairs = reinterpret_cast<const uint2*>(h);
  // Columns 16 j + 4 t + e at 8 t + 4 j + e.
  at += t * 16 + j * 4;
  *reinterpret_cast<uint2*>(at) = pairs[0];
  *reinterpret_cast<uint2*>(at + 8) = pairs[1];
  sum += __shfl_xor_sync(~0u, sum, 1);
  if ((i & 1) == 0) sums[(i / 2) * N + row] = sum;
}

__device__ __forceinline__ __half2 clamped_halves(float a, float b) {
  return __floats2half2_rn(fminf(fmaxf(a, -65504.f), 65504.f), fminf(fmaxf(b, -65504.f), 65504.f));
}

// The same from floats; not `real`: zeros.
template <int N>
__device__ __forceinline__ void store_eight(const float (&v)[8], bool real, std::uint32_t i, __half* out,
                                            float* sums, int row = 0, std::uint32_t stride = 32) {
  __half2 h[4] = {};
  if (real)
#pragma unroll
    for (int k = 0; k < 4; k++) h[k] = clamped_halves(v[2 * k], v[2 * k + 1]);
  store_eight<N>(h, i, out, sums, row, stride);
}

// One column of row `row`. Lanes n and n + 16 start a multiple of 16 columns; all lanes call, those without a
// `real` column too.
__device__ __forceinline__ void store_one(const GemvInput& to, float v, bool real, std::uint32_t column,
                                          std::uint32_t row) {
  const float2 h = __half22float2(clamped_halves(v, 0));
  float sum = h.x;
#pragma unroll
  for (int i = 1; i < 16; i *= 2) sum += __shfl_xor_sync(~0u, sum, i);
  if (!real) return;
  const std::uint32_t j = column / 16 % 2, t = column / 4 % 4;
  to.halves[(column / 32 * to.max_rows + row) * 32 + 8 * t + 4 * j + column % 4] = __float2half_rn(h.x);
  if (column % 16 == 0) to.sums[column / 16 * 8 + row] = sum;
}

__device__ inline float activate(float x, bool gelu) {
  if (!gelu) return __fdividef(x, 1.f + __expf(-x));
  return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

}  // namespace steelyard::cuda::hopper
