#include "device/cuda/general/general.h"

#include <algorithm>
#include <limits>

#include "base/error.h"
#include "device/link.h"
#include "program/program.h"

namespace steelyard::cuda {
namespace {

KernelLaunch grid(const char* kernel, std::uint32_t threads, std::uint32_t x, std::uint32_t y = 1,
                  std::uint32_t z = 1) {
  KernelLaunch l{kernel};
  l.grid[0] = x, l.grid[1] = y, l.grid[2] = z;
  l.block[0] = threads;
  return l;
}

struct GeneralAttention {
  std::uint32_t dim;
  const char *whole, *split, *combine;
};
constexpr GeneralAttention kAttention[] = {
    {64, "general_attention_64", "general_attention_split_64", "general_attention_combine_64"},
    {128, "general_attention_128", "general_attention_split_128", "general_attention_combine_128"},
    {256, "general_attention_256", "general_attention_split_256", "general_attention_combine_256"},
    {512, "general_attention_512", "general_attention_split_512", "general_attention_combine_512"}};

const GeneralAttention& attention_kernels(std::uint32_t dim) {
  for (const auto& k : kAttention)
    if (dim <= k.dim) return k;
  throw_error(ErrorKind::unsupported, "CUDA: attention heads of {} elements are too wide, 512 is the most",
              dim);
}

}  // namespace

void enqueue_rope_append(const DeviceProgram& in, const RopeAppendOp& op, std::uint32_t rows, bool dependent,
                         Launcher& launcher) {
  const KvView& kv = in.states[op.state];
  RopeArg rope{};
  if (op.rope >= 0) {
    const RopeSpec& spec = in.program->ropes[op.rope];
    rope = {pointer<float>(in.ropes[op.rope]), spec.pairs == RopeSpec::Pairs::halves, spec.n_rot};
  }
  KernelLaunch l =
      grid("general_rope_append", kRopeWarps * 32, rows, ceil_div(op.n_heads + kv.n_kv_heads, kRopeWarps));
  l.shared_bytes = kRopeWarps * std::max(kv.head_dim_k, kv.head_dim_v) * sizeof(float);
  l.dependent = dependent;
  launcher(l, in.step, kv, in.buffer(op.q), static_cast<const float*>(in.buffer(op.k)),
           static_cast<const float*>(in.buffer(op.v)), op.n_heads, in.vector(op.q_norm.weight), op.q_norm.eps,
           in.vector(op.k_norm.weight), op.k_norm.eps, rope, op.q_growth, op.q_growth_from);
}

void enqueue_residual(const DeviceProgram& in, const ResidualLinearOp& op, const float* branch,
                      std::uint32_t rows, Launcher& launcher) {
  launcher(grid("general_residual", 256, rows), branch, in.vector(op.post_norm.weight), op.post_norm.eps,
           static_cast<const float*>(in.buffer(op.residual)), in.width(op.out), in.buffer(op.out),
           RowsArg{in.step.header, 0});
}

void enqueue_head_norm(const DeviceProgram& in, const HeadOp& op, std::uint32_t outputs, Launcher& launcher) {
  launcher(grid("general_norm", 256, outputs), static_cast<const float*>(in.buffer(op.in)),
           in.vector(op.norm.weight), op.norm.eps, in.width(op.in), pointer<float>(in.head_input),
           RowsArg{in.step.header, 1}, in.step.outputs);
}

void enqueue_logits(const DeviceProgram& in, const HeadOp& op, std::uint32_t outputs, Launcher& launcher) {
  if (op.scale == 1.0f && op.softcap == 0.0f) return;
  launcher(grid("general_softcap", 256, ceil_div(in.width(op.logits), 256), outputs), in.buffer(op.logits),
           in.width(op.logits), op.scale, op.softcap, RowsArg{in.step.header, 1});
}

static_assert(kMostRouted == kMostExperts && kMostChosen == kMostUsedExperts);
static_assert(kScoringSoftmax == static_cast<int>(Scoring::softmax) &&
              kScoringChosen == static_cast<int>(Scoring::softmax_of_chosen) &&
              kScoringSigmoid == static_cast<int>(Scoring::sigmoid));

struct GeneralPath::Call {
  const GeneralPath& path;
  const DeviceProgram& in;
  const Workspace& space;
  Launcher& launcher;
  std::uint32_t rows, outputs;

