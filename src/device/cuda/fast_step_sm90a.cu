// A whole step of one row as one kernel: every block walks the ops in order and waits only for the values it
// needs (fast_words.cuh). Weights never depend on the step, so each warp's ring (fast_units.cuh) runs ahead
// over op boundaries: memory keeps streaming while blocks wait, norm and attend.
//
// What was measured to count here: nothing may live in local memory (the rings leave the L1 cache so little
// that each access goes to L2), and code that runs once an op costs about five cycles an instruction
// (fetching it).
//
// All blocks must be resident (cooperative launch); every spin ends when the abort word is set.
#include "device/cuda/fast_step_attention.cuh"
#include "device/cuda/fast_units.cuh"
#include "device/cuda/fast_words.cuh"

namespace strata::cuda::fast {
namespace {

constexpr int kOpsAhead = 8;  // descriptors in shared memory

constexpr int kPhaseGroups = 32;
using Walk = Share<kPhaseGroups, true>;

// Where a warp's feeder is among the ops: needed once a group, so it takes no registers.
struct Position {
  Walk share;
  std::uint32_t op;
  bool paired, open;
};

struct Shared {
  Position feeding[kLinearWarps];
  StepOp ops[kOpsAhead];  // op i at i mod kOpsAhead
  StepRow row;
  Flow flow;
  // By group of the phase: the partial sums [begin, end) that make it up.
  std::uint8_t begin[kPhaseGroups], end[kPhaseGroups];
};

// A block's dynamic shared memory. Made anew where it is used: pointers that went through memory would be
// generic.
struct Memory {
  std::uint8_t* rings;
  std::uint8_t* region;  // input rows and their sums, or attention's
  float* partial;        // [phase groups + warps][16 rows]
  float* scratch;        // [warps]
  std::uint64_t* barriers;
};

__device__ __forceinline__ Memory carve(const StepArg& s) {
  extern __shared__ __align__(128) std::uint8_t memory[];
  Memory m;
  m.rings = memory;
  m.region = memory + kLinearWarps * s.ring_bytes;
  m.partial = reinterpret_cast<float*>(m.region + s.region_bytes);
  m.scratch = m.partial + (kPhaseGroups + kLinearWarps) * 16;
  m.barriers = reinterpret_cast<std::uint64_t*>(m.scratch + kLinearWarps);
  return m;
}

// ---- Weights ahead ----

__device__ __forceinline__ Walk walk_of(const StepOp& op) {
  const LinearArg& a = op.linear.linear;
  return Walk(a, a.epilogue == Epilogue::gate_up, 0, (blockIdx.x + op.rotation) % gridDim.x);
}

// A row group's units that one warp multiplies; none: units == 0.
struct Run {
  const std::uint8_t* from;
  std::uint32_t units, unit_bytes, tail;  // tail: bytes of the last where it isn't whole, else 0
};

__device__ __forceinline__ Run take_group(const LinearArg& a, Position& at) {
  Walk& share = at.share;
  std::uint32_t g;
  const Segment& s = share.locate(a, at.paired, share.group, g);
  Run run;
  run.unit_bytes = s.unit_bytes;
  run.units = min(share.left, share.first_unit + share.units_now() - share.unit);
  const std::uint32_t chunks = unit_chunks(a, share.unit + run.units - 1);
  run.tail = chunks == 4 ? 0 : chunks * s.chunk_bytes;
  run.from = s.w + g * s.group_bytes + static_cast<std::uint64_t>(share.unit) * s.unit_bytes;
  share.left -= run.units;
  share.unit = share.first_unit;
  ++share.group;
  return run;
}

// The warp's next one before op `end`. All lanes call. A function of its own: every type's loop calls it.
__device__ __noinline__ Run next_run(Shared& shared, std::uint32_t end) {
  const int warp = threadIdx.x / 32;
  Position at = shared.feeding[warp];
  Run run{};
  __syncwarp();  // all have read it
  while (at.op < end && run.units == 0) {
    const StepOp& op = shared.ops[at.op % kOpsAhead];
    if (!at.open && op.kind == StepKind::linear) {
      at.paired = op.linear.linear.epilogue == Epilogue::gate_up;
      at.share = walk_of(op);
      at.share.left = 0;
      if (!at.share.done()) at.share.open(warp);
      at.open = true;
    }
    if (at.open && at.share.left != 0) {
      run = take_group(op.linear.linear, at);
      continue;
    }
    if (at.open && !at.share.done()) at.share.close();
    if (at.open && !at.share.done()) {
      at.share.open(warp);
    } else {
      ++at.op;
      at.open = false;
    }
  }
  if (threadIdx.x % 32 == 0) shared.feeding[warp] = at;
  __syncwarp();
  return run;
}

// Copies a warp's units of all ops into its ring, in the order in which the warp will multiply them.
class Feeder {
 public:
  __device__ __forceinline__ Feeder(const StepArg& s, int warp) {
    const Memory m = carve(s);
    ring_ = {m.rings + warp * s.ring_bytes, m.barriers + warp * kSlots, s.ring_bytes};
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_));
  }

