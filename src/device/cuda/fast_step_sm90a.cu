// A whole step of one row as one kernel: every block walks the ops in order, and a barrier over the grid
// stands between them. Weights never depend on the step, so each warp's ring (fast_units.cuh) runs ahead over
// op boundaries: memory keeps streaming while blocks wait, norm and attend.
//
// What was measured to count here: nothing may live in local memory (the rings leave the L1 cache so little
// that each access goes to L2), and code that runs once an op costs about five cycles an instruction
// (fetching it).
//
// All blocks must be resident (cooperative launch); every spin ends when the abort word is set.
#include <type_traits>

#include "device/cuda/fast_step_attention.cuh"
#include "device/cuda/fast_units.cuh"

namespace strata::cuda::fast {
namespace {

constexpr int kOpsAhead = 8;  // descriptors in shared memory

constexpr int kPhaseGroups = 32;
using Walk = Share<kPhaseGroups, true>;

struct Shared {
  StepOp ops[kOpsAhead];  // op i at i mod kOpsAhead
  StepRow row;
  // By group of the phase: the partial sums [begin, end) that make it up.
  std::uint8_t begin[kPhaseGroups], end[kPhaseGroups];
  std::uint32_t stop;  // the step is being given up
  alignas(16) std::uint32_t zeros[4];
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

// ---- Barrier over the grid ----

// The count of arrivals that the next wait() is for; all multiplying threads call both, in order. What they
// wrote before arrive() is seen by all after wait().
__device__ __forceinline__ void arrive(const StepArg& s, std::uint32_t& target) {
  target += gridDim.x;
  sync_warps();
  if (threadIdx.x == 0)
    asm volatile("fence.acq_rel.gpu;\n red.relaxed.gpu.global.add.u32 [%0], 1;" ::"l"(s.sync) : "memory");
}
// False: the step is being given up.
__device__ __forceinline__ bool wait(const StepArg& s, Shared& shared, std::uint32_t target) {
  if (threadIdx.x == 0) {
    std::uint32_t seen, spins = 0;
    while (true) {
      asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(seen) : "l"(s.sync) : "memory");
      if (static_cast<std::int32_t>(seen - target) >= 0) break;
      if ((++spins & 0xfff) == 0 && *static_cast<const volatile std::uint32_t*>(s.step.abort) != 0) {
        *static_cast<volatile std::uint32_t*>(&shared.stop) = 1;
        break;
      }
    }
  }
  sync_warps();
  return *static_cast<const volatile std::uint32_t*>(&shared.stop) == 0;
}

// ---- Weights ahead ----

__device__ __forceinline__ Walk walk_of(const StepOp& op) {
  const LinearArg& a = op.linear.linear;
  return Walk(a, a.epilogue == Epilogue::gate_up, 0, (blockIdx.x + op.rotation) % gridDim.x);
}

// Copies a warp's units of all ops into its ring, in the order in which the warp will multiply them.
class Feeder {
 public:
  __device__ __forceinline__ Feeder(const StepArg& s, int warp) {
    const Memory m = carve(s);
    ring_ = {m.rings + warp * s.ring_bytes, m.barriers + warp * kSlots, s.ring_bytes};
    asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy_));
  }

  // Until the ring is full or op `end`, whose descriptor isn't there. `eaten`: the ring's reading side.
  __device__ __forceinline__ void fill(const Shared& shared, std::uint32_t end, const Ring& eaten) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    while (true) {
      while (run_ == 0) {
        if (op_ >= end) return;
        find_group(shared, warp);
      }
      const std::uint32_t bytes = run_ == 1 && tail_ != 0 ? tail_ : unit_bytes_;
      const std::uint32_t pad = ring_.offset + bytes > ring_.size ? ring_.size - ring_.offset : 0;
      if (ring_.count - eaten.count >= kSlots || ring_.virt + pad + bytes - eaten.virt > ring_.size) return;
      const std::uint32_t slot = ring_.count % kSlots, at = ring_.place(bytes);
      if (lane == 0) {
        barrier_expect(ring_.barriers + slot, bytes);
        bulk_copy(ring_.base + at, from_, bytes, ring_.barriers + slot, policy_);
      }
      from_ += unit_bytes_;
      --run_;
    }
  }

 private:
  // One step towards the units of the next row group: opens an op, a phase, or the group itself.
  __device__ __forceinline__ void find_group(const Shared& shared, int warp) {
    const StepOp& op = shared.ops[op_ % kOpsAhead];
    if (!open_) {
      if (op.kind != StepKind::linear) {
        ++op_;
        return;
      }
      paired_ = op.linear.linear.epilogue == Epilogue::gate_up;
      share_ = walk_of(op);
      if (!share_.done()) share_.open(warp);
      open_ = true;
    }
    if (share_.left == 0) {
      if (!share_.done()) share_.close();
      if (!share_.done()) {
        share_.open(warp);
      } else {
        ++op_;
        open_ = false;
      }
      return;
    }
    const LinearArg& a = op.linear.linear;
    std::uint32_t g;
    const Segment& s = share_.locate(a, paired_, share_.group, g);
    unit_bytes_ = s.unit_bytes;
    run_ = min(share_.left, share_.first_unit + share_.units_now() - share_.unit);
    const std::uint32_t chunks = unit_chunks(a, share_.unit + run_ - 1);
    tail_ = chunks == 4 ? 0 : chunks * s.chunk_bytes;
    from_ = s.w + g * s.group_bytes + static_cast<std::uint64_t>(share_.unit) * unit_bytes_;
    share_.left -= run_;
    share_.unit = share_.first_unit;
    ++share_.group;
  }

  std::uint32_t op_ = 0;
  Ring ring_{};
  Walk share_;
  const std::uint8_t* from_ = nullptr;
  std::uint32_t run_ = 0, unit_bytes_ = 0, tail_ = 0;  // of the group: units left, bytes, bytes of its last
  std::uint64_t policy_;
  bool paired_ = false, open_ = false;
};