  float* buffer(BufferId id) const { return in.buffer(id); }
  std::uint32_t width(BufferId id) const { return in.width(id); }
  float* at(std::uint64_t offset) const { return pointer<float>(path.base_ + offset); }
  const float* vector(WeightId id) const { return in.vector(id); }
  RowsArg all() const { return {in.step.header, 0}; }
  RowsArg wanted() const { return {in.step.header, 1}; }

  const float* norm(const float* x, const NormRef& n, std::uint32_t cols) const {
    if (!n) return x;
    float* y = at(space.normed);
    launcher(grid("general_norm", 256, rows), x, vector(n.weight), n.eps, cols, y, all(),
             static_cast<const DeviceOutput*>(nullptr));
    return y;
  }

  // The tile kernel adds in another order than the other: a row's bits would depend on how many rows there
  // are.
  void product(const MatrixArg& w, const float* x, const float* bias, float* y, std::uint32_t n,
               RowsArg count) const {
    const bool tile = in.mode == Mode::fast && n > 16;
    if (tile)
      launcher(grid("general_matmul_tile", 256, ceil_div(w.rows, 64), ceil_div(n, 64)), w, x, bias, y, count);
    else
      launcher(grid("general_matmul", 256, ceil_div(w.rows, 8), ceil_div(n, 8)), w, x, bias, y, count);
  }

  void operator()(const EmbedOp& op) const {
    const WeightSpec& table = in.program->weights[op.table];
    const float outside =
        table.rows < in.program->vocab_size ? 0.0f : std::numeric_limits<float>::quiet_NaN();
    launcher(grid("general_embed", 256, rows), path.matrices_[op.table], in.step, op.scale, table.first_row,
             outside, buffer(op.out));
  }

  void operator()(const QkvOp& op) const {
    const float* x = norm(buffer(op.in), op.norm, width(op.in));
    product(path.matrices_[op.q], x, vector(op.q_bias), buffer(op.q_out), rows, all());
    product(path.matrices_[op.k], x, vector(op.k_bias), buffer(op.k_out), rows, all());
    product(path.matrices_[op.v], x, vector(op.v_bias), buffer(op.v_out), rows, all());
  }

  void operator()(const RopeAppendOp& op) const { enqueue_rope_append(in, op, rows, false, launcher); }

  void operator()(const AttentionOp& op) const {
    const KvView& kv = in.states[op.state];
    const GeneralAttention& kernels = attention_kernels(std::max(kv.head_dim_k, kv.head_dim_v));
    const AttentionArg arg{buffer(op.q), buffer(op.out), at(space.partials), vector(op.sinks),
                           op.n_heads,   op.window,      op.scale,           op.softcap};
    if (rows <= space.split_rows) {
      launcher(
          grid(kernels.split, kAttentionWarps * 32, op.n_heads, rows, kAttentionWorkers / kAttentionWarps),
          arg, in.step, kv);
      launcher(grid(kernels.combine, 32, op.n_heads, rows), arg, in.step, kv);
      return;
    }
    KernelLaunch l = grid(kernels.whole, kAttentionWarps * 32, op.n_heads, rows);
    l.shared_bytes = kAttentionWorkers * (kv.head_dim_v + 2) * sizeof(float);
    launcher(l, arg, in.step, kv);
  }

  void operator()(const ResidualLinearOp& op) const {
    if (op.residual == kNoBuffer)
      return product(path.matrices_[op.weight], buffer(op.in), vector(op.bias), buffer(op.out), rows, all());
    float* branch = at(space.branch);
    product(path.matrices_[op.weight], buffer(op.in), vector(op.bias), branch, rows, all());
    enqueue_residual(in, op, branch, rows, launcher);
  }