  // Until the ring is full or op `end`, whose descriptor isn't there. `eaten`: the ring's reading side. All
  // lanes call.
  __device__ __forceinline__ void fill(Shared& shared, std::uint32_t end, const Ring& eaten) {
    while (true) {
      if (run_.units == 0) {
        run_ = next_run(shared, end);
        if (run_.units == 0) return;
      }
      const std::uint32_t bytes = run_.units == 1 && run_.tail != 0 ? run_.tail : run_.unit_bytes;
      const std::uint32_t pad = ring_.offset + bytes > ring_.size ? ring_.size - ring_.offset : 0;
      if (ring_.count - eaten.count >= kSlots || ring_.virt + pad + bytes - eaten.virt > ring_.size) return;
      const std::uint32_t slot = ring_.count % kSlots, at = ring_.place(bytes);
      if (threadIdx.x % 32 == 0) {
        barrier_expect(ring_.barriers + slot, bytes);
        bulk_copy(ring_.base + at, run_.from, bytes, ring_.barriers + slot, policy_);
      }
      run_.from += run_.unit_bytes;
      --run_.units;
    }
  }

 private:
  Ring ring_{};
  Run run_{};
  std::uint64_t policy_;
};

// ---- Input of a product ----

// The same bits in every multiplying thread. `scratch` is free again after the next sync_warps().
__device__ __forceinline__ float sum_of_block(float v, float* scratch) {
  for (int i = 16; i; i /= 2) v += __shfl_xor_sync(~0u, v, i);
  if (threadIdx.x % 32 == 0) scratch[threadIdx.x / 32] = v;
  sync_warps();
  float s = 0;
#pragma unroll
  for (int i = 0; i < kLinearWarps / 4; i++) {
    const float4 f = reinterpret_cast<const float4*>(scratch)[i];
    s += (f.x + f.y) + (f.z + f.w);
  }
  return s;
}

// Eight floats of each of Q pieces of the input, from words or from before the kernel; zeros beyond its end.
template <int Q>
__device__ __forceinline__ void read_floats(const StepLinear& o, Flow& flow, float (&v)[Q][8]) {
  const std::uint32_t cols = o.linear.cols;
  if (o.x_op == kBeforeStep) {
#pragma unroll
    for (int q = 0; q < Q; q++)
#pragma unroll
      for (int k = 0; k < 2; k++) {
        const std::uint32_t col = (threadIdx.x + q * kThreads) * 8;
        const float4 f =
            col < cols ? __ldcg(reinterpret_cast<const float4*>(o.linear.x + col) + k) : float4{};
        v[q][4 * k] = f.x, v[q][4 * k + 1] = f.y, v[q][4 * k + 2] = f.z, v[q][4 * k + 3] = f.w;
      }
    return;
  }
  const auto* words = reinterpret_cast<const std::uint64_t*>(o.linear.x) + threadIdx.x * 8;
  const std::uint32_t tag = flow.tag(o.x_op);
  std::uint32_t looks = 0;
  while (true) {
    bool all = true;
#pragma unroll
    for (int q = 0; q < Q; q++)
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const bool real = (threadIdx.x + q * kThreads) * 8 < cols;
        const ulonglong2 w = real ? look(words + q * kThreads * 8 + 2 * k) : ulonglong2{};
        all = all && (!real || has(w, tag));
        v[q][2 * k] = __uint_as_float(static_cast<std::uint32_t>(w.x));
        v[q][2 * k + 1] = __uint_as_float(static_cast<std::uint32_t>(w.y));
      }
    if (all || hopeless(flow, looks)) return;
  }
}

