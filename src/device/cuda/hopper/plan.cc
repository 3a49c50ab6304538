// Which fast kernel takes which op, with which arguments.
#include <algorithm>
#include <array>
#include <optional>
#include <string>

#include "base/dtype.h"
#include "device/cuda/general/args.h"
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/fast.h"
#include "device/cuda/hopper/step/step.h"
#include "device/cuda/hopper/weights/format.h"
#include "program/program.h"

namespace steelyard::cuda {
namespace {

using fast::Epilogue;
using fast::kFewRows;
using fast::LinearArg;
using fast::Segment;

template <typename T>
T* pointer(DevicePtr address) {
  return reinterpret_cast<T*>(address);
}

constexpr std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) { return (a + b - 1) / b; }

struct AttentionKernels {
  std::uint32_t head_dim;
  const char *whole, *split, *combine, *prompt;
};
#define STEELYARD_KERNELS(D) \
  { D, "fast_attention_" #D, "fast_attention_split_" #D, "fast_attention_combine_" #D, "fast_prompt_" #D }
constexpr AttentionKernels kAttention[] = {STEELYARD_KERNELS(64), STEELYARD_KERNELS(128),
                                           STEELYARD_KERNELS(256)};
#undef STEELYARD_KERNELS

class Plan final : public FastPlan {
 public:
  Plan(const FastInput& input, CompileServices& services)
      : in_(input),
        step_(invariant() ? std::nullopt
                          : fast::StepKernel::make(
                                in_, in_.scratch + fast_step_offset(*in_.program, in_.limits), services)) {}

  bool enqueue_step(std::uint32_t rows, std::uint32_t, Launcher& launcher) override {
    if (!step_ || rows != 1) return false;
    step_->enqueue(launcher);
    return true;
  }
  bool enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) override {
    op_ = op;
    return std::visit([&](const auto& o) { return run(o, rows, outputs, launcher); },
                      in_.program->ops[op].body);
  }
  std::string report() const override;

 private:
  template <typename Op>
  bool run(const Op&, std::uint32_t, std::uint32_t, Launcher&) {
    return false;
  }
  bool run(const QkvOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher);
  bool run(const ResidualLinearOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher);
  bool run(const GateUpOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher);
  bool run(const RopeAppendOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher);
  bool run(const AttentionOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher);
  bool run(const HeadOp& op, std::uint32_t, std::uint32_t outputs, Launcher& launcher);

  float* buffer(BufferId id) const { return pointer<float>(in_.buffers[id]); }
  std::uint32_t width(BufferId id) const { return in_.program->buffers[id].width; }
  const float* vector(WeightId id) const {
    return id == kNoWeight ? nullptr : pointer<const float>(in_.weights[id]);
  }
  bool covered(WeightId id) const {
    const WeightSpec& w = in_.program->weights[id];
    return fast_has_layout(w.type, w.rows, w.cols);
  }
  Segment segment(WeightId weight, WeightId bias, float* out) const {
    return fast::make_segment(in_, weight, bias, out);
  }
  LinearArg linear(std::initializer_list<Segment> segments, const float* x, std::uint32_t cols, NormRef norm,
                   Epilogue epilogue) const;
  void launch(LinearArg arg, std::uint32_t rows, Launcher& launcher) const;
  void launch_few(LinearArg arg, std::uint32_t rows, Launcher& launcher) const;
  void launch_many(const LinearArg& arg, std::uint32_t rows, Launcher& launcher) const;
  bool runs(const GateUpOp& op) const;
  const AttentionKernels* kernels_for(const AttentionOp& op) const;  // nullptr: none
  // 2 .. 8 rows take the kernels whose input stands ready as halves.
  bool few(std::uint32_t rows) const { return rows > 1 && rows <= kFewRows && !invariant(); }
  // Whether op `op` leaves its result as halves, which the next one multiplies, at passed_halves().
  bool passes_halves(std::size_t op) const;
  // A row's bits may not depend on how many there are: one kernel and one cut of the columns for any number,
  // and keys in one order.
  bool invariant() const { return in_.mode == Mode::invariant; }
  void attend_whole(const AttentionKernels& kernels, fast::AttentionTileArg a, const KvView& kv,
                    std::uint32_t rows, Launcher& launcher) const;
  void attend_split(const AttentionKernels& kernels, fast::AttentionTileArg a, const KvView& kv,
                    std::uint32_t rows, Launcher& launcher) const;
  DevicePtr input_halves() const {
    return in_.scratch + fast_branch_bytes(*in_.program, in_.limits) +
           fast_partial_bytes(*in_.program, in_.limits);
  }
  // In the same part of the scratch, which has room for kTileRows rows of the widest input.
  void* passed_halves() const {
    return pointer<void>(input_halves() + fast::kFewInputBytes(fast_input_units(*in_.program), kFewRows));
  }
  RowsArg all_rows() const { return {in_.step.header, 0}; }

  FastInput in_;
  std::optional<fast::StepKernel> step_;
  std::size_t op_ = 0;  // the one under way
};

bool Plan::runs(const GateUpOp& op) const {
  return covered(op.gate) && covered(op.up) &&
         in_.program->weights[op.gate].type == in_.program->weights[op.up].type;
}

const AttentionKernels* Plan::kernels_for(const AttentionOp& op) const {
  const KvView& kv = in_.states[op.state];
  if (kv.head_dim_v != kv.head_dim_k || op.n_heads / kv.n_kv_heads > 16 ||
      kv.type != static_cast<int>(DType::F16))
    return nullptr;
  const auto* found = std::find_if(std::begin(kAttention), std::end(kAttention),
                                   [&](const AttentionKernels& k) { return k.head_dim == kv.head_dim_k; });
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
void Plan::launch_few(LinearArg a, std::uint32_t rows, Launcher& launcher) const {
  const bool one = rows == 1;
  const std::uint32_t units = fast::units_of(a.cols);
  a.max_rows = rows;
  if (!one && !a.x16) {
    a.x16 = pointer<void>(input_halves());
    KernelLaunch l{"fast_few_input"};
    l.grid[0] = rows;
    l.grid[1] = a.norm ? 1 : ceil_div(units, 16);  // with a norm each share would need the whole row
    l.block[0] = fast::kLinearWarps * 32;
    l.dependent = true;
    launcher(l, a);
  }
  const auto others = [&](std::uint32_t span) { return fast::kLinearSharedBytes(rows, span, 0); };
  std::uint32_t largest = 0;
  for (int i = 0; i < a.n_segments; ++i) largest = std::max(largest, a.segments[i].unit_bytes);
  const std::uint32_t total = in_.gpu.shared_per_block,
                      wanted = fast::kLinearWarps *
                               (one ? std::max(largest, 8192u) : std::max(2 * largest, 6144u));
  std::uint32_t phases = 1;
  while (phases < units && others(ceil_div(units, phases)) + wanted > total) ++phases;
  a.unit_span = ceil_div(units, phases);
  a.ring_bytes = (total - others(a.unit_span)) / fast::kLinearWarps / 128 * 128;
  KernelLaunch l{one ? "fast_linear_1" : "fast_linear_8"};
  l.grid[0] = std::min(in_.gpu.sms, a.groups);
  l.block[0] = fast::kLinearWarps * 32;
  l.shared_bytes = fast::kLinearSharedBytes(rows, a.unit_span, a.ring_bytes);
  l.dependent = true;
  launcher(l, a);
}

// The kernels for many rows (hopper/gemm/gemm.cuh): rows of the step, warpgroups side by side and over the
// columns.
struct ManyKernel {
  const char* name;
  std::uint32_t rows, wide, deep, threads;
  std::uint32_t groups() const { return 4 * wide; }
};
constexpr ManyKernel kManyKernels[] = {
    {"fast_rows_16_4", 16, 4, 1, 640},  {"fast_rows_16_2", 16, 2, 2, 640},
    {"fast_rows_16_1", 16, 1, 4, 640},  {"fast_rows_32_4", 32, 4, 1, 640},
    {"fast_rows_32_2", 32, 2, 2, 640},  {"fast_rows_64_4", 64, 4, 1, 640},
    {"fast_rows_64_2", 64, 2, 2, 640},  {"fast_rows_128_4", 128, 4, 1, 640},
    {"fast_rows_128_2", 128, 2, 1, 384}};

// One way to start a product with many rows.
struct ManyShape {
  const ManyKernel* kernel = nullptr;
  fast::ManyArg arg{};
  std::uint32_t blocks = 0, shared_bytes = 0;
  double busy = 0;  // share of the multiprocessors' time with work
};

// Shares shared memory between the ring, headers of units and partial sums. False: too little for a ring.
bool place_ring(ManyShape& s, const LinearArg& a, std::uint32_t total) {
  const ManyKernel& k = *s.kernel;
  std::uint32_t chunk = 0, head = 0;
  for (int i = 0; i < a.n_segments; ++i) {
    chunk = std::max(chunk, a.segments[i].chunk_bytes);
    head = std::max(head, a.segments[i].unit_bytes - 4 * a.segments[i].chunk_bytes);
  }
  for (s.arg.stages = 24; s.arg.stages > 1; --s.arg.stages) {
    s.shared_bytes = fast::place_ring(s.arg, k.rows, k.wide, k.deep, chunk, head);
    if (s.shared_bytes <= total) return true;
  }
  return false;
}

bool many_shape(ManyShape& s, const LinearArg& a, std::uint32_t rows, const GpuInfo& gpu) {
  const bool paired = a.epilogue == Epilogue::gate_up;
  s.arg.row_tiles = ceil_div(rows, s.kernel->rows);
  for (int i = 0; i < (paired ? 1 : a.n_segments); ++i)
    s.arg.tiles += s.arg.row_tiles * ceil_div(a.segments[i].groups, s.kernel->groups() / (paired ? 2 : 1));
  const std::uint32_t work = s.arg.tiles * s.arg.splits, rounds = ceil_div(work, gpu.sms);
  s.blocks = s.arg.splits > 1 ? work : ceil_div(work, rounds);
  s.busy = static_cast<double>(work) / (static_cast<double>(rounds) * gpu.sms);
  return place_ring(s, a, gpu.shared_per_block);
}

// Of the kernels for `size` rows the widest, unless it leaves much more of the GPU idle; columns shared by a
// cluster of up to `most_splits` where that keeps more of it busy.
ManyShape best_shape(const LinearArg& a, std::uint32_t rows, std::uint32_t size, std::uint32_t most_splits,
                     const GpuInfo& gpu) {
  ManyShape best;
  double best_value = 0;
  for (const ManyKernel& k : kManyKernels) {
    if (k.rows != size) continue;
    for (std::uint32_t splits = 1; splits <= most_splits; splits *= 2) {
      ManyShape s{&k};
      s.arg.splits = splits;
      if (!many_shape(s, a, rows, gpu)) continue;
      if (splits > 1 && (s.blocks > gpu.sms / splits * splits || a.cols / fast::kChunkCols < 8 * splits))
        continue;
      const double value = s.busy * (splits > 1 ? 0.85 : 1.0) *
                           (k.wide == 4   ? 1.0
                            : k.wide == 2 ? 0.85
                                          : 0.7);
      if (value <= best_value) continue;
      best = s;
      best_value = value;
    }
  }
  return best;
}

ManyShape shape_for(const LinearArg& a, std::uint32_t rows, const GpuInfo& gpu) {
  return best_shape(a, rows, rows <= 16 ? 16 : rows <= 32 ? 32 : rows <= 64 ? 64 : 128, 8, gpu);
}
// The same kernel and splits for any number of rows: what suits one tile of them.
ManyShape invariant_shape(const LinearArg& a, std::uint32_t rows, const GpuInfo& gpu) {
  const ManyShape one = best_shape(a, fast::kTileRows, fast::kTileRows, 4, gpu);
  ManyShape s{one.kernel};
  s.arg.splits = one.arg.splits;
  many_shape(s, a, rows, gpu);
  return s;
}

void Plan::launch_many(const LinearArg& a, std::uint32_t rows, Launcher& launcher) const {
  const DevicePtr x16 = input_halves();
  ManyShape s = invariant() ? invariant_shape(a, rows, in_.gpu) : shape_for(a, rows, in_.gpu);
  KernelLaunch convert{"fast_convert"};
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
  if (rows <= kFewRows && !invariant())
    launch_few(a, rows, launcher);
  else
    launch_many(a, rows, launcher);
}

bool Plan::run(const QkvOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher) {
  if (!covered(op.q) || !covered(op.k) || !covered(op.v)) return false;
  launch(linear({segment(op.q, op.q_bias, buffer(op.q_out)), segment(op.k, op.k_bias, buffer(op.k_out)),
                 segment(op.v, op.v_bias, buffer(op.v_out))},
                buffer(op.in), width(op.in), op.norm, Epilogue::store),
         rows, launcher);
  return true;
}

bool Plan::run(const ResidualLinearOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher) {
  if (!covered(op.weight)) return false;
  float* out = op.post_norm ? pointer<float>(in_.scratch) : buffer(op.out);
  LinearArg a = linear({segment(op.weight, op.bias, out)}, buffer(op.in), width(op.in), NormRef{},
                       op.post_norm ? Epilogue::store : Epilogue::residual);
  a.residual = buffer(op.residual);
  if (few(rows) && op_ > 0 && passes_halves(op_ - 1)) a.x16 = passed_halves();
  launch(a, rows, launcher);
  if (op.post_norm) {
    KernelLaunch l{"general_residual"};
    l.grid[0] = rows;
    l.block[0] = 256;
    launcher(l, static_cast<const float*>(out), vector(op.post_norm.weight), op.post_norm.eps,
             static_cast<const float*>(buffer(op.residual)), width(op.out), buffer(op.out), all_rows());
  }
  return true;
}

bool Plan::run(const GateUpOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher) {
  if (!runs(op)) return false;
  LinearArg a = linear({segment(op.gate, kNoWeight, buffer(op.out)), segment(op.up, kNoWeight, nullptr)},
                       buffer(op.in), width(op.in), op.norm, Epilogue::gate_up);
  a.gelu = op.activation == Activation::gelu_tanh;
  if (few(rows) && passes_halves(op_)) a.y16 = passed_halves();
  launch(a, rows, launcher);
  return true;
}

// The general kernel, started early.
bool Plan::run(const RopeAppendOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher) {
  const KvView& kv = in_.states[op.state];
  RopeArg rope{};
  if (op.rope >= 0) {
    const RopeSpec& spec = in_.program->ropes[op.rope];
    rope = {pointer<float>(in_.ropes[op.rope]), spec.pairs == RopeSpec::Pairs::halves, spec.n_rot};
  }
  KernelLaunch l{"general_rope_append"};
  l.grid[0] = rows;
  l.grid[1] = ceil_div(op.n_heads + kv.n_kv_heads, kRopeWarps);
  l.block[0] = kRopeWarps * 32;
  l.shared_bytes = kRopeWarps * std::max(kv.head_dim_k, kv.head_dim_v) * sizeof(float);
  l.dependent = true;
  launcher(l, in_.step, kv, buffer(op.q), static_cast<const float*>(buffer(op.k)),
           static_cast<const float*>(buffer(op.v)), op.n_heads, vector(op.q_norm.weight), op.q_norm.eps,
           vector(op.k_norm.weight), op.k_norm.eps, rope);
  return true;
}

bool Plan::run(const AttentionOp& op, std::uint32_t rows, std::uint32_t, Launcher& launcher) {
  const AttentionKernels* kernels = kernels_for(op);
  if (!kernels) return false;
  const KvView& kv = in_.states[op.state];
  fast::AttentionTileArg a{};
  a.q = buffer(op.q);
  a.out = buffer(op.out);
  a.partials = pointer<float>(in_.scratch + fast_branch_bytes(*in_.program, in_.limits));
  a.sinks = vector(op.sinks);
  a.n_heads = op.n_heads;
  a.group = op.n_heads / kv.n_kv_heads;
  a.window = op.window;
  a.scale = op.scale;
  a.softcap = op.softcap;
  if (few(rows) && passes_halves(op_)) a.x16 = passed_halves(), a.max_rows = rows;
  if (rows > fast::kSplitRows || invariant())
    attend_whole(*kernels, a, kv, rows, launcher);
  else
    attend_split(*kernels, a, kv, rows, launcher);
  return true;
}

constexpr std::uint32_t kAttentionWarps = 4;
KernelLaunch attention_launch(const char* kernel, std::uint32_t head_dim) {
  KernelLaunch l{kernel};
  l.block[0] = kAttentionWarps * 32;
  l.shared_bytes = kAttentionWarps * kPageTokens * (head_dim + 8) * 2;
  l.dependent = true;
  return l;
}

// A row's keys stay together. Which tiles are a prompt's depends on the rows beside them, so not in invariant
// mode.
void Plan::attend_whole(const AttentionKernels& kernels, fast::AttentionTileArg a, const KvView& kv,
                        std::uint32_t rows, Launcher& launcher) const {
  const std::uint32_t d = kernels.head_dim;
  if (!invariant()) {
    a.prompt_rows = fast::kPromptGroups(d) * (64 / a.group);
    KernelLaunch l{kernels.prompt};
    l.block[0] = fast::kPromptGroups(d) * 128;
    l.grid[0] = kv.n_kv_heads;
    l.grid[1] = ceil_div(rows, a.prompt_rows);
    l.shared_bytes = fast::kPromptSharedBytes(d);
    l.dependent = true;
    launcher(l, a, in_.step, kv);
  }
  KernelLaunch l = attention_launch(kernels.whole, d);
  l.grid[0] = ceil_div(ceil_div(rows, 16 / a.group), kAttentionWarps);
  l.grid[1] = kv.n_kv_heads;
  launcher(l, a, in_.step, kv);
}

void Plan::attend_split(const AttentionKernels& kernels, fast::AttentionTileArg a, const KvView& kv,
                        std::uint32_t rows, Launcher& launcher) const {
  a.workers = rows <= kFewRows ? fast::kWorkersFewRows : fast::kWorkersManyRows;
  KernelLaunch l = attention_launch(kernels.split, kernels.head_dim);
  l.grid[0] = a.workers / kAttentionWarps;
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

bool Plan::run(const HeadOp& op, std::uint32_t, std::uint32_t outputs, Launcher& launcher) {
  if (outputs == 0 || !covered(op.weight)) return false;
  KernelLaunch l{"general_norm"};
  l.grid[0] = outputs;
  l.block[0] = 256;
  float* x = pointer<float>(in_.head_input);
  launcher(l, static_cast<const float*>(buffer(op.in)), vector(op.norm.weight), op.norm.eps, width(op.in), x,
           RowsArg{in_.step.header, 1}, in_.step.outputs);
  LinearArg a =
      linear({segment(op.weight, kNoWeight, buffer(op.logits))}, x, width(op.in), NormRef{}, Epilogue::store);
  a.outputs = 1;
  a.softcap = op.softcap;
  launch(a, outputs, launcher);
  return true;
}

std::string Plan::report() const {
  std::string slow;
  for (const WeightSpec& w : in_.program->weights) {
    const std::string name(dtype_info(w.type).name);
    if (w.is_vector() || w.role == WeightRole::embedding || fast_has_layout(w.type, w.rows, w.cols)) continue;
    if (slow.find(name) == std::string::npos) slow += (slow.empty() ? "" : ", ") + name;
  }
  const char* few = step_ ? "one kernel a step of one row" : "a kernel an op";
  if (slow.empty()) return std::string("Hopper kernels for every matrix; ") + few;
  return std::string("Hopper kernels; ") + few + "; general (slow) kernels for matrices of " + slow;
}

}  // namespace

std::unique_ptr<FastPlan> make_fast_plan(const FastInput& input, CompileServices& services) {
  if (input.mode == Mode::exact || input.gpu.major != 9 || !services.has_kernel("fast_linear_1"))
    return nullptr;
  if (input.scratch_bytes < fast_scratch_bytes(*input.program, input.limits, input.mode)) return nullptr;
  return std::make_unique<Plan>(input, services);
}

void enqueue_repack(Launcher& launcher, DType type, std::uint32_t rows, std::uint32_t cols,
                    std::uint32_t row_begin, std::uint32_t row_end, DevicePtr raw, DevicePtr matrix) {
  const std::uint64_t groups = (row_end - row_begin + fast::kGroupRows - 1) / fast::kGroupRows;
  const std::uint64_t threads = groups * (cols / fast::kChunkCols) * 32;
  KernelLaunch l{"fast_repack"};
  l.block[0] = 256;
  l.grid[0] = static_cast<std::uint32_t>(std::min<std::uint64_t>((threads + 255) / 256, 1 << 16));
  if (threads != 0) launcher(l, static_cast<int>(type), rows, cols, row_begin, row_end, raw, matrix);
}

}  // namespace steelyard::cuda