// ---- Input of a product ----

// Eight columns of the input; zeros beyond the end.
__device__ __forceinline__ void read_eight(const StepLinear& o, std::uint64_t at, bool real, float (&v)[8]) {
  if (!real) {
#pragma unroll
    for (float& f : v) f = 0;
  } else if (o.half_in) {
    const uint4 h = __ldcg(reinterpret_cast<const uint4*>(reinterpret_cast<const __half*>(o.linear.x) + at));
    const std::uint32_t w[4] = {h.x, h.y, h.z, h.w};
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const float2 f = __half22float2(*reinterpret_cast<const __half2*>(&w[k]));
      v[2 * k] = f.x, v[2 * k + 1] = f.y;
    }
  } else {
#pragma unroll
    for (int k = 0; k < 2; k++) {
      const float4 f = __ldcg(reinterpret_cast<const float4*>(o.linear.x + at) + k);
      v[4 * k] = f.x, v[4 * k + 1] = f.y, v[4 * k + 2] = f.z, v[4 * k + 3] = f.w;
    }
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
__device__ __forceinline__ void load_normed(const StepLinear& o, std::uint64_t row, std::uint32_t units,
                                            float* scratch, __half* x, float* sums) {
  const LinearArg& a = o.linear;
  float v[Q][8], squares = 0;
#pragma unroll
  for (int q = 0; q < Q; q++) {
    const std::uint32_t col = (threadIdx.x + q * kThreads) * 8;
    float w[8] = {};
    if (col < a.cols) read_norm(a.norm, col, w);
    read_eight(o, row * a.cols + col, col < a.cols, v[q]);
#pragma unroll
    for (int k = 0; k < 8; k++) {
      squares += v[q][k] * v[q][k];
      v[q][k] *= w[k];
    }
  }
  const float scale = rsqrtf(__fdividef(block_sum(squares, scratch), a.cols) + a.eps);
#pragma unroll
  for (int q = 0; q < Q; q++) {
    const std::uint32_t i = threadIdx.x + q * kThreads, col = i * 8;
    if (i >= units * 32) continue;  // whole warps
#pragma unroll
    for (int k = 0; k < 8; k++) v[q][k] *= scale;
    if (o.normed && blockIdx.x == 0 && col < a.cols) {
      float4* to = reinterpret_cast<float4*>(o.normed + col);
      to[0] = make_float4(v[q][0], v[q][1], v[q][2], v[q][3]);
      to[1] = make_float4(v[q][4], v[q][5], v[q][6], v[q][7]);
    }
    store_eight<1>(v[q], col < a.cols, i, x, sums, 0);
  }
}

// The whole row; more columns than stay in registers are read twice where there is a norm.
__device__ __forceinline__ void load_row(const StepLinear& o, std::uint64_t row, std::uint32_t units,
                                         float* scratch, __half* x, float* sums) {
  const LinearArg& a = o.linear;
  float scale = 1.f;
  if (a.norm) {
    float squares = 0;
    for (std::uint32_t i = threadIdx.x; i < a.cols / 8; i += kThreads) {
      float v[8];
      read_eight(o, row * a.cols + i * 8, true, v);
#pragma unroll
      for (const float f : v) squares += f * f;
    }
    scale = rsqrtf(__fdividef(block_sum(squares, scratch), a.cols) + a.eps);
  }
#pragma unroll 2
  for (std::uint32_t i = threadIdx.x; i < units * 32; i += kThreads) {
    const std::uint32_t col = i * 8;
    float v[8];
    read_eight(o, row * a.cols + col, col < a.cols, v);
    if (a.norm && col < a.cols) {
      float w[8];
      read_norm(a.norm, col, w);
#pragma unroll
      for (int k = 0; k < 8; k++) v[k] *= scale * w[k];
      if (o.normed && blockIdx.x == 0)
        for (int k = 0; k < 8; k++) o.normed[col + k] = v[k];
    }
    store_eight<1>(v, col < a.cols, i, x, sums, 0);
  }
}

// ---- A product ----

class Linear {
 public:
  // `real`: whether the row is wanted (a head's is not in a prompt's inner chunk); its units pass all the
  // same.
  __device__ __forceinline__ Linear(const StepArg& s, Shared& shared, const StepOp& op, const Walk& walk,
                                    bool real)
      : arg_(s),
        shared_(shared),
        op_(op.linear),
        a_(op.linear.linear),
        real_(real),
        paired_(a_.epilogue == Epilogue::gate_up),
        walk_(walk) {}

  __device__ __forceinline__ void run(Ring& ring, Feeder& feeder, std::uint32_t end_op) {
    load();
    for (; !walk_.done(); walk_.close()) {
      walk_.open(threadIdx.x / 32);
      const Result r = place();
      sync_warps();
      multiply(ring, feeder, end_op);
      sync_warps();
      finish(r);
      if (walk_.group_phases() > 1) sync_warps();  // partial sums were read
    }
  }

 private:
  __device__ __forceinline__ __half* x() const { return reinterpret_cast<__half*>(carve(arg_).region); }
  __device__ __forceinline__ float* sums() const {
    return reinterpret_cast<float*>(x() + walk_.units * kUnitCols + 32);
  }

  __device__ __forceinline__ void load() const {
    const std::uint64_t row = op_.gather && real_ ? arg_.step.outputs[0].row : 0;
    float* scratch = carve(arg_).scratch;
    if (a_.norm && a_.cols <= kThreads * 8)
      load_normed<1>(op_, row, walk_.units, scratch, x(), sums());
    else if (a_.norm && a_.cols <= kThreads * 16)
      load_normed<2>(op_, row, walk_.units, scratch, x(), sums());
    else
      load_row(op_, row, walk_.units, scratch, x(), sums());
  }

  // `n` units of one group, all whole but perhaps the last.
  template <int T>
  __device__ __forceinline__ void run_units(std::uint32_t n, int last_chunks, Ring& ring, Feeder& feeder,
                                            std::uint32_t end_op, float (&acc)[2]) const {
    const int lane = threadIdx.x % 32;
    const std::uint32_t zeros = shared_address(shared_.zeros);
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
        unit_one<T, true>(next(unit_bytes(T)), in, in_sums, zeros, lane, 4, acc);
      else
        unit_one<T, false>(next(last_chunks * chunk_bytes(T)), in, in_sums, zeros, lane, last_chunks, acc);
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
    bool half;
    float* out;
    float add;  // bias and residual
  };
  __device__ __forceinline__ Result place() const {
    const std::uint32_t group = threadIdx.x / 16;
    if (group >= walk_.groups_now() || !real_ || (paired_ && (group & 1))) return {false};
    std::uint32_t in_segment;
    const Segment& s = walk_.locate(a_, paired_, group, in_segment);
    const std::uint32_t o = in_segment * 16 + threadIdx.x % 16;
    if (o >= s.rows) return {false};
    Result r{true, op_.half_out != 0, s.out + o, 0.f};
    if (r.half) r.out = reinterpret_cast<float*>(reinterpret_cast<__half*>(s.out) + o);
    if (s.bias) r.add = s.bias[o];
    if (a_.epilogue == Epilogue::residual) r.add += __ldcg(a_.residual + o);
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
    if (!r.any) return;
    float y = gather(threadIdx.x / 16);
    if (paired_) y = activate(y, a_.gelu) * gather(threadIdx.x / 16 + 1);
    y += r.add;
    if (a_.softcap > 0) y = a_.softcap * tanhf(__fdividef(y, a_.softcap));
    if (r.half)
      *reinterpret_cast<__half*>(r.out) = __float2half_rn(fminf(fmaxf(y, -65504.f), 65504.f));
    else
      *r.out = y;
  }

  const StepArg& arg_;
  Shared& shared_;
  const StepLinear& op_;
  const LinearArg& a_;
  const bool real_, paired_;
  Walk walk_;
};

// ---- The step ----

__device__ __forceinline__ void add_norm(const StepAddNorm& o, float* scratch) {
  if (blockIdx.x != 0) return;
  float squares = 0;
  for (std::uint32_t i = threadIdx.x; i < o.width; i += kThreads) {
    const float v = __ldcg(o.branch + i);
    squares += v * v;
  }
  const float scale = rsqrtf(__fdividef(block_sum(squares, scratch), o.width) + o.eps);
  for (std::uint32_t i = threadIdx.x; i < o.width; i += kThreads)
    o.out[i] = __ldcg(o.residual + i) + __ldcg(o.branch + i) * scale * o.norm[i];
}

// A function of its own: it needs most registers, the products none of what it keeps.
template <int D>
__device__ __noinline__ void attention(const StepArg& s, Shared& shared, const StepAttention& op) {
  Attention<D>(op, shared.row, carve(s).region, s.region_bytes).run();
}

// Op `i` into its place in shared memory, if there is one. All multiplying threads call.
__device__ __forceinline__ void load_op(const StepArg& s, Shared& shared, std::uint32_t i) {
  constexpr std::uint32_t kWords = sizeof(StepOp) / 16;
  if (i < s.n_ops && threadIdx.x < kWords)
    reinterpret_cast<uint4*>(shared.ops + i % kOpsAhead)[threadIdx.x] =
        __ldg(reinterpret_cast<const uint4*>(s.ops + i) + threadIdx.x);
}

__device__ __forceinline__ void begin(const StepArg& s, Shared& shared) {
  for (std::uint32_t i = 0; i + 1 < kOpsAhead; i++) load_op(s, shared, i);
  if (threadIdx.x < kLinearWarps * kSlots) barrier_init(carve(s).barriers + threadIdx.x);
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  if (threadIdx.x == kThreads - 1) {
    const StepHeader& h = *s.step.header;
    shared.row = {static_cast<std::uint32_t>(s.step.positions[0]), h.n_outputs, s.step.block_tables,
                  h.table_stride};
    shared.stop = 0;
    for (std::uint32_t& z : shared.zeros) z = 0;
  }
  __syncthreads();
}

__device__ __forceinline__ void step(const StepArg& s) {
  __shared__ __align__(16) Shared shared;
  begin(s, shared);
  const int warp = threadIdx.x / 32;
  Ring ring{carve(s).rings + warp * s.ring_bytes, carve(s).barriers + warp * kSlots, s.ring_bytes};
  std::uint32_t target = __ldcg(s.sync + 1), end_op = min(s.n_ops, static_cast<std::uint32_t>(kOpsAhead - 1));
  Feeder feeder(s, warp);
  feeder.fill(shared, end_op, ring);
  Walk walk;
  if (shared.ops[0].kind == StepKind::linear) walk = walk_of(shared.ops[0]);
  for (std::uint32_t i = 0; i < s.n_ops; i++) {
    const StepOp& op = shared.ops[i % kOpsAhead];
    if (op.kind == StepKind::linear) {
      Linear(s, shared, op, walk, !op.linear.gather || shared.row.n_outputs != 0).run(ring, feeder, end_op);
    } else if (op.kind == StepKind::add_norm) {
      add_norm(op.add, carve(s).scratch);
    } else {
      const std::uint32_t dim = op.attention.kv.head_dim_k;
      if (dim == 64)
        attention<64>(s, shared, op.attention);
      else if (dim == 128)
        attention<128>(s, shared, op.attention);
      else
        attention<256>(s, shared, op.attention);
    }
    if (i + 1 == s.n_ops) break;
    feeder.fill(shared, end_op, ring);  // leaves op i behind, also where the warp had no share of it
    arrive(s, target);
    load_op(s, shared, i + kOpsAhead - 1);  // into the place of op i - 1
    const StepOp& next = shared.ops[(i + 1) % kOpsAhead];
    if (i + 2 < s.n_ops) prefetch_norm(shared.ops[(i + 2) % kOpsAhead]);
    if (next.kind == StepKind::linear) walk = walk_of(next);
    if (!wait(s, shared, target)) return;
    end_op = min(s.n_ops, i + kOpsAhead);
  }
  // All blocks have read the count before the first barrier, and there is none after the last op.
  if (blockIdx.x == 0 && threadIdx.x == 0) s.sync[1] = target;
}

}  // namespace
}  // namespace strata::cuda::fast

extern "C" __global__ void __launch_bounds__(strata::cuda::fast::kThreads, 1)
    fast_step(const __grid_constant__ strata::cuda::fast::StepArg s) {
  strata::cuda::fast::step(s);
}