__device__ __forceinline__ void read_norm(const float* norm, std::uint32_t col, float (&w)[8]) {
#pragma unroll
  for (int k = 0; k < 2; k++) {
    const float4 f = __ldg(reinterpret_cast<const float4*>(norm + col) + k);
    w[4 * k] = f.x, w[4 * k + 1] = f.y, w[4 * k + 2] = f.z, w[4 * k + 3] = f.w;
  }
}

// Brings an op's norm into L2 before it is its turn.
__device__ __forceinline__ void prefetch_norm(const StepOp& op) {
  if (op.kind != StepKind::linear || !op.linear.linear.norm || blockIdx.x != 0) return;
  for (std::uint32_t i = threadIdx.x; i < op.linear.linear.cols / 32; i += kThreads)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(op.linear.linear.norm + i * 32));
}

// A row of up to Q x 4096 normed columns: read once, it stays in registers between norm and conversion.
template <int Q>
__device__ __forceinline__ void load_normed(const StepLinear& o, Flow& flow, std::uint32_t units,
                                            float* scratch, __half* x, float* sums) {
  const LinearArg& a = o.linear;
  float v[Q][8], w[Q][8] = {}, squares = 0;
#pragma unroll
  for (int q = 0; q < Q; q++) {
    const std::uint32_t col = (threadIdx.x + q * kThreads) * 8;
    if (col < a.cols) read_norm(a.norm, col, w[q]);
  }
  read_floats<Q>(o, flow, v);
#pragma unroll
  for (int q = 0; q < Q; q++)
#pragma unroll
    for (int k = 0; k < 8; k++) squares += v[q][k] * v[q][k];
  const float scale = rsqrtf(__fdividef(sum_of_block(squares, scratch), a.cols) + a.eps);
#pragma unroll
  for (int q = 0; q < Q; q++) {
    const std::uint32_t i = threadIdx.x + q * kThreads, col = i * 8;
    if (i >= units * 32) continue;  // whole warps
#pragma unroll
    for (int k = 0; k < 8; k++) v[q][k] *= scale * w[q][k];
    if (o.normed && blockIdx.x == 0 && col < a.cols) {
      float4* to = reinterpret_cast<float4*>(o.normed + col);
      to[0] = make_float4(v[q][0], v[q][1], v[q][2], v[q][3]);
      to[1] = make_float4(v[q][4], v[q][5], v[q][6], v[q][7]);
    }
    store_eight<1>(v[q], col < a.cols, i, x, sums, 0);
  }
}

// A row of half words, four pieces of each thread at a time.
__device__ __forceinline__ void load_halves(const StepLinear& o, Flow& flow, std::uint32_t units, __half* x,
                                            float* sums) {
  constexpr int Q = 4;
  const std::uint32_t tag = flow.tag(o.x_op), cols = o.linear.cols;
#pragma unroll 1
  for (std::uint32_t first = threadIdx.x; first < units * 32; first += Q * kThreads) {
    const auto* words = reinterpret_cast<const std::uint64_t*>(o.linear.x) + first * 4;
    __half2 h[Q][4];
    std::uint32_t looks = 0;
    while (true) {
      bool all = true;
#pragma unroll
      for (int q = 0; q < Q; q++)
#pragma unroll
        for (int k = 0; k < 2; k++) {
          const bool real = (first + q * kThreads) * 8 < cols;
          const ulonglong2 w = real ? look(words + q * kThreads * 4 + 2 * k) : ulonglong2{};
          all = all && (!real || has(w, tag));
          const std::uint32_t pairs[2] = {static_cast<std::uint32_t>(w.x), static_cast<std::uint32_t>(w.y)};
          h[q][2 * k] = *reinterpret_cast<const __half2*>(&pairs[0]);
          h[q][2 * k + 1] = *reinterpret_cast<const __half2*>(&pairs[1]);
        }
      if (all || hopeless(flow, looks)) break;
    }
#pragma unroll
    for (int q = 0; q < Q; q++)
      if (first + q * kThreads < units * 32) store_eight<1>(h[q], first + q * kThreads, x, sums, 0);
  }
}

