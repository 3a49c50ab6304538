#include "device/cuda/host/workspace.h"

#include <algorithm>

#include "base/dtype.h"
#include "device/carver.h"
#include "device/cuda/general/args.h"
#include "device/cuda/hopper/weights/layout.h"
#include "device/step.h"
#include "program/uses.h"

namespace steelyard::cuda {
namespace {

// Widths that the general kernels' scratch must hold, over all ops.
struct Widths {
  std::uint32_t normed = 0, branch = 0;
  std::uint64_t partials = 0;  // floats a row
};

// Whose widths an op's kernels need: of the input they leave normed, and of products before their epilogue.
struct Needs {
  BufferId normed = kNoBuffer, branch = kNoBuffer;
};
Needs needs_of(const Op& op) {
  return std::visit(Overloaded{
                        [](const EmbedOp&) { return Needs{}; },
                        [](const QkvOp& o) { return Needs{.normed = o.in}; },
                        [](const RopeAppendOp&) { return Needs{}; },
                        [](const AttentionOp&) { return Needs{}; },
                        [](const ResidualLinearOp& o) { return Needs{.branch = o.out}; },
                        [](const GateUpOp& o) { return Needs{.normed = o.in, .branch = o.out}; },
                        [](const ExpertsOp& o) { return Needs{.normed = o.in}; },  // and experts_space()
                        [](const HeadOp&) { return Needs{}; },  // has a place of its own, for outputs only
                        [](const SampleOp&) { return Needs{}; },
                        [](const ReceiveOp&) { return Needs{}; },
                        [](const SendOp&) { return Needs{}; },
                        [](const SumOp&) { return Needs{}; },
                        [](const GatherOp&) { return Needs{}; },
                    },
                    op.body);
}

Widths find_widths(const Program& p) {
  Widths w;
  for (const Op& op : p.ops) {
    const Needs needs = needs_of(op);
    if (needs.normed != kNoBuffer) w.normed = std::max(w.normed, p.buffers[needs.normed].width);
    if (needs.branch != kNoBuffer) w.branch = std::max(w.branch, p.buffers[needs.branch].width);
    if (const auto a = attends(op))
      w.partials = std::max(
          w.partials, std::uint64_t{a->n_heads} * kAttentionWorkers * (p.states[a->state].head_dim_v + 2));
  }
  return w;
}

// Sizes in bytes.
ExpertsSpace experts_space(const Program& p, std::uint64_t rows, Mode mode) {
  ExpertsSpace s;
  const auto most = [](std::uint64_t& size, std::uint64_t words) { size = std::max(size, words * 4); };
  for (const Op& op : p.ops) {
    const auto* o = std::get_if<ExpertsOp>(&op.body);
    if (!o) continue;
    const std::uint64_t entries = rows * o->routing.n_used, experts = o->routing.n_experts;
    most(s.scores, rows * experts);
    most(s.chosen, entries), most(s.weights, entries);
    most(s.inner, entries * p.weights[o->down].cols);
    if (mode != Mode::fast) continue;
    most(s.branch, entries * p.buffers[o->out].width);
    most(s.order, entries);
    most(s.first_entry, experts + 1), most(s.first_tile, experts + 1);
  }
  return s;
}

void lay_out_step(Workspace& w, const Program& p, const StepLimits& limits) {
  Carver carve(kAlign);
  carve.take(sizeof(StepHeader));
  w.tokens = carve.take(limits.rows * sizeof(std::int32_t));
  w.positions = carve.take(limits.rows * sizeof(std::int32_t));
  w.row_sequence = carve.take(limits.rows * sizeof(std::uint32_t));
  w.sequences = carve.take(limits.slots * sizeof(DeviceSequence));
  w.outputs = carve.take(limits.outputs * sizeof(DeviceOutput));
  w.table_stride = most_pages(limits, kPageTokens);
  w.tables =
      carve.take(std::uint64_t{limits.slots} * p.groups.size() * w.table_stride * sizeof(std::int32_t));
  w.step_bytes = carve.end();
}

}  // namespace

bool is_repacked(const WeightSpec& w, Mode mode) {
  // Experts are multiplied by general kernels alone, which are faster on the file's own order.
  if (w.role == WeightRole::experts) return false;
  return mode != Mode::exact && !w.is_vector() && has_repacked_layout(w.type, w.rows, w.cols);
}

KvView kv_layout(const StateSpec& s) {
  const std::uint64_t k = std::uint64_t{s.n_kv_heads} * kPageTokens * s.head_dim_k;
  const std::uint64_t v = std::uint64_t{s.n_kv_heads} * kPageTokens * s.head_dim_v;
  const std::uint64_t element = s.type == DType::F32 ? 4 : s.type == DType::F16 ? 2 : 1;
  const auto part = [](std::uint64_t bytes) { return (bytes + 127) / 128 * 128; };
  KvView view{};
  view.type = static_cast<std::int32_t>(s.type);
  view.n_kv_heads = s.n_kv_heads;
  view.head_dim_k = s.head_dim_k;
  view.head_dim_v = s.head_dim_v;
  view.v_offset = static_cast<std::uint32_t>(part(k * element));
  view.k_scale_offset = static_cast<std::uint32_t>(view.v_offset + part(v * element));
  view.v_scale_offset = view.k_scale_offset;
  view.page_bytes = view.k_scale_offset;
  if (s.type == DType::Q8_0) {
    view.v_scale_offset += static_cast<std::uint32_t>(part(k / 32 * 2));
    view.page_bytes = view.v_scale_offset + part(v / 32 * 2);
  }
  view.page_bytes = align(view.page_bytes);
  return view;
}

Workspace lay_out(const Program& p, const StepLimits& limits, Mode mode) {
  const Widths widths = find_widths(p);
  const std::uint64_t rows = limits.rows, outputs = limits.outputs;
  Workspace w;
  Carver carve(kAlign);
  lay_out_step(w, p, limits);
  w.step = carve.take(w.step_bytes);
  for (const auto& b : p.buffers)
    w.buffers.push_back(carve.take((b.rows == RowSet::all ? rows : outputs) * b.width * sizeof(float)));
  for (const auto& r : p.ropes) w.ropes.push_back(carve.take(rows * r.n_rot * sizeof(float)));
  w.normed = carve.take(rows * widths.normed * sizeof(float));
  w.branch = carve.take(rows * widths.branch * sizeof(float));
  w.head_input = carve.take(outputs * p.n_embd * sizeof(float));
  const ExpertsSpace experts = experts_space(p, rows, mode);
  for (const auto part :
       {&ExpertsSpace::scores, &ExpertsSpace::chosen, &ExpertsSpace::weights, &ExpertsSpace::inner,
        &ExpertsSpace::branch, &ExpertsSpace::order, &ExpertsSpace::first_entry, &ExpertsSpace::first_tile})
    w.experts.*part = carve.take(experts.*part);
  w.split_rows = std::min(limits.rows, 32u);
  w.partials = carve.take(w.split_rows * widths.partials * sizeof(float));
  w.masks = carve.take(outputs * ((p.vocab_size + 31) / 32) * sizeof(std::uint32_t));
  w.history = carve.take(std::uint64_t{limits.slots} * limits.context * sizeof(std::int32_t));
  w.last_sample = carve.take(limits.slots * sizeof(std::int32_t));
  w.sampled = carve.take(outputs * sizeof(std::int32_t));
  w.counts = carve.take(outputs * p.vocab_size * sizeof(std::uint32_t));
  w.scratch_bytes = lay_out_scratch(p, limits, mode).bytes;
  w.scratch = carve.take(w.scratch_bytes);
  w.bytes = carve.end();
  return w;
}

Staging staging_of(const Program& p, const StepLimits& limits, const Workspace& space) {
  const std::uint64_t masks = std::uint64_t{limits.outputs} * ((p.vocab_size + 31) / 32) * 4;
  return {space.step_bytes + masks, std::max(limits.outputs, 1u) * sizeof(std::int32_t)};
}

std::vector<BucketSize> bucket_sizes(const StepLimits& limits) {
  std::vector<BucketSize> sizes;
  for (std::uint32_t rows = 1;; rows *= 2) {
    const std::uint32_t n = std::min(rows, limits.rows);
    const std::uint32_t most = std::min(n, limits.outputs);
    // Prompts want one output of many rows, decode one of every row; steps between them take the larger.
    if (most > 1 && n > 8) sizes.push_back({n, 1});
    sizes.push_back({n, most});
    if (rows >= limits.rows) return sizes;
  }
}

}  // namespace steelyard::cuda
