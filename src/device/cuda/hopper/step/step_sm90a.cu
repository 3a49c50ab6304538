// A whole step of one row as one kernel: every block walks the ops in order and waits only for the values it
// needs (hopper/step/words.cuh). Weights never depend on the step, so each warp's ring
// (hopper/step/stream.cuh) runs ahead over op boundaries: memory keeps streaming while blocks wait, norm and
// attend.
//
// All blocks must be resident (cooperative launch); every spin ends when the abort word is set.
#include "device/cuda/hopper/step/input.cuh"
#include "device/cuda/hopper/step/stream.cuh"

namespace steelyard::cuda::hopper {
namespace {

// Op `i` into its place in shared memory, by one warp. It is there after wait_for_copies() and a barrier.
__device__ __forceinline__ void load_op(const StepArg& s, Shared& shared, std::uint32_t i) {
  const std::uint32_t lane = threadIdx.x % 32;
  static_assert(sizeof(StepOp) <= 32 * 16);
  if (lane < sizeof(StepOp) / 16)
    copy_async(reinterpret_cast<uint4*>(shared.ops + i % kOpsAhead) + lane,
               reinterpret_cast<const uint4*>(s.ops + i) + lane);
}

__device__ __forceinline__ float residual(const void* from, std::int32_t written_by, std::uint32_t i,
                                          Flow& flow) {
  if (written_by == kBeforeStep) return __ldcg(static_cast<const float*>(from) + i);
  return take_float(static_cast<const std::uint64_t*>(from) + i, flow.tag(written_by), flow);
}

// The product under way, found again in each of its parts: between them its fields would lie in local memory.
struct Product {
  Shared& shared;
  std::uint32_t index;
  const StepLinear& op;
  const LinearArg& a;
  bool paired;
  __device__ __forceinline__ Product()
      : shared(the_shared()),
        index(progress().op),
        op(op_now().linear),
        a(op.linear),
        paired(a.epilogue == Epilogue::gate_up) {}
};

__device__ __forceinline__ __half* input() { return reinterpret_cast<__half*>(region()); }
__device__ __forceinline__ float* input_sums(std::uint32_t units) {
  return reinterpret_cast<float*>(input() + units * kUnitCols + 32);
}

__device__ __forceinline__ void load_input(const Walk& walk) {
  const Product p;
  Flow& flow = p.shared.flow;
  float* sums = input_sums(walk.units);
  if (!p.a.norm)
    load_halves(p.op, flow, walk.units, input(), sums);
  else if (p.a.cols <= kThreads * 8)
    load_normed<1>(p.op, flow, walk.units, input(), sums);
  else
    load_normed<2>(p.op, flow, walk.units, input(), sums);
}

// `n` units of one group, all whole but perhaps the last; in: their columns, sums: of each sixteen.
template <int T>
__device__ __forceinline__ void run_units(std::uint32_t n, int last_chunks, const __half* in,
                                          const float* sums, WeightStream& stream, float (&acc)[2]) {
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (; n != 0; n--, in += kUnitCols, sums += 16) {
    if (is_super(T) || n > 1 || last_chunks == 4)
      unit_one<T, true>(stream.next(unit_bytes(T)), in, sums, lane, 4, acc);
    else
      unit_one<T, false>(stream.next(last_chunks * chunk_bytes(T)), in, sums, lane, last_chunks, acc);
    __syncwarp();
    stream.fill();
  }
}

// The warp's sums of a group it has multiplied to the end of its own share.
__device__ __forceinline__ void leave_group(float (&acc)[2]) {
  const int warp = threadIdx.x / 32;
  const int lane = lane_anew();  // kept over the units it would lie in local memory
  float* to = partial_sums() + (progress().walk.group - 1 + warp) * 16 + lane / 4;
#pragma unroll
  for (int r = 0; r < 2; r++) {
    acc[r] += __shfl_xor_sync(~0u, acc[r], 1);
    acc[r] += __shfl_xor_sync(~0u, acc[r], 2);
    if (lane % 4 == 0) to[8 * r] = acc[r];
  }
}

// The units of the warp's next group, and the warp's walk behind them.
struct GroupUnits {
  std::uint32_t n, type;
  int last_chunks;
  const __half* in;
  const float* sums;
  __device__ __forceinline__ GroupUnits() {
    const Product p;
    const Walk walk = progress().walk;
    const int warp = threadIdx.x / 32;
    std::uint32_t unused;
    type = walk.locate(p.a, p.paired, walk.group, unused).type;
    n = min(walk.left, walk.units - walk.unit);
    last_chunks = unit_chunks(p.a, walk.unit + n - 1);
    in = input() + walk.unit * kUnitCols;
    sums = input_sums(walk.units) + walk.unit * 16;
    __syncwarp();
    if (threadIdx.x % 32 == 0) {
      if (walk.unit == 0) p.shared.begin[walk.group] = static_cast<std::uint8_t>(walk.group + warp);
      if (walk.unit + n == walk.units)
        p.shared.end[walk.group] = static_cast<std::uint8_t>(walk.group + warp + 1);
      Walk& next = progress().walk;
      next.left = walk.left - n;
      next.unit = 0;
      next.group = walk.group + 1;
    }
    __syncwarp();
  }
};

// The warp's share of a phase, to partial sums.
__device__ __forceinline__ void multiply(WeightStream& stream) {
  // A warp without a unit may stand between two that share a group.
  if (progress().walk.left == 0 && threadIdx.x % 32 < 16)
    partial_sums()[(progress().walk.group + threadIdx.x / 32) * 16 + threadIdx.x % 32] = 0;
  while (progress().walk.left != 0) {  // the units of one group under one choice of type
    const GroupUnits u;
    float acc[2] = {};
    switch (u.type) {
#define STEELYARD_CASE(T)                                        \
  case T:                                                        \
    run_units<T>(u.n, u.last_chunks, u.in, u.sums, stream, acc); \
    break;
      STEELYARD_REPACKED_TYPES(STEELYARD_CASE)
#undef STEELYARD_CASE
    }
    leave_group(acc);
  }
}

// What this thread writes in the phase: row threadIdx.x % 16 of group threadIdx.x / 16.
struct Result {
  bool any;
  float* out;         // of the segment
  const float* bias;  // the same
  std::uint32_t row;  // in it
  __device__ __forceinline__ Result(const Product& p, const Walk& walk)
      : any(false), out(nullptr), bias(nullptr), row(0) {
    const std::uint32_t group = threadIdx.x / 16;
    if (group >= walk.groups_now() || (p.paired && (group & 1))) return;
    if (p.op.wanted && p.shared.row.n_outputs == 0) return;  // a head, in a prompt's inner chunk
    std::uint32_t in_segment;
    const Segment& s = walk.locate(p.a, p.paired, group, in_segment);
    row = in_segment * 16 + threadIdx.x % 16;
    out = s.out, bias = s.bias;
    any = row < s.rows;
  }
};

// Before the product: what is added to its results.
__device__ __forceinline__ void fetch_added(const Walk& walk) {
  if (threadIdx.x / 32 * 2 >= walk.groups_now()) return;  // whole warps
  const Product p;
  const Result r(p, walk);
  if (!r.any) return;
  float add = r.bias ? r.bias[r.row] : 0.f;
  if (p.a.epilogue == Epilogue::residual)
    add += residual(p.a.residual, p.op.residual_op, r.row, p.shared.flow);
  p.shared.add[threadIdx.x] = add;
}

// A group's row: the warps' partial sums in their order.
__device__ __forceinline__ float gather(const Shared& shared, std::uint32_t group) {
  const std::uint32_t end = shared.end[group];
  std::uint32_t i = shared.begin[group];
  const float* partial = partial_sums() + i * 16 + threadIdx.x % 16;
  float sum = 0;
#pragma unroll 1
  for (; i + 4 <= end; i += 4, partial += 64)
    sum = (((sum + partial[0]) + partial[16]) + partial[32]) + partial[48];
#pragma unroll 1
  for (; i < end; i++, partial += 16) sum += *partial;
  return sum;
}

// A row's sum over the ranks, in their order. The other ranks' blocks have the same rows, so each waits for
// its twins alone. Two places in turn are enough (device/link.h). Nobody clears the words when tags repeat,
// as a rank may be ahead of who clears: a stale one would need kStepNumbers steps without one of a single
// row.
//
// A function of its own, so that the products of a model that has no ranks don't feel it.
__device__ __noinline__ float sum_over_ranks(std::uint32_t row, float mine) {
  const Product p;
  const StepSum& s = p.op.sum;
  const std::uint32_t tag = p.shared.flow.tag(p.index);
  std::uint64_t* words = s.words + row;
  store_word_everywhere(words + s.rank * s.stride,
                        static_cast<std::uint64_t>(tag) << 32 | __float_as_uint(mine));
  float sum = 0;
#pragma unroll 1
  for (std::uint32_t rank = 0; rank < s.ranks; rank++, words += s.stride) {
    float v = mine;
    if (rank != s.rank)
      look_until(p.shared.flow, [&] {
        const std::uint64_t w = load_word_everywhere(words);
        v = __uint_as_float(static_cast<std::uint32_t>(w));
        return static_cast<std::uint32_t>(w >> 32) == tag;
      });
    sum = rank == 0 ? v : sum + v;
  }
  return sum;
}

// The phase's results, from all warps' sums.
__device__ __forceinline__ void finish() {
  const Product p;
  const Walk walk = progress().walk;
  const Result r(p, walk);
  sync_warps();
  if (threadIdx.x / 32 * 2 >= walk.groups_now()) return;  // whole warps
  float y = 0;
  if (r.any) {
    y = gather(p.shared, threadIdx.x / 16);
    if (p.paired) y = activate(y, p.a.gelu) * gather(p.shared, threadIdx.x / 16 + 1);
    if (p.op.sum.ranks != 0) y = sum_over_ranks(r.row, y);
    y += p.shared.add[threadIdx.x];
    if (p.a.softcap > 0) y = p.a.softcap * tanhf(__fdividef(y, p.a.softcap));
  }
  const std::uint32_t tag = p.shared.flow.tag(p.index);
  if (p.op.out == StepOut::half_words) {
    const __half2 pair = clamped_halves(y, __shfl_down_sync(~0u, y, 1));
    if (r.any && threadIdx.x % 2 == 0)
      put(reinterpret_cast<std::uint64_t*>(r.out) + r.row / 2, *reinterpret_cast<const std::uint32_t*>(&pair),
          tag);
  } else if (r.any && p.op.out == StepOut::words) {
    put(reinterpret_cast<std::uint64_t*>(r.out) + r.row, y, tag);
  } else if (r.any) {
    r.out[r.row] = y;
  }
}

// Once all have left the ops before this one: the last warp brings the descriptors that there is room for.
__device__ __forceinline__ void bring_ops() {
  const Product p;
  const std::uint32_t from = progress().brought, to = min(p.shared.arg.n_ops, p.index + kOpsAhead);
  if (threadIdx.x / 32 == kGemvWarps - 1)
    for (std::uint32_t i = from; i < to; i++) load_op(p.shared.arg, p.shared, i);
  __syncwarp();
  if (threadIdx.x % 32 == 0) progress().brought = to;
}

// The warp's walk goes on to the next phase, or starts; false: there is none.
__device__ __forceinline__ bool next_phase(bool start) {
  Walk walk = progress().walk;
  if (start)
    walk = walk_of(op_now());
  else
    walk.close();
  const bool more = !walk.done();
  if (more) walk.open(threadIdx.x / 32);
  __syncwarp();
  if (threadIdx.x % 32 == 0) progress().walk = walk;
  __syncwarp();
  return more;
}

// A function of its own, so that neither it nor attention takes the other's registers.
//
// Nothing is between the end of an op and the start of the next that could wait: this block may be the one
// whose results all others look for.
__device__ __noinline__ void product() {
  bool more = next_phase(true);
  if (more) {
    fetch_added(progress().walk);
    load_input(progress().walk);
  }
  wait_for_copies();
  sync_warps();  // the input is there, and all have left the ops before
  if (threadIdx.x % 32 == 0) progress().end_op = progress().brought;
  __syncwarp();
  bring_ops();
  const bool idle = !more || progress().walk.left == 0;
  WeightStream stream;
  while (more) {
    multiply(stream);
    finish();
    more = next_phase(false);
    if (!more) break;
    sync_warps();  // partial sums were read
    fetch_added(progress().walk);
  }
  if (idle) stream.fill();  // leaves the op behind
  stream.save();
}

__device__ __noinline__ void add_norm() {
  const std::uint32_t index = progress().op;
  Flow& flow = the_shared().flow;
  const StepAddNorm& o = op_now().add;
  if (blockIdx.x != 0) return;
  float squares = 0;
  for (std::uint32_t i = threadIdx.x; i < o.width; i += kThreads) {
    const float v = take_float(o.branch + i, flow.tag(index - 1), flow);
    squares += v * v;
  }
  const float scale = rsqrtf(__fdividef(sum_of_block(squares), o.width) + o.eps);
  for (std::uint32_t i = threadIdx.x; i < o.width; i += kThreads) {
    const float v = take_float(o.branch + i, flow.tag(index - 1), flow);
    put(o.out + i, residual(o.residual, o.residual_op, i, flow) + v * scale * o.norm[i], flow.tag(index));
  }
  sync_warps();  // scratch was read
}

template <int D>
__device__ __noinline__ void attend() {
  Shared& shared = the_shared();
  Attention<D>(op_now().attention, progress().op, shared.row, shared.flow, region()).run();
}
template <int D>
__device__ __noinline__ void merge() {
  Shared& shared = the_shared();
  add_parts<D>(op_now().attention, progress().op, shared.row, shared.flow, region());
}
template <int D>
__device__ __forceinline__ void attention() {
  attend<D>();
  merge<D>();
}

__device__ __forceinline__ void begin(const StepArg& s, Shared& shared) {
  if (threadIdx.x == kThreads - 1) shared.arg = s;
  if (threadIdx.x < kGemvWarps) {
    shared.feeding[threadIdx.x].op = 0, shared.feeding[threadIdx.x].open = false;
    Progress& p = shared.progress[threadIdx.x];
    p = {};
    p.end_op = p.brought = min(s.n_ops, kOpsAhead - 1u);
  }
  if (threadIdx.x < kGemvWarps * kSlots) barrier_init(barriers() + threadIdx.x);
  fence_async_shared();
  __syncthreads();
  if (threadIdx.x < 32)
    for (std::uint32_t i = 0; i < min(s.n_ops, kOpsAhead - 1u); i++) load_op(s, shared, i);
  wait_for_copies();
  if (threadIdx.x == kThreads - 1) {
    const StepHeader& h = *s.step.header;
    shared.row = {static_cast<std::uint32_t>(s.step.positions[0]), h.n_outputs, s.step.block_tables,
                  h.table_stride};
    shared.flow = {(h.step + 1) * kStepTags, 0, s.step.abort};
  }
  __syncthreads();
}

enum class Code : std::uint32_t { end, product, add_norm, attend64, attend128, attend256 };

// What the warp's op needs. This and what follows are functions of their own, so that the loop keeps nothing
// in registers, which would go to local memory.
__device__ __noinline__ Code next_code() {
  Shared& shared = the_shared();
  const std::uint32_t index = progress().op;
  if (index >= shared.arg.n_ops) return Code::end;
  const StepOp& op = op_now();
  if (index + 2 < progress().end_op) prefetch_norm(shared.ops[(index + 2) % kOpsAhead]);
  if (op.kind == StepKind::linear) return Code::product;
  if (op.kind == StepKind::add_norm) return Code::add_norm;
  const std::uint32_t dim = op.attention.kv.head_dim_k;
  return dim == 64 ? Code::attend64 : dim == 128 ? Code::attend128 : Code::attend256;
}
__device__ __noinline__ void leave_op() {
  __syncwarp();
  if (threadIdx.x % 32 == 0) ++progress().op;
  __syncwarp();
}

__device__ __forceinline__ void step(const StepArg& s) {
  begin(s, the_shared());
  fill();
#pragma unroll 1
  for (Code code = next_code(); code != Code::end; code = next_code()) {
    if (code == Code::product)
      product();
    else if (code == Code::add_norm)
      add_norm();
    else if (code == Code::attend64)
      attention<64>();
    else if (code == Code::attend128)
      attention<128>();
    else
      attention<256>();
    leave_op();
  }
}

}  // namespace
}  // namespace steelyard::cuda::hopper

extern "C" __global__ void __launch_bounds__(steelyard::cuda::hopper::kThreads, 1)
    decode_step(const __grid_constant__ steelyard::cuda::hopper::StepArg s) {
  steelyard::cuda::hopper::step(s);
}

// What a part of a model hands on, for copies, which know no words. grid: ⌈n / 256⌉.
extern "C" __global__ void __launch_bounds__(256)
    step_floats(const std::uint64_t* words, float* floats, std::uint32_t n) {
  const std::uint32_t i = blockIdx.x * 256 + threadIdx.x;
  if (i < n) floats[i] = __uint_as_float(static_cast<std::uint32_t>(words[i]));
}