// ---- A product ----

// Op `i` into its place in shared memory, if there is one. All multiplying threads call.
__device__ __forceinline__ void load_op(const StepArg& s, Shared& shared, std::uint32_t i) {
  constexpr std::uint32_t kWords = sizeof(StepOp) / 16;
  if (i < s.n_ops && threadIdx.x < kWords)
    reinterpret_cast<uint4*>(shared.ops + i % kOpsAhead)[threadIdx.x] =
        __ldg(reinterpret_cast<const uint4*>(s.ops + i) + threadIdx.x);
}

__device__ __forceinline__ float residual(const void* from, std::int32_t written_by, std::uint32_t i,
                                          Flow& flow) {
  if (written_by == kBeforeStep) return __ldcg(static_cast<const float*>(from) + i);
  return take_float(static_cast<const std::uint64_t*>(from) + i, flow.tag(written_by), flow);
}

class Linear {
 public:
  // Op `index` of the step. `real`: whether the row is wanted (a head's is not in a prompt's inner chunk);
  // its units pass all the same.
  __device__ __forceinline__ Linear(const StepArg& s, Shared& shared, const StepOp& op, std::uint32_t index,
                                    bool real)
      : arg_(s),
        shared_(shared),
        op_(op.linear),
        a_(op.linear.linear),
        index_(index),
        real_(real),
        paired_(a_.epilogue == Epilogue::gate_up),
        walk_(walk_of(op)) {}

  // Has descriptors up to `end_op` brought; returns the new end.
  __device__ __forceinline__ std::uint32_t run(Ring& ring, Feeder& feeder, std::uint32_t end_op) {
    const bool share = !walk_.done();
    Result r{false};
    if (share) {
      load();
      walk_.open(threadIdx.x / 32);
      r = place();
    }
    sync_warps();  // all have left the ops before this one
    const std::uint32_t end = min(arg_.n_ops, index_ + kOpsAhead);
    for (std::uint32_t i = end_op; i < end; i++) load_op(arg_, shared_, i);
    while (share) {
      multiply(ring, feeder, end_op);
      sync_warps();
      finish(r);
      walk_.close();
      if (walk_.done()) return end;
      sync_warps();  // partial sums were read
      walk_.open(threadIdx.x / 32);
      r = place();
    }
    sync_warps();
    return end;
  }

 private:
  __device__ __forceinline__ __half* x() const { return reinterpret_cast<__half*>(carve(arg_).region); }
  __device__ __forceinline__ float* sums() const {
    return reinterpret_cast<float*>(x() + walk_.units * kUnitCols + 32);
  }

  __device__ __forceinline__ void load() const {
    float* scratch = carve(arg_).scratch;
    if (!a_.norm)
      load_halves(op_, shared_.flow, walk_.units, x(), sums());
    else if (a_.cols <= kThreads * 8)
      load_normed<1>(op_, shared_.flow, walk_.units, scratch, x(), sums());
    else
      load_normed<2>(op_, shared_.flow, walk_.units, scratch, x(), sums());
  }

  // `n` units of one group, all whole but perhaps the last.
  template <int T>
  __device__ __forceinline__ void run_units(std::uint32_t n, int last_chunks, Ring& ring, Feeder& feeder,
                                            std::uint32_t end_op, float (&acc)[2]) const {
    const int lane = threadIdx.x % 32;
    const auto next = [&](std::uint32_t bytes) {
      const std::uint32_t slot = ring.count % kSlots, parity = ring.count / kSlots & 1;
      const std::uint8_t* at = ring.base + ring.place(bytes);
      barrier_wait(ring.barriers + slot, parity);
      return at;
    };
    const __half* in = x() + walk_.unit * kUnitCols;
    const float* in_sums = sums() + walk_.unit * 16;
#pragma unroll 1
    for (; n != 0; n--, in += kUnitCols, in_sums += 16) {
      if (is_super(T) || n > 1 || last_chunks == 4)
        unit_one<T, true>(next(unit_bytes(T)), in, in_sums, lane, 4, acc);
      else
        unit_one<T, false>(next(last_chunks * chunk_bytes(T)), in, in_sums, lane, last_chunks, acc);
      __syncwarp();
      feeder.fill(shared_, end_op, ring);
    }
  }