  void operator()(const GateUpOp& op) const {
    const float* x = norm(buffer(op.in), op.norm, width(op.in));
    float *gate = at(space.branch), *up = buffer(op.out);
    product(path.matrices_[op.gate], x, vector(op.gate_bias), gate, rows, all());
    product(path.matrices_[op.up], x, vector(op.up_bias), up, rows, all());
    launcher(grid("general_activation", 256, ceil_div(width(op.out), 256), rows),
             static_cast<const float*>(gate), static_cast<const float*>(up), width(op.out),
             static_cast<std::int32_t>(op.activation == Activation::gelu_tanh), up, all());
  }

  void operator()(const ExpertsOp& op) const {
    const Routing& r = op.routing;
    const float* x = norm(buffer(op.in), op.norm, width(op.in));
    product(path.matrices_[op.router], x, vector(op.router_bias), at(space.experts.scores), rows, all());
    RouteArg route{at(space.experts.scores), vector(op.choice_bias), words(space.experts.chosen),
                   at(space.experts.weights)};
    route.scoring = static_cast<std::int32_t>(r.scoring), route.renormalise = r.renormalise;
    route.n_experts = r.n_experts, route.n_used = r.n_used, route.scale = r.scale;
    route.n_groups = r.n_groups, route.n_groups_used = r.n_groups_used;
    launcher(grid("general_route", 32, rows), route, all());
    experts(experts_arg(op, x));
  }
  std::uint32_t* words(std::uint64_t offset) const { return pointer<std::uint32_t>(path.base_ + offset); }
  ExpertsArg experts_arg(const ExpertsOp& op, const float* x) const {
    const ExpertsSpace& s = space.experts;
    ExpertsArg a{path.matrices_[op.gate], path.matrices_[op.up], path.matrices_[op.down]};
    a.gate_bias = vector(op.gate_bias), a.up_bias = vector(op.up_bias), a.down_bias = vector(op.down_bias);
    a.x = x, a.chosen = words(s.chosen), a.weights = at(s.weights);
    a.inner = at(s.inner), a.branch = at(s.branch);
    a.order = words(s.order), a.first_entry = words(s.first_entry), a.first_tile = words(s.first_tile);
    a.residual = buffer(op.residual), a.out = buffer(op.out);
    a.n_experts = op.routing.n_experts, a.n_used = op.routing.n_used;
    a.n_ff = a.down.cols, a.width = width(op.out);
    a.activation = static_cast<std::int32_t>(op.activation);
    return a;
  }
  // Tiles, which read an expert's weights once for its rows, where enough of those share it.
  void experts(const ExpertsArg& a) const {
    const std::uint32_t entries = rows * a.n_used;
    if (in.mode != Mode::fast || rows <= 16 || entries < 2 * a.n_experts) {
      launcher(grid("general_experts_gate_up", 256, ceil_div(a.n_ff, 8), entries), a, all());
      launcher(grid("general_experts_down", 256, ceil_div(a.width, 8), rows), a, all());
      return;
    }
    const std::uint32_t tiles = ceil_div(entries, 64) + std::min(a.n_experts, entries);
    launcher(grid("general_experts_list", 256, 1), a, all());
    KernelLaunch up = grid("general_experts_gate_up_tile", 256, ceil_div(a.n_ff, 64), tiles),
                 down = grid("general_experts_down_tile", 256, ceil_div(a.width, 64), tiles);
    up.shared_bytes = down.shared_bytes = kExpertsTileBytes;
    launcher(up, a);
    launcher(down, a);
    launcher(grid("general_experts_add", 256, ceil_div(a.width, 256), rows), a, all());
  }

  void operator()(const HeadOp& op) const {
    if (outputs == 0) return;
    float* x = pointer<float>(in.head_input);
    enqueue_head_norm(in, op, outputs, launcher);
    product(path.matrices_[op.weight], x, nullptr, buffer(op.logits), outputs, wanted());
    enqueue_logits(in, op, outputs, launcher);
  }

