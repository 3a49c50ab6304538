// Matrix times many rows (9 and more) with Hopper's warpgroup products. Weights and the input (gemm_input:
// halves, already in the tensor cores' order) come into a ring of stages in shared memory by bulk copies that
// one warp issues; the other warps expand a chunk's codes into halves in registers, scale and minimum
// applied, which are the products' left operand as they stand. Sums in float.
//
// A block of MW * KW warpgroups owns 64 * MW rows of weights and N rows of the step. A stage holds KW chunks;
// warpgroup (mw, kw) takes chunk kw for its 64 rows, a warp one group of 16. gate_up: a warp takes half a
// group of gate and the same half of up, so that a lane holds both sums of an output. `splits` blocks (a
// cluster) may share the columns of a tile. Where more than one warpgroup has a part of a sum, the parts meet
// in shared memory and are added in a fixed order. While one warpgroup expands codes, the products of the
// others run.
#pragma once

#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/gemm/expand.cuh"

namespace steelyard::cuda::hopper {

// As activate() in hopper/gemv/units.cuh, but for the last bit of its division.
__device__ inline float activation(float x, bool gelu) {
  if (!gelu) return x / (1.f + __expf(-x));
  return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

// A tile of the result.
struct Place {
  int segment;
  std::uint32_t base, first_row;  // first group in the segment(s), first row of the step
};

template <int N, int MW, int KW>
struct Rows {
  static constexpr int kGroups = 4 * MW, kWarps = 4 * MW * KW;
  static constexpr std::uint32_t kInputBytes = KW * 128 * N;  // of a stage
  static constexpr std::uint32_t kHeaderBytes = kGroups * 288;
  static constexpr std::uint32_t kPartRows = 64 * MW + 4;  // of partial sums, padded against conflicts
  static constexpr bool kDealt = N * kWarps > 1024;        // the copying warps give up registers
  static constexpr int kProducers = 4;
  static constexpr int kThreads = (kWarps + kProducers) * 32;

  const LinearArg& a;
  const GemmArg& m;
  std::uint8_t* ring;
  std::uint32_t memory, full, empty;  // shared addresses: the ring's start, barriers
  std::uint32_t rank, first_tile, tile_step, begin, end, chunks, rows;
  bool paired;

  __device__ Rows(const LinearArg& arg, const GemmArg& many, std::uint8_t* shared) : a(arg), m(many) {
    ring = shared;
    memory = shared_address(shared);
    full = bar = memory + m.barrier_offset;
    empty = full + m.stages * 8;
    rank = blockIdx.x % m.splits;
    first_tile = blockIdx.x / m.splits;
    tile_step = gridDim.x / m.splits;
    chunks = a.cols / kChunkCols;
    const std::uint32_t stages = (chunks + KW - 1) / KW;
    begin = stages * rank / m.splits;
    end = stages * (rank + 1) / m.splits;
    paired = a.epilogue == Epilogue::gate_up;
    rows = a.outputs ? a.header->n_outputs : a.header->n_rows;
  }

  __device__ Place place(std::uint32_t tile) const {
    const std::uint32_t per = paired ? kGroups / 2 : kGroups;
    std::uint32_t block = tile / m.row_tiles;
    int segment = 0;
    if (!paired)
      while (block >= (a.segments[segment].groups + per - 1) / per)
        block -= (a.segments[segment++].groups + per - 1) / per;
    return {segment, block * per, tile % m.row_tiles * N};
  }
  // Whether the block's part of a tile's columns meets a new unit in this stage.
  __device__ bool opens(std::uint32_t s) const { return s == begin || s % (4 / KW) == 0; }
  __device__ float finish(const Segment& s, std::uint32_t row, std::uint32_t o, float y, float other) const;

  __device__ void produce();
  __device__ void consume();
  __device__ void multiply(const Segment& s, float (&c)[N / 2]);
  __device__ void write(const Place& p, float (&c)[N / 2]);
  __device__ void gather(const Place& p, const float (&c)[N / 2]);

  // The consumers' way through the ring: barrier and offset of the stage, offsets of headers.
  std::uint32_t bar, at = 0, parity = 0, head = 0, head_next = 0;
};

// Four warps fill the ring: copies leave one at a time, so each warp's lanes take a quarter of a stage's
// groups and every fourth stage's input. Weights don't wait for the predecessor, the input does.
template <int N, int MW, int KW>
__device__ void Rows<N, MW, KW>::produce() {
  const std::uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32 - kWarps, share = kGroups / kProducers;
  std::uint32_t count = 0, slot = 0, phase = 1, head_slot = m.headers - 1;
  bool waited = false;
  const std::uint8_t* input = nullptr;  // of the stage in slot `lane`
  std::uint32_t input_bytes = 0;
  const auto copy_input = [&] {
    bulk_copy(memory + lane * m.stage_bytes, input, input_bytes, full + lane * 8);
  };
  const auto wait = [&] {
    wait_for_results();
    waited = true;
    if (lane < min(count, m.stages) && lane % kProducers == warp) copy_input();
  };
  for (std::uint32_t tile = first_tile; tile < m.tiles; tile += tile_step) {
    const Place p = place(tile);
    if (p.first_row >= rows) continue;
    const std::uint32_t index = warp * share + min(lane, share - 1);
    const Segment& s = a.segments[paired ? index / (kGroups / 2) : p.segment];
    const std::uint32_t group = p.base + (paired ? index % (kGroups / 2) : index);
    const std::uint32_t size = s.chunk_bytes, head_size = s.unit_bytes - 4 * size;
    const std::uint8_t* w = s.w + min(group, s.groups - 1) * s.group_bytes;
    const std::uint8_t* x =
        static_cast<const std::uint8_t*>(m.x16) + static_cast<std::uint64_t>(p.first_row) * a.cols * 2;
    for (std::uint32_t i = begin; i < end; i++, count++) {
      const std::uint32_t to = full + slot * 8, from = i * KW,
                          n = min(static_cast<std::uint32_t>(KW), chunks - from);
      if (count >= m.stages) {
        if (!waited) wait();
        barrier_wait(to + m.stages * 8, phase);
      }
      const bool opening = opens(i) && head_size != 0, fed = slot % kProducers == warp;
      if (opens(i) && ++head_slot == m.headers) head_slot = 0;
      if (lane == 0)
        barrier_expect(to, share * (n * size + (opening ? head_size : 0)) + (fed ? n * 128 * N : 0));
      __syncwarp();
      if (lane < share) {
        const std::uint8_t* unit = w + static_cast<std::uint64_t>(from / 4) * s.unit_bytes;
        bulk_copy(memory + slot * m.stage_bytes + kInputBytes + index * KW * size,
                  unit + head_size + from % 4 * size, n * size, to);
        if (opening)
          bulk_copy(memory + m.header_offset + head_slot * kHeaderBytes + index * head_size, unit, head_size,
                    to);
      }
      if (fed && lane == slot) {
        input = x + static_cast<std::uint64_t>(from) * 128 * N;
        input_bytes = n * 128 * N;
        if (waited) copy_input();
      }
      if (++slot == m.stages) slot = 0, phase ^= 1;
    }
  }
  if (!waited) wait();
}

// c = the block's part of the product.
template <int N, int MW, int KW>
__device__ __forceinline__ void Rows<N, MW, KW>::multiply(const Segment& s, float (&c)[N / 2]) {
  const int lane = threadIdx.x % 32, type = s.type;
  std::uint32_t own, up, row_part, row_head, inputs, first;  // offsets: in a stage, in a header slot
  int row;
  {
    const int warp = threadIdx.x / 32 % 4, mw = threadIdx.x / 128 % MW, kw = threadIdx.x / 128 / MW;
    const std::uint32_t size = s.chunk_bytes, index = paired ? mw * 2 + warp / 2 : mw * 4 + warp,
                        other = index + (paired ? kGroups / 2 : 0), base = kInputBytes + kw * size;
    const bool second = lane & 1;
    own = base + index * KW * size;
    up = base + other * KW * size;
    row = lane / 4 + (paired ? warp % 2 * 8 : second ? 8 : 0);
    row_part = second ? up : own;
    row_head = m.header_offset + (second ? other : index) * (s.unit_bytes - 4 * size);
    inputs = (memory >> 4 & 0x3fff) + kw * 8 * N;
    first = kw;
  }
  keep(own), keep(up), keep(row_part), keep(row_head), keep(inputs), keep(first);
  std::uint32_t before = 0;
  std::uint32_t a16[4][4];
  pin(c);
#pragma unroll 1
  for (std::uint32_t i = begin; i < end; i++) {
    if (opens(i)) {
      head = head_next;
      head_next = head + kHeaderBytes == m.headers * kHeaderBytes ? 0 : head + kHeaderBytes;
    }
    barrier_wait(bar, parity);
    const std::uint32_t chunk = i * KW + first;
    if (KW == 1 || chunk < chunks) {  // whole warpgroups
      const Source source{ring + at + own, paired ? ring + at + up : nullptr, ring + row_head + head,
                          ring + at + row_part, row};
      expand_any(type, source, chunk % 4, lane, a16);
      if (i > begin) barrier_arrive(before);
      const std::uint32_t b = operand<N>(inputs + (at >> 4));
      wgmma_fence();
#pragma unroll
      for (int n = 0; n < 4; n++) wgmma<N>(c, a16[n], b + n * (2 * N * 16 >> 4));
      wgmma_commit();
    } else {
      wgmma_wait<0>();
      if (i > begin) barrier_arrive(before);
    }
    before = bar + m.stages * 8;
    bar += 8;
    at += m.stage_bytes;
    if (bar == full + m.stages * 8) bar = full, at = 0, parity ^= 1;
  }
  wgmma_wait<0>();
  pin(c);
  if (end > begin) barrier_arrive(before);
}

template <int N, int MW, int KW>
__device__ float Rows<N, MW, KW>::finish(const Segment& s, std::uint32_t row, std::uint32_t o, float y,
                                         float other) const {
  if (s.bias) y += s.bias[o];
  if (paired) y = activation(y, a.gelu) * other;
  if (a.epilogue == Epilogue::residual) y += a.residual[static_cast<std::uint64_t>(row) * s.rows + o];
  if (a.softcap > 0) y = a.softcap * tanhf(y / a.softcap);
  return y;
}

// Sums that one warpgroup has whole, from registers, in steps without branches.
template <int N, int MW, int KW>
__device__ void Rows<N, MW, KW>::write(const Place& p, float (&c)[N / 2]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, mw = threadIdx.x / 128 % MW, g = lane / 4,
            t = lane % 4;
  const Segment& s = a.segments[p.segment];
  const std::uint32_t o =
      paired ? (p.base + mw * 2 + warp / 2) * 16 + warp % 2 * 8 + g : (p.base + mw * 4 + warp) * 16 + g;
  const bool real[2] = {o < s.rows, !paired && o + 8 < s.rows};
  const int left = static_cast<int>(rows - p.first_row) - 2 * t;  // rows from the lane's first
  if (s.bias) {
    const float b[2] = {real[0] ? s.bias[o] : 0.f, real[1] ? s.bias[o + 8] : 0.f};
#pragma unroll
    for (int i = 0; i < N / 2; i++) c[i] += b[i / 2 % 2];
  }
  if (paired) {
#pragma unroll
    for (int i = 0; i < N / 2; i++)
      if (i % 4 < 2) c[i] = activation(c[i], a.gelu) * c[i + 2];
  }
  if (a.softcap > 0) {
#pragma unroll
    for (int i = 0; i < N / 2; i++) c[i] = a.softcap * tanhf(c[i] / a.softcap);
  }
  const std::uint64_t at = static_cast<std::uint64_t>(p.first_row + 2 * t) * s.rows + o;
  const std::uint32_t stride = s.rows;
  if (a.epilogue == Epilogue::residual) {
    const float* r = a.residual + at;
#pragma unroll
    for (int n = 0; n < N / 8; n++, r += 8 * stride)
#pragma unroll
      for (int e = 0; e < 4; e++)
        if (n * 8 + e % 2 < left && real[e / 2]) c[4 * n + e] += __ldcg(r + e % 2 * stride + e / 2 * 8);
  }
  float* y = s.out + at;
#pragma unroll
  for (int n = 0; n < N / 8; n++, y += 8 * stride)
#pragma unroll
    for (int e = 0; e < 4; e++)
      if (n * 8 + e % 2 < left && real[e / 2]) y[e % 2 * stride + e / 2 * 8] = c[4 * n + e];
}

// Sums in parts: over shared memory, a block of the cluster finishing its share of the outputs.
template <int N, int MW, int KW>
__device__ void Rows<N, MW, KW>::gather(const Place& p, const float (&c)[N / 2]) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32 % 4, mw = threadIdx.x / 128 % MW,
            kw = threadIdx.x / 128 / MW, g = lane / 4, t = lane % 4;
  float* parts = reinterpret_cast<float*>(ring + m.part_offset);
#pragma unroll
  for (int i = 0; i < N / 2; i++)
    parts[(kw * N + i / 4 * 8 + 2 * t + i % 2) * kPartRows + mw * 64 + warp * 16 + g + i / 2 % 2 * 8] = c[i];
  const auto meet = [&] {
    if (m.splits > 1)
      sync_cluster();
    else
      sync_threads<kWarps * 32>();
  };
  meet();
  const Segment& s = a.segments[p.segment];
  const std::uint32_t base = memory + m.part_offset;
  const auto sum = [&](std::uint32_t n, std::uint32_t o) {
    float total = 0;
    for (std::uint32_t r = 0; r < m.splits; r++) {
      std::uint32_t from = base;
      if (m.splits > 1) from = address_in(base, r);
#pragma unroll
      for (int w = 0; w < KW; w++) total += load_cluster(from + ((w * N + n) * kPartRows + o) * 4);
    }
    return total;
  };
  const std::uint32_t share = (paired ? 32 : 64) * MW / m.splits;
  for (std::uint32_t i = threadIdx.x; i < N * share; i += kWarps * 32) {
    const std::uint32_t n = i / share, r = rank * share + i % share, row = p.first_row + n,
                        o = p.base * 16 + r;
    if (row >= rows) break;
    if (o >= s.rows) continue;
    const std::uint32_t at = paired ? r / 8 * 16 + r % 8 : r;
    const float y = sum(n, at), other = paired ? sum(n, at + 8) : 0.f;
    s.out[static_cast<std::uint64_t>(row) * s.rows + o] = finish(s, row, o, y, other);
  }
  meet();
}

template <int N, int MW, int KW>
__device__ void Rows<N, MW, KW>::consume() {
  wait_for_results();
  for (std::uint32_t tile = first_tile; tile < m.tiles; tile += tile_step) {
    const Place p = place(tile);
    if (p.first_row >= rows) continue;
    float c[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) c[i] = 0;
    multiply(a.segments[p.segment], c);
    if (KW > 1 || m.splits > 1)
      gather(p, c);
    else
      write(p, c);
  }
}

template <int N, int MW, int KW>
__device__ void rows_kernel(const LinearArg& a, const GemmArg& m) {
  STEELYARD_DYNAMIC_SHARED(memory);
  Rows<N, MW, KW> r(a, m, memory);
  if (threadIdx.x < m.stages) {
    barrier_init(r.full + threadIdx.x * 8, r.kProducers);
    barrier_init(r.empty + threadIdx.x * 8, r.kWarps * 32);
    fence_barrier_init();
    fence_async_shared();
  }
  let_successor_start();
  __syncthreads();
  if (threadIdx.x / 32 >= r.kWarps) {
    if constexpr (r.kDealt) give_registers<32>();
    r.produce();
  } else {
    if constexpr (r.kDealt) take_registers<112>();
    r.consume();
  }
}

}  // namespace steelyard::cuda::hopper

#define STEELYARD_ROWS(name, N, MW, KW)                                                               \
  extern "C" __global__ void __launch_bounds__(steelyard::cuda::hopper::Rows<N, MW, KW>::kThreads, 1) \
      name(const __grid_constant__ steelyard::cuda::hopper::LinearArg a,                              \
           const __grid_constant__ steelyard::cuda::hopper::GemmArg m) {                              \
    steelyard::cuda::hopper::rows_kernel<N, MW, KW>(a, m);                                            \
  }