  __device__ __forceinline__ void multiply(Ring& ring, Feeder& feeder, std::uint32_t end_op) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    // A warp without a unit may stand between two that share a group.
    if (walk_.left == 0 && lane < 16) carve(arg_).partial[(walk_.group + warp) * 16 + lane] = 0;
    while (walk_.left != 0) {  // the units of one group under one choice of type
      std::uint32_t unused;
      const Segment& s = walk_.locate(a_, paired_, walk_.group, unused);
      const std::uint32_t group = walk_.group, n = min(walk_.left, walk_.units - walk_.unit);
      const int last_chunks = unit_chunks(a_, walk_.unit + n - 1);
      float acc[2] = {};
      switch (s.type) {
#define STRATA_CASE(T)                                       \
  case T:                                                    \
    run_units<T>(n, last_chunks, ring, feeder, end_op, acc); \
    break;
        STRATA_FAST_TYPES(STRATA_CASE)
#undef STRATA_CASE
      }
      if (lane == 0 && walk_.unit == 0) shared_.begin[group] = static_cast<std::uint8_t>(group + warp);
      if (lane == 0 && walk_.unit + n == walk_.units)
        shared_.end[group] = static_cast<std::uint8_t>(group + warp + 1);
      walk_.left -= n;
      walk_.unit = 0;
      ++walk_.group;
      float* p = carve(arg_).partial + (group + warp) * 16;
#pragma unroll
      for (int r = 0; r < 2; r++) {
        acc[r] += __shfl_xor_sync(~0u, acc[r], 1);
        acc[r] += __shfl_xor_sync(~0u, acc[r], 2);
        if (t == 0) p[g + 8 * r] = acc[r];
      }
    }
  }

  // What this thread writes in the phase, if anything, found and fetched before the product.
  struct Result {
    bool any;
    float* out;         // of the segment
    std::uint32_t row;  // in it
    float add;          // bias and residual
  };
  __device__ __forceinline__ Result place() const {
    const std::uint32_t group = threadIdx.x / 16;
    if (group >= walk_.groups_now() || !real_ || (paired_ && (group & 1))) return {false};
    std::uint32_t in_segment;
    const Segment& s = walk_.locate(a_, paired_, group, in_segment);
    const std::uint32_t o = in_segment * 16 + threadIdx.x % 16;
    if (o >= s.rows) return {false};
    Result r{true, s.out, o, 0.f};
    if (s.bias) r.add = s.bias[o];
    if (a_.epilogue == Epilogue::residual) r.add += residual(a_.residual, op_.residual_op, o, shared_.flow);
    return r;
  }

  // A group's row: the warps' partial sums in their order.
  __device__ __forceinline__ float gather(std::uint32_t group) const {
    const float* partial = carve(arg_).partial + threadIdx.x % 16;
    float sum = 0;
    for (std::uint32_t i = shared_.begin[group], end = shared_.end[group]; i < end; i++)
      sum += partial[i * 16];
    return sum;
  }

  __device__ __forceinline__ void finish(const Result& r) const {
    if (threadIdx.x / 32 * 2 >= walk_.groups_now()) return;  // whole warps
    float y = 0;
    if (r.any) {
      y = gather(threadIdx.x / 16);
      if (paired_) y = activate(y, a_.gelu) * gather(threadIdx.x / 16 + 1);
      y += r.add;
      if (a_.softcap > 0) y = a_.softcap * tanhf(__fdividef(y, a_.softcap));
    }
    const std::uint32_t tag = shared_.flow.tag(index_);
    if (op_.out == StepOut::half_words) {
      const __half2 pair = clamped_halves(y, __shfl_down_sync(~0u, y, 1));
      if (r.any && threadIdx.x % 2 == 0)
        put(reinterpret_cast<std::uint64_t*>(r.out) + r.row / 2,
            *reinterpret_cast<const std::uint32_t*>(&pair), tag);
    } else if (r.any && op_.out == StepOut::words) {
      put(reinterpret_cast<std::uint64_t*>(r.out) + r.row, y, tag);
    } else if (r.any) {
      r.out[r.row] = y;
    }
  }

  const StepArg& arg_;
  Shared& shared_;
  const StepLinear& op_;
  const LinearArg& a_;
  const std::uint32_t index_;
  const bool real_, paired_;
  Walk walk_;
};

