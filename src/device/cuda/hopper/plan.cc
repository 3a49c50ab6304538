#include "device/cuda/hopper/plan.h"

#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "base/dtype.h"
#include "device/cuda/general/general.h"
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/step/step.h"
#include "device/cuda/hopper/weights/format.h"
#include "device/cuda/hopper/weights/layout.h"
#include "program/program.h"

namespace steelyard::cuda {
namespace {

using hopper::Epilogue;
using hopper::kGemvRows;
using hopper::LinearArg;
using hopper::Segment;

struct HopperAttention {
  std::uint32_t head_dim;
  const char *whole, *split, *combine, *prefill;
};
#define STEELYARD_KERNELS(D) \
  { D, "attention_" #D, "attention_split_" #D, "attention_combine_" #D, "prefill_" #D }
constexpr HopperAttention kAttention[] = {STEELYARD_KERNELS(64), STEELYARD_KERNELS(128),
                                          STEELYARD_KERNELS(256)};
#undef STEELYARD_KERNELS

class Plan final : public HopperPlan {
 public:
  Plan(const DeviceProgram& input, CompileServices& services)
      : in_(input),
        scratch_(lay_out_scratch(*in_.program, in_.limits, in_.mode)),
        step_(invariant() ? std::nullopt
                          : hopper::StepKernel::make(in_, in_.scratch + scratch_.step, services)) {}

  bool enqueue_step(std::uint32_t rows, std::uint32_t, Launcher& launcher) override {
    if (!step_ || rows != 1) return false;
    step_->enqueue(launcher);
    return true;
  }
  bool enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) override {
    const Call call{op, rows, outputs, launcher};
    return std::visit([&](const auto& o) { return run(o, call); }, in_.program->ops[op].body);
  }
  Words tagged_words() const override {
    if (!step_) return {};
    const StepMemory m = step_memory(*in_.program);
    return {in_.scratch + scratch_.step + m.words, m.bytes - m.words};
  }
  std::string report() const override;

 private:
  struct Call {  // one enqueue_op
    std::size_t op;
    std::uint32_t rows, outputs;
    Launcher& launcher;
  };
  template <typename Op>
  bool run(const Op&, const Call&) {
    return false;
  }
  bool run(const QkvOp& op, const Call& call);
  bool run(const ResidualLinearOp& op, const Call& call);
  bool run(const GateUpOp& op, const Call& call);
  bool run(const RopeAppendOp& op, const Call& call);
  bool run(const AttentionOp& op, const Call& call);
  bool run(const HeadOp& op, const Call& call);

  float* buffer(BufferId id) const { return in_.buffer(id); }
  std::uint32_t width(BufferId id) const { return in_.width(id); }
  const float* vector(WeightId id) const { return in_.vector(id); }
  bool covered(WeightId id) const {
    const WeightSpec& w = in_.program->weights[id];
    return has_repacked_layout(w.type, w.rows, w.cols);
  }
  Segment segment(WeightId weight, WeightId bias, float* out) const {
    return hopper::make_segment(in_, weight, bias, out);
  }
  LinearArg linear(std::initializer_list<Segment> segments, const float* x, std::uint32_t cols, NormRef norm,
                   Epilogue epilogue) const;
  void launch(LinearArg arg, std::uint32_t rows, Launcher& launcher) const;
  void launch_gemv(LinearArg arg, std::uint32_t rows, Launcher& launcher) const;
  void launch_gemm(const LinearArg& arg, std::uint32_t rows, Launcher& launcher) const;
  bool runs(const GateUpOp& op) const;
  const HopperAttention* kernels_for(const AttentionOp& op) const;  // nullptr: none
  // 2 .. 8 rows take the kernels whose input stands ready as halves.
  bool few(std::uint32_t rows) const { return rows > 1 && rows <= kGemvRows && !invariant(); }
  // Whether op `op` leaves its result as halves, which the next one multiplies, at passed_halves().
  bool passes_halves(std::size_t op) const;
  // A row's bits may not depend on how many there are: one kernel and one cut of the columns for any number,
  // and keys in one order.
  bool invariant() const { return in_.mode == Mode::invariant; }
  void attend_whole(const HopperAttention& kernels, hopper::AttentionTileArg a, const KvView& kv,
                    std::uint32_t rows, Launcher& launcher) const;
  void attend_split(const HopperAttention& kernels, hopper::AttentionTileArg a, const KvView& kv,
                    std::uint32_t rows, Launcher& launcher) const;
  DevicePtr input_halves() const { return in_.scratch + scratch_.input; }
  void* passed_halves() const { return pointer<void>(in_.scratch + scratch_.passed); }

  DeviceProgram in_;
  const HopperScratch scratch_;
  std::optional<hopper::StepKernel> step_;
};

// Biases are rare here: the general kernels add them.
bool Plan::runs(const GateUpOp& op) const {
  if (op.gate_bias != kNoWeight || op.up_bias != kNoWeight) return false;
  return covered(op.gate) && covered(op.up) &&
         in_.program->weights[op.gate].type == in_.program->weights[op.up].type;
}

const HopperAttention* Plan::kernels_for(const AttentionOp& op) const {
  const KvView& kv = in_.states[op.state];
  if (kv.head_dim_v != kv.head_dim_k || op.n_heads / kv.n_kv_heads > 16 ||
      kv.type != static_cast<int>(DType::F16))
    return nullptr;
  const auto* found = std::find_if(std::begin(kAttention), std::end(kAttention),
                                   [&](const HopperAttention& k) { return k.head_dim == kv.head_dim_k; });
  return found == std::end(kAttention) ? nullptr : found;
}

bool Plan::passes_halves(std::size_t op) const {
  const auto& ops = in_.program->ops;
  const auto* next = op + 1 < ops.size() ? std::get_if<ResidualLinearOp>(&ops[op + 1].body) : nullptr;
  if (!next || !covered(next->weight)) return false;
  if (const auto* gate_up = std::get_if<GateUpOp>(&ops[op].body))
    return gate_up->out == next->in && runs(*gate_up);
  if (const auto* attention = std::get_if<AttentionOp>(&ops[op].body))
    return attention->out == next->in && kernels_for(*attention);
  return false;
}

LinearArg Plan::linear(std::initializer_list<Segment> segments, const float* x, std::uint32_t cols,
                       NormRef norm, Epilogue epilogue) const {
  LinearArg a{};
  for (const Segment& s : segments) {
    a.segments[a.n_segments++] = s;
    a.groups += s.groups;
  }
  if (epilogue == Epilogue::gate_up) a.groups /= 2;
  a.epilogue = epilogue;
  a.x = x;
  a.cols = cols;
  a.norm = vector(norm.weight);
  a.eps = norm.eps;
  a.header = in_.step.header;
  return a;
}

// Shares a block's shared memory between the input's rows, partial sums and the rings.
void Plan::launch_gemv(LinearArg a, std::uint32_t rows, Launcher& launcher) const {
  const bool one = rows == 1;
  const std::uint32_t units = hopper::units_of(a.cols);
  a.max_rows = rows;
  if (!one && !a.x16) {
    a.x16 = pointer<void>(input_halves());
    KernelLaunch l{"gemv_input"};
    l.grid[0] = rows;
    l.grid[1] = a.norm ? 1 : ceil_div(units, 16);  // with a norm each share would need the whole row
    l.block[0] = hopper::kGemvWarps * 32;
    l.dependent = true;
    launcher(l, a);
  }
  const auto others = [&](std::uint32_t span) { return hopper::kGemvSharedBytes(rows, span, 0); };
  std::uint32_t largest = 0;
  for (int i = 0; i < a.n_segments; ++i) largest = std::max(largest, a.segments[i].unit_bytes);
  const std::uint32_t total = in_.gpu.shared_per_block,
                      wanted = hopper::kGemvWarps *
                               (one ? std::max(largest, 8192u) : std::max(2 * largest, 6144u));
  std::uint32_t phases = 1;
  while (phases < units && others(ceil_div(units, phases)) + wanted > total) ++phases;
  a.unit_span = ceil_div(units, phases);
  a.ring_bytes = (total - others(a.unit_span)) / hopper::kGemvWarps / 128 * 128;
  KernelLaunch l{one ? "gemv_1" : "gemv_8"};
  l.grid[0] = std::min(in_.gpu.sms, a.groups);
  l.block[0] = hopper::kGemvWarps * 32;
  l.shared_bytes = hopper::kGemvSharedBytes(rows, a.unit_span, a.ring_bytes);
  l.dependent = true;
  launcher(l, a);
}

// The kernels for more than 8 rows (hopper/gemm/gemm.cuh): rows of the step, warpgroups side by side and over
// the columns.
struct GemmKernel {
  const char* name;
  std::uint32_t rows, wide, deep, threads;
  std::uint32_t groups() const { return 4 * wide; }
};
constexpr GemmKernel kGemmKernels[] = {
    {"gemm_16_4", 16, 4, 1, 640}, {"gemm_16_2", 16, 2, 2, 640},   {"gemm_16_1", 16, 1, 4, 640},
    {"gemm_32_4", 32, 4, 1, 640}, {"gemm_32_2", 32, 2, 2, 640},   {"gemm_64_4", 64, 4, 1, 640},
    {"gemm_64_2", 64, 2, 2, 640}, {"gemm_128_4", 128, 4, 1, 640}, {"gemm_128_2", 128, 2, 1, 384}};

// One way to start a product with more than 8 rows.
struct GemmShape {
  const GemmKernel* kernel = nullptr;
  hopper::GemmArg arg{};
  std::uint32_t blocks = 0, shared_bytes = 0;
  double busy = 0;  // share of the multiprocessors' time with work
};

// Shares shared memory between the ring, headers of units and partial sums. False: too little for a ring.
bool place_ring(GemmShape& s, const LinearArg& a, std::uint32_t total) {
  const GemmKernel& k = *s.kernel;
  std::uint32_t chunk = 0, head = 0;
  for (int i = 0; i < a.n_segments; ++i) {
    chunk = std::max(chunk, a.segments[i].chunk_bytes);
    head = std::max(head, a.segments[i].unit_bytes - 4 * a.segments[i].chunk_bytes);
  }
  for (s.arg.stages = 24; s.arg.stages > 1; --s.arg.stages) {
    s.shared_bytes = hopper::place_ring(s.arg, k.rows, k.wide, k.deep, chunk, head);
    if (s.shared_bytes <= total) return true;
  }
  return false;
}

bool gemm_shape(GemmShape& s, const LinearArg& a, std::uint32_t rows, const GpuInfo& gpu) {
  const bool paired = a.epilogue == Epilogue::gate_up;
  s.arg.row_tiles = ceil_div(rows, s.kernel->rows);
  for (int i = 0; i < (paired ? 1 : a.n_segments); ++i)
    s.arg.tiles += s.arg.row_tiles * ceil_div(a.segments[i].groups, s.kernel->groups() / (paired ? 2 : 1));
  const std::uint32_t work = s.arg.tiles * s.arg.splits, rounds = ceil_div(work, gpu.sms);
  s.blocks = s.arg.splits > 1 ? work : ceil_div(work, rounds);
  s.busy = static_cast<double>(work) / (static_cast<double>(rounds) * gpu.sms);
  return place_ring(s, a, gpu.shared_per_block);
}

// How fast a kernel is beside the widest when both keep the GPU busy: fewer groups side by side read the
// input more often, and a cluster that shares columns adds up its results. The numbers are a guess; the
// choices that follow from them are those whose speeds docs/benchmarks.md gives of an H200.
double speed_of(const GemmShape& s) {
  const double width = s.kernel->wide == 4 ? 1.0 : s.kernel->wide == 2 ? 0.85 : 0.7;
  return width * (s.arg.splits > 1 ? 0.85 : 1.0);
}

// Of the kernels for `size` rows the widest, unless it leaves much more of the GPU idle; columns shared by a
// cluster of up to `most_splits` where that keeps more of it busy.
GemmShape best_shape(const LinearArg& a, std::uint32_t rows, std::uint32_t size, std::uint32_t most_splits,
                     const GpuInfo& gpu) {
  GemmShape best;
  double best_value = 0;
  for (const GemmKernel& k : kGemmKernels) {
    if (k.rows != size) continue;
    for (std::uint32_t splits = 1; splits <= most_splits; splits *= 2) {
      GemmShape s{&k};
      s.arg.splits = splits;
      if (!gemm_shape(s, a, rows, gpu)) continue;
      if (splits > 1 && (s.blocks > gpu.sms / splits * splits || a.cols / hopper::kChunkCols < 8 * splits))
        continue;
      const double value = s.busy * speed_of(s);
      if (value <= best_value) continue;
      best = s;
      best_value = value;
    }
  }
  return best;
}

GemmShape shape_for(const LinearArg& a, std::uint32_t rows, const GpuInfo& gpu) {
  return best_shape(a, rows, rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : 128, 8, gpu);
}
// The same kernel and splits for any number of rows: what suits one tile of them.
GemmShape invariant_shape(const LinearArg& a, std::uint32_t rows, const GpuInfo& gpu) {
  const GemmShape one = best_shape(a, hopper::kTileRows, hopper::kTileRows, 4, gpu);
  GemmShape s{one.kernel};
  s.arg.splits = one.arg.splits;
  gemm_shape(s, a, rows, gpu);
  return s;
}

void Plan::launch_gemm(const LinearArg& a, std::uint32_t rows, Launcher& launcher) const {
  const DevicePtr x16 = input_halves();
  GemmShape s = invariant() ? invariant_shape(a, rows, in_.gpu) : shape_for(a, rows, in_.gpu);
  KernelLaunch convert{"gemm_input"};
  convert.grid[0] = ceil_div(rows, 8);
  convert.grid[1] = std::min(std::max(512 / convert.grid[0], 1u), ceil_div(a.cols, 1024));
  convert.block[0] = 512;
  convert.dependent = true;
  launcher(convert, a, x16, s.kernel->rows);
  s.arg.x16 = pointer<const void>(x16);
  KernelLaunch l{s.kernel->name};
  l.grid[0] = s.blocks;
  l.block[0] = s.kernel->threads;
  l.cluster = s.arg.splits;
  l.shared_bytes = s.shared_bytes;
  l.dependent = true;
  launcher(l, a, s.arg);
}

void Plan::launch(LinearArg a, std::uint32_t rows, Launcher& launcher) const {
  if (rows <= kGemvRows && !invariant())
    launch_gemv(a, rows, launcher);
  else
    launch_gemm(a, rows, launcher);
}

bool Plan::run(const QkvOp& op, const Call& call) {
  if (!covered(op.q) || !covered(op.k) || !covered(op.v)) return false;
  launch(linear({segment(op.q, op.q_bias, buffer(op.q_out)), segment(op.k, op.k_bias, buffer(op.k_out)),
                 segment(op.v, op.v_bias, buffer(op.v_out))},
                buffer(op.in), width(op.in), op.norm, Epilogue::store),
         call.rows, call.launcher);
  return true;
}

bool Plan::run(const ResidualLinearOp& op, const Call& call) {
  if (!covered(op.weight)) return false;
  float* out = op.post_norm ? pointer<float>(in_.scratch + scratch_.branch) : buffer(op.out);
  const bool adds = !op.post_norm && op.residual != kNoBuffer;
  LinearArg a = linear({segment(op.weight, op.bias, out)}, buffer(op.in), width(op.in), NormRef{},
                       adds ? Epilogue::residual : Epilogue::store);
  if (adds) a.residual = buffer(op.residual);
  if (few(call.rows) && call.op > 0 && passes_halves(call.op - 1)) a.x16 = passed_halves();
  launch(a, call.rows, call.launcher);
  if (op.post_norm) enqueue_residual(in_, op, out, call.rows, call.launcher);
  return true;
}

bool Plan::run(const GateUpOp& op, const Call& call) {
  if (!runs(op)) return false;
  LinearArg a = linear({segment(op.gate, kNoWeight, buffer(op.out)), segment(op.up, kNoWeight, nullptr)},
                       buffer(op.in), width(op.in), op.norm, Epilogue::gate_up);
  a.gelu = op.activation == Activation::gelu_tanh;
  if (few(call.rows) && passes_halves(call.op)) a.y16 = passed_halves();
  launch(a, call.rows, call.launcher);
  return true;
}

// The general kernel, started early.
bool Plan::run(const RopeAppendOp& op, const Call& call) {
  enqueue_rope_append(in_, op, call.rows, true, call.launcher);
  return true;
}

bool Plan::run(const AttentionOp& op, const Call& call) {
  const HopperAttention* kernels = kernels_for(op);
  if (!kernels) return false;
  const KvView& kv = in_.states[op.state];
  hopper::AttentionTileArg a{};
  a.q = buffer(op.q);
  a.out = buffer(op.out);
  a.partials = pointer<float>(in_.scratch + scratch_.partials);
  a.sinks = vector(op.sinks);
  a.n_heads = op.n_heads;
  a.group = op.n_heads / kv.n_kv_heads;
  a.window = op.window;
  a.scale = op.scale;
  a.softcap = op.softcap;
  if (few(call.rows) && passes_halves(call.op)) a.x16 = passed_halves(), a.max_rows = call.rows;
  if (call.rows > hopper::kSplitRows || invariant())
    attend_whole(*kernels, a, kv, call.rows, call.launcher);
  else
    attend_split(*kernels, a, kv, call.rows, call.launcher);
  return true;
}

constexpr std::uint32_t kTileWarps = 4;  // of a block
KernelLaunch attention_launch(const char* kernel, std::uint32_t head_dim) {
  KernelLaunch l{kernel};
  l.block[0] = kTileWarps * 32;
  l.shared_bytes = kTileWarps * kPageTokens * (head_dim + 8) * 2;
  l.dependent = true;
  return l;
}

// A row's keys stay together. Which tiles are a prompt's depends on the rows beside them, so not in invariant
// mode.
void Plan::attend_whole(const HopperAttention& kernels, hopper::AttentionTileArg a, const KvView& kv,
                        std::uint32_t rows, Launcher& launcher) const {
  const std::uint32_t d = kernels.head_dim;
  if (!invariant()) {
    a.prefill_rows = hopper::kPrefillWarpgroups(d) * (64 / a.group);
    KernelLaunch l{kernels.prefill};
    l.block[0] = hopper::kPrefillWarpgroups(d) * 128;
    l.grid[0] = kv.n_kv_heads;
    l.grid[1] = ceil_div(rows, a.prefill_rows);
    l.shared_bytes = hopper::kPrefillSharedBytes(d);
    l.dependent = true;
    launcher(l, a, in_.step, kv);
  }
  KernelLaunch l = attention_launch(kernels.whole, d);
  l.grid[0] = ceil_div(ceil_div(rows, 16 / a.group), kTileWarps);
  l.grid[1] = kv.n_kv_heads;
  launcher(l, a, in_.step, kv);
}

void Plan::attend_split(const HopperAttention& kernels, hopper::AttentionTileArg a, const KvView& kv,
                        std::uint32_t rows, Launcher& launcher) const {
  a.workers = rows <= kGemvRows ? hopper::kWorkersFewRows : hopper::kWorkersManyRows;
  KernelLaunch l = attention_launch(kernels.split, kernels.head_dim);
  l.grid[0] = a.workers / kTileWarps;
  l.grid[1] = kv.n_kv_heads;
  l.grid[2] = rows;
  launcher(l, a, in_.step, kv);
  KernelLaunch c{kernels.combine};
  c.block[0] = kernels.head_dim;
  c.grid[0] = a.n_heads;
  c.grid[1] = rows;
  c.dependent = true;
  launcher(c, a, in_.step);
}

bool Plan::run(const HeadOp& op, const Call& call) {
  if (call.outputs == 0 || !covered(op.weight)) return false;
  enqueue_head_norm(in_, op, call.outputs, call.launcher);
  const float* x = pointer<const float>(in_.head_input);
  LinearArg a =
      linear({segment(op.weight, kNoWeight, buffer(op.logits))}, x, width(op.in), NormRef{}, Epilogue::store);
  a.outputs = 1;
  if (op.scale == 1.0f) a.softcap = op.softcap;
  launch(a, call.outputs, call.launcher);
  if (op.scale != 1.0f) enqueue_logits(in_, op, call.outputs, call.launcher);
  return true;
}

std::string Plan::report() const {
  std::string slow;
  for (const WeightSpec& w : in_.program->weights) {
    const bool experts = w.role == WeightRole::experts;
    if (w.is_vector() || w.role == WeightRole::embedding ||
        (!experts && has_repacked_layout(w.type, w.rows, w.cols)))
      continue;
    const std::string name(experts ? "experts" : dtype_info(w.type).name);
    if (slow.find(name) == std::string::npos) slow += (slow.empty() ? "" : ", ") + name;
  }
  const char* few = step_ ? "one kernel a step of one row" : "a kernel an op";
  if (slow.empty()) return std::string("Hopper kernels for every matrix; ") + few;
  return std::string("Hopper kernels; ") + few + "; general (slow) kernels for matrices of " + slow;
}

}  // namespace

std::unique_ptr<HopperPlan> make_hopper_plan(const DeviceProgram& input, CompileServices& services) {
  if (input.mode == Mode::exact || input.gpu.major != 9 || !services.has_kernel("gemv_1")) return nullptr;
  if (input.scratch_bytes < lay_out_scratch(*input.program, input.limits, input.mode).bytes) return nullptr;
  return std::make_unique<Plan>(input, services);
}

}  // namespace steelyard::cuda