  void operator()(const SampleOp& op) const {
    if (outputs == 0) return;
    SampleArg arg = path.sample_;
    arg.logits = buffer(op.logits);
    launcher(grid("general_sample", kSampleThreads, outputs), in.step, arg);
  }

  void operator()(const ReceiveOp&) const {}  // the queue does it (host/part_links.h)
  void operator()(const SendOp&) const {}

  static_assert(kExchangeColumns == kChunkColumns);
  void give(const ExchangeArg& e, BufferId from, std::uint32_t first, std::uint32_t stride, std::uint32_t n,
            RowsArg count) const {
    launcher(grid("general_give", kExchangeThreads, n, e.chunks), e, static_cast<const float*>(buffer(from)),
             width(from), first, stride, count);
  }
  void operator()(const SumOp& op) const {
    ExchangeArg e = in.exchanges[op.link];
    e.turn = op.turn;
    give(e, op.in, 0, width(op.in), rows, all());
    const float* residual = op.residual == kNoBuffer ? nullptr : buffer(op.residual);
    launcher(grid("general_sum", kExchangeThreads, rows), e, buffer(op.in), vector(op.bias),
             vector(op.post_norm.weight), op.post_norm.eps, residual, width(op.in), buffer(op.out), all());
  }
  void operator()(const GatherOp& op) const {
    if (outputs == 0) return;
    const ExchangeArg& e = in.exchanges[op.link];
    const std::uint32_t vocab = in.program->vocab_size;
    give(e, op.in, op.first_col, vocab, outputs, wanted());
    if (op.out != kNoBuffer)
      launcher(grid("general_take", kExchangeThreads, outputs, e.chunks), e, vocab, buffer(op.out), wanted());
  }
};

GeneralPath::GeneralPath(const DeviceProgram& input, const Workspace& space, DevicePtr workspace)
    : in_(input), space_(space), base_(workspace) {
  const Program& p = *in_.program;
  for (std::size_t i = 0; i < p.weights.size(); ++i) {
    const WeightSpec& w = p.weights[i];
    matrices_.push_back({pointer<std::uint8_t>(in_.weights[i]), static_cast<std::int32_t>(w.type), w.rows,
                         w.cols, static_cast<std::uint32_t>(row_bytes(w.type, w.cols)),
                         is_repacked(w, in_.mode)});
  }
  sample_.counts = pointer<std::uint32_t>(base_ + space.counts);
  sample_.history = pointer<std::int32_t>(base_ + space.history);
  sample_.last_sample = pointer<std::int32_t>(base_ + space.last_sample);
  sample_.sampled = pointer<std::int32_t>(base_ + space.sampled);
  sample_.vocab = p.vocab_size;
  sample_.context = in_.limits.context;
}

void GeneralPath::enqueue_begin(std::uint32_t rows, Launcher& launcher) const {
  const TokensArg tokens{pointer<std::int32_t>(base_ + space_.step + space_.tokens), sample_.history,
                         sample_.last_sample, sample_.context};
  launcher(grid("general_tokens", 256, ceil_div(rows, 256)), in_.step, tokens);
  for (std::size_t i = 0; i < in_.program->ropes.size(); ++i) {
    const RopeSpec& r = in_.program->ropes[i];
    const RopeArg arg{pointer<float>(in_.ropes[i]), r.pairs == RopeSpec::Pairs::halves, r.n_rot};
    const auto* factors = r.factors == kNoWeight ? nullptr : pointer<const float>(in_.weights[r.factors]);
    launcher(grid("general_rope_table", 256, rows), in_.step, arg, r.base, r.freq_scale, r.ramp_begin,
             r.ramp_end, r.magnitude, factors);
  }
}

void GeneralPath::enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs,
                             Launcher& launcher) const {
  std::visit(Call{*this, in_, space_, launcher, rows, outputs}, in_.program->ops[op].body);
}

}  // namespace steelyard::cuda