// ---- The step ----

__device__ __forceinline__ void add_norm(const StepAddNorm& o, std::uint32_t index, Flow& flow,
                                         float* scratch) {
  if (blockIdx.x != 0) return;
  float squares = 0;
  for (std::uint32_t i = threadIdx.x; i < o.width; i += kThreads) {
    const float v = take_float(o.branch + i, flow.tag(index - 1), flow);
    squares += v * v;
  }
  const float scale = rsqrtf(__fdividef(sum_of_block(squares, scratch), o.width) + o.eps);
  for (std::uint32_t i = threadIdx.x; i < o.width; i += kThreads) {
    const float v = take_float(o.branch + i, flow.tag(index - 1), flow);
    put(o.out + i, residual(o.residual, o.residual_op, i, flow) + v * scale * o.norm[i], flow.tag(index));
  }
  sync_warps();  // scratch was read
}

// A function of its own: it needs most registers, the products none of what it keeps.
template <int D>
__device__ __noinline__ void attend(const StepArg& s, Shared& shared, const StepAttention& op,
                                    std::uint32_t index) {
  Attention<D>(op, index, shared.row, shared.flow, carve(s).region, s.region_bytes).run();
}
template <int D>
__device__ __forceinline__ void attention(const StepArg& s, Shared& shared, const StepAttention& op,
                                          std::uint32_t index) {
  attend<D>(s, shared, op, index);
  add_parts<D>(op, index, shared.row, shared.flow, carve(s).region, s.region_bytes);
}

__device__ __forceinline__ void begin(const StepArg& s, Shared& shared) {
  for (std::uint32_t i = 0; i + 1 < kOpsAhead; i++) load_op(s, shared, i);
  if (threadIdx.x < kLinearWarps)
    shared.feeding[threadIdx.x].op = 0, shared.feeding[threadIdx.x].open = false;
  if (threadIdx.x < kLinearWarps * kSlots) barrier_init(carve(s).barriers + threadIdx.x);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  if (threadIdx.x == kThreads - 1) {
    const StepHeader& h = *s.step.header;
    shared.row = {static_cast<std::uint32_t>(s.step.positions[0]), h.n_outputs, s.step.block_tables,
                  h.table_stride};
    shared.flow = {(h.step + 1) * kStepTags, 0, s.step.abort};
  }
  __syncthreads();
}

__device__ __forceinline__ void step(const StepArg& s) {
  __shared__ __align__(16) Shared shared;
  begin(s, shared);
  const int warp = threadIdx.x / 32;
  Ring ring{carve(s).rings + warp * s.ring_bytes, carve(s).barriers + warp * kSlots, s.ring_bytes};
  std::uint32_t end_op = min(s.n_ops, static_cast<std::uint32_t>(kOpsAhead - 1));
  Feeder feeder(s, warp);
  feeder.fill(shared, end_op, ring);
  for (std::uint32_t i = 0; i < s.n_ops; i++) {
    const StepOp& op = shared.ops[i % kOpsAhead];
    if (op.kind == StepKind::linear) {
      if (i + 2 < end_op) prefetch_norm(shared.ops[(i + 2) % kOpsAhead]);
      Linear product(s, shared, op, i, !op.linear.wanted || shared.row.n_outputs != 0);
      end_op = product.run(ring, feeder, end_op);
    } else if (op.kind == StepKind::add_norm) {
      add_norm(op.add, i, shared.flow, carve(s).scratch);
    } else {
      const std::uint32_t dim = op.attention.kv.head_dim_k;
      if (dim == 64)
        attention<64>(s, shared, op.attention, i);
      else if (dim == 128)
        attention<128>(s, shared, op.attention, i);
      else
        attention<256>(s, shared, op.attention, i);
    }
    feeder.fill(shared, end_op, ring);  // leaves op i behind, also where the warp had no share of it
  }
}

}  // namespace
}  // namespace strata::cuda::fast

extern "C" __global__ void __launch_bounds__(strata::cuda::fast::kThreads, 1)
    fast_step(const __grid_constant__ strata::cuda::fast::StepArg s) {
  strata::cuda::fast::step(s);
}
