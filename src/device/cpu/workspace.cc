#include "device/cpu/workspace.h"

#include <algorithm>

#include "device/carver.h"

namespace steelyard::cpu {
namespace {

// Largest sizes over the ops.
struct Extremes {
  std::uint64_t input_bytes = 0, private_bytes = 0;
  std::uint32_t branch_width = 0;
  std::uint64_t scratch_bytes = 0, partial_floats_a_row = 0;
  std::uint32_t split_rows = 0;
  ExpertsSpace experts;  // sizes
};

void note_experts(Extremes& e, const Program& p, const ExpertsOp& op, std::uint32_t rows, Mode mode) {
  const Routing& r = op.routing;
  const std::uint32_t width = p.buffers[op.in].width, entries = rows * r.n_used,
                      places = entries + (kActTile - 1) * std::min(r.n_experts, entries);
  const auto most = [](std::uint64_t& size, std::uint64_t bytes) { size = std::max(size, bytes); };
  ExpertsSpace& s = e.experts;
  most(s.scores, std::uint64_t{rows} * r.n_experts * sizeof(float));
  most(s.choices, std::uint64_t{entries} * sizeof(Choice));
  most(s.active, (r.n_experts + 1) * sizeof(ActiveExpert));
  most(s.rows, entries * sizeof(std::uint32_t));
  most(s.input, act_bytes(input_format(p, mode, {op.gate, op.up}), places, width));
  most(s.inner, act_bytes(input_format(p, mode, {op.down}), places, p.weights[op.down].cols));
  most(s.branch, std::uint64_t{entries} * p.buffers[op.out].width * sizeof(float));
}

void note_input(Extremes& e, ActFormat format, std::uint32_t rows, std::uint32_t cols) {
  e.input_bytes = std::max(e.input_bytes, act_bytes(format, rows, cols));
  e.private_bytes = std::max(e.private_bytes, act_bytes(format, kPrivateRows, cols));
}

void note_attention(Extremes& e, const StateSpec& s, const Attends& a, std::uint32_t context,
                    std::uint32_t threads) {
  const std::uint64_t chunks = (context + kChunkTokens - 1) / kChunkTokens;
  e.scratch_bytes =
      std::max(e.scratch_bytes, attention_scratch_bytes(a.n_heads / s.n_kv_heads, s.head_dim_v));
  e.partial_floats_a_row =
      std::max(e.partial_floats_a_row, a.n_heads * chunks * partial_floats(s.head_dim_v));
  e.split_rows = std::max(e.split_rows, (4 * threads + s.n_kv_heads - 1) / s.n_kv_heads);
}

// What the executable's way of computing an op needs beyond the input of its products.
struct Needs {
  BufferId branch = kNoBuffer;       // floats as wide as this buffer, for what is normed before it is added
  BufferId activations = kNoBuffer;  // this one holds activations, as the product that reads it wants them
};
Needs needs_of(const Op& op) {
  return std::visit(
      Overloaded{
          [](const EmbedOp&) { return Needs{}; },
          [](const QkvOp&) { return Needs{}; },
          [](const RopeAppendOp&) { return Needs{}; },
          [](const AttentionOp&) { return Needs{}; },
          [](const ResidualLinearOp& o) { return Needs{.branch = o.post_norm ? o.out : kNoBuffer}; },
          [](const GateUpOp& o) { return Needs{.activations = o.out}; },
          [](const ExpertsOp&) { return Needs{}; },  // note_experts()
          [](const HeadOp&) { return Needs{}; },
          [](const SampleOp&) { return Needs{}; },
          [](const ReceiveOp&) { return Needs{}; },
          [](const SendOp&) { return Needs{}; },
          [](const SumOp&) { return Needs{}; },
          [](const GatherOp&) { return Needs{}; },
      },
      op.body);
}

Extremes find_extremes(const Program& p, const StepLimits& limits, Mode mode, std::uint32_t threads) {
  Extremes e;
  for (const Op& op : p.ops) {
    if (const Products m = products(op); !m.weights.empty())
      note_input(e, input_format(p, mode, m.weights),
                 m.rows == RowSet::all ? limits.rows : std::max(limits.outputs, 1u), p.buffers[m.in].width);
    if (const BufferId branch = needs_of(op).branch; branch != kNoBuffer)
      e.branch_width = std::max(e.branch_width, p.buffers[branch].width);
    if (const auto* experts = std::get_if<ExpertsOp>(&op.body))
      note_experts(e, p, *experts, limits.rows, mode);
    if (const auto a = attends(op)) note_attention(e, p.states[a->state], *a, limits.context, threads);
  }
  return e;
}

void mark_act_buffers(Workspace& w, const Program& p, Mode mode) {
  w.buffer_is_act.assign(p.buffers.size(), false);
  w.buffer_formats.assign(p.buffers.size(), ActFormat::f32);
  for (const Op& op : p.ops)
    if (const BufferId id = needs_of(op).activations; id != kNoBuffer) w.buffer_is_act[id] = true;
  // One format a buffer: floats if one layer's product can't take less.
  std::vector<bool> seen(p.buffers.size(), false);
  for (const Op& op : p.ops) {
    const Products m = products(op);
    if (m.weights.empty() || !w.buffer_is_act[m.in]) continue;
    const ActFormat format = input_format(p, mode, m.weights), had = w.buffer_formats[m.in];
    w.buffer_formats[m.in] = seen[m.in] ? std::min(format, had) : format;
    seen[m.in] = true;
  }
}

}  // namespace

ActFormat input_format(const Program& program, Mode mode, const Few<WeightId>& weights) {
  if (mode == Mode::exact) return ActFormat::f32;
  const bool fast = std::all_of(weights.begin(), weights.end(),
                                [&](WeightId id) { return fast_type(program.weights[id].type); });
  return fast ? ActFormat::q8 : ActFormat::f32;
}

Workspace lay_out(const Program& p, const StepLimits& limits, Mode mode, std::uint32_t threads) {
  const Extremes e = find_extremes(p, limits, mode, threads);
  Workspace w;
  Carver carve(64);
  mark_act_buffers(w, p, mode);
  for (std::size_t i = 0; i < p.buffers.size(); ++i) {
    const std::uint64_t rows = p.buffers[i].rows == RowSet::all ? limits.rows : limits.outputs;
    w.buffers.push_back(w.buffer_is_act[i]
                            ? carve.take(act_bytes(w.buffer_formats[i], limits.rows, p.buffers[i].width))
                            : carve.take(rows * p.buffers[i].width * sizeof(float)));
  }
  w.branch = carve.take(std::uint64_t{limits.rows} * e.branch_width * sizeof(float));
  w.input = carve.take(e.input_bytes);
  w.private_input_stride = (e.private_bytes + 63) / 64 * 64;
  w.private_input = carve.take(w.private_input_stride * threads);
  for (const auto& rope : p.ropes) {
    w.cos_sin_of_rope.push_back(carve.take(std::uint64_t{limits.rows} * rope.n_rot * sizeof(float)));
    w.inv_freq_of_rope.push_back(carve.take(rope.n_rot / 2 * sizeof(double)));
  }
  w.hidden_out = carve.take(std::uint64_t{limits.outputs} * p.n_embd * sizeof(float));
  w.attention_scratch_stride = (e.scratch_bytes + 63) / 64 * 64;
  w.attention_scratch = carve.take(w.attention_scratch_stride * threads);
  w.split_rows = std::min(e.split_rows, limits.rows);
  w.partials = carve.take(e.partial_floats_a_row * w.split_rows * sizeof(float));
  for (const auto part :
       {&ExpertsSpace::scores, &ExpertsSpace::choices, &ExpertsSpace::active, &ExpertsSpace::rows,
        &ExpertsSpace::input, &ExpertsSpace::inner, &ExpertsSpace::branch})
    w.experts.*part = carve.take(e.experts.*part);
  w.history = carve.take(std::uint64_t{limits.slots} * limits.context * sizeof(std::int32_t));
  w.last_sample = carve.take(limits.slots * sizeof(std::int32_t));
  w.sampled = carve.take(std::uint64_t{limits.in_flight} * limits.outputs * sizeof(std::int32_t));
  w.candidates_stride = (std::uint64_t{std::max(p.vocab_size, limits.context)} * 8 + 63) / 64 * 64;
  w.candidates = carve.take(w.candidates_stride * threads);
  w.bytes = carve.end();
  return w;
}

}  // namespace steelyard::cpu
