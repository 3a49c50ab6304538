// Mixtures of experts on the CPU: one thread's part. The chosen experts of a step are listed with their rows,
// so that each expert's weights are read once, whatever number of rows chose it; threads take pieces of its
// outputs.
#include <algorithm>
#include <array>
#include <cstdint>

#include "base/split_range.h"
#include "device/cpu/routing.h"
#include "device/cpu/worker.h"
#include "program/program.h"

namespace steelyard::cpu {
namespace {

// Outputs of an expert that a thread multiplies at once.
constexpr std::uint32_t kGateUpOutputs = 64, kDownOutputs = 128;
constexpr std::uint32_t kAddColumns = 512;

ActView from_place(ActView view, std::uint32_t place) {
  view.data += place / kActTile * act_tile_bytes(view.format, view.cols);
  return view;
}

// The lists of the step in the workspace.
struct Lists {
  Choice* choices;       // [rows][used]
  ActiveExpert* active;  // ended by one without rows
  std::uint32_t* rows;   // by entry
};
Lists lists_of(std::byte* base, const ExpertsSpace& s) {
  return {reinterpret_cast<Choice*>(base + s.choices), reinterpret_cast<ActiveExpert*>(base + s.active),
          reinterpret_cast<std::uint32_t*>(base + s.rows)};
}

}  // namespace

void CpuExecutable::Worker::operator()(const ExpertsOp& op) {
  score_experts(op);
  pool.barrier();
  if (n_rows() > kPrivateRows) {
    choose_experts(op, my_rows(n_rows()));
    pool.barrier();
    if (thread == 0) list_experts(op);
  } else if (thread == 0) {
    choose_experts(op, {0, n_rows()});
    list_experts(op);
  }
  pool.barrier();
  fill_places(op);
  pool.barrier();
  multiply_gate_up(op);
  pool.barrier();
  multiply_down(op);
  pool.barrier();
  add_experts(op);
}

void CpuExecutable::Worker::score_experts(const ExpertsOp& op) {
  const std::uint32_t cols = x.program_.buffers[op.in].width;
  const PackedMatrix w = x.matrix(op.router);
  const ActView in =
      input(x.floats(op.in), cols, n_rows(), cols, op.norm, input_format(x.program_, x.mode_, {op.router}));
  const Range out = scaled(split_range(groups_of(w.rows, kRowGroup), thread, n_threads), kRowGroup, w.rows);
  if (out.begin < out.end)
    k.matmul({.w = w,
              .x = in,
              .n_rows = n_rows(),
              .y = reinterpret_cast<float*>(at(x.space_.experts.scores)),
              .y_stride = w.rows,
              .bias = x.vector(op.router_bias),
              .out_begin = out.begin,
              .out_end = out.end});
}

void CpuExecutable::Worker::choose_experts(const ExpertsOp& op, Range rows) {
  auto* scores = reinterpret_cast<float*>(at(x.space_.experts.scores));
  Choice* choices = lists_of(x.base_, x.space_.experts).choices;
  for (std::uint32_t r = rows.begin; r < rows.end; ++r)
    choose(op.routing, scores + std::uint64_t{r} * op.routing.n_experts, x.vector(op.choice_bias),
           choices + std::uint64_t{r} * op.routing.n_used);
}

// One thread: entries by expert, rows in order.
void CpuExecutable::Worker::list_experts(const ExpertsOp& op) {
  const Lists lists = lists_of(x.base_, x.space_.experts);
  const std::uint32_t entries = n_rows() * op.routing.n_used;
  std::array<std::uint32_t, kMostExperts> count{};
  for (std::uint32_t i = 0; i < entries; ++i) ++count[lists.choices[i].expert];
  std::uint32_t n = 0, entry = 0, place = 0;
  for (std::uint32_t e = 0; e < op.routing.n_experts; ++e) {
    if (count[e] == 0) continue;
    lists.active[n++] = {e, entry, place, count[e]};
    const std::uint32_t first = entry;
    entry += count[e];
    place += groups_of(count[e], kActTile) * kActTile;
    count[e] = first;  // from here on the next entry
  }
  lists.active[n] = {};
  for (std::uint32_t i = 0; i < entries; ++i) {
    Choice& c = lists.choices[i];
    c.entry = count[c.expert]++;
    lists.rows[c.entry] = i / op.routing.n_used;
  }
}

// Normed and quantised once more for each expert that a row chose: cheaper than the products by far, and the
// rows of an expert lie as its kernels want them.
void CpuExecutable::Worker::fill_places(const ExpertsOp& op) {
  const Lists lists = lists_of(x.base_, x.space_.experts);
  const std::uint32_t cols = x.program_.buffers[op.in].width;
  const ActView view{input_format(x.program_, x.mode_, {op.gate, op.up}), cols, at(x.space_.experts.input)};
  const Range mine = split_range(n_rows() * op.routing.n_used, thread, n_threads);
  for (const ActiveExpert* a = lists.active; a->n_rows != 0; ++a) {
    const std::uint32_t begin = std::max(mine.begin, a->entry),
                        end = std::min(mine.end, a->entry + a->n_rows);
    for (std::uint32_t e = begin; e < end; ++e)
      k.rms_norm_quantize(x.floats(op.in) + std::uint64_t{lists.rows[e]} * cols, x.vector(op.norm.weight),
                          op.norm ? op.norm.eps : -1.0f, view, a->place + (e - a->entry));
  }
}

PackedMatrix CpuExecutable::Worker::expert_matrix(WeightId id, std::uint32_t expert) const {
  PackedMatrix m = x.matrix(id);
  m.rows /= x.program_.weights[id].experts;
  m.data += packed_row_offset(m.type, m.cols, std::uint64_t{expert} * m.rows);
  return m;
}

// Tasks are (expert, piece of its outputs), handed out as threads get free: experts differ in their rows.
void CpuExecutable::Worker::multiply_gate_up(const ExpertsOp& op) {
  const Lists lists = lists_of(x.base_, x.space_.experts);
  const std::uint32_t width = x.program_.buffers[op.in].width, n_ff = x.program_.weights[op.down].cols;
  const ActView in{input_format(x.program_, x.mode_, {op.gate, op.up}), width, at(x.space_.experts.input)};
  const ActView inner{input_format(x.program_, x.mode_, {op.down}), n_ff, at(x.space_.experts.inner)};
  const std::uint32_t tasks = groups_of(n_ff, kGateUpOutputs);
  const auto bias = [&](WeightId id, std::uint32_t e) {
    return id == kNoWeight ? nullptr : x.vector(id) + std::uint64_t{e} * n_ff;
  };
  const auto act = op.activation == Activation::silu        ? Gate::silu
                   : op.activation == Activation::gelu_tanh ? Gate::gelu_tanh
                                                            : Gate::clamped_swiglu;
  std::uint32_t task = next_task(), first = 0;
  for (const ActiveExpert* a = lists.active; a->n_rows != 0; ++a, first += tasks)
    for (; task < first + tasks; task = next_task())
      k.gate_up({.gate = expert_matrix(op.gate, a->expert),
                 .up = expert_matrix(op.up, a->expert),
                 .x = from_place(in, a->place),
                 .n_rows = a->n_rows,
                 .act = act,
                 .out = from_place(inner, a->place),
                 .out_begin = (task - first) * kGateUpOutputs,
                 .out_end = std::min((task - first + 1) * kGateUpOutputs, n_ff),
                 .gate_bias = bias(op.gate_bias, a->expert),
                 .up_bias = bias(op.up_bias, a->expert)});
}

void CpuExecutable::Worker::multiply_down(const ExpertsOp& op) {
  const Lists lists = lists_of(x.base_, x.space_.experts);
  const std::uint32_t width = x.program_.buffers[op.out].width, n_ff = x.program_.weights[op.down].cols;
  const ActView inner{input_format(x.program_, x.mode_, {op.down}), n_ff, at(x.space_.experts.inner)};
  auto* branch = reinterpret_cast<float*>(at(x.space_.experts.branch));
  const std::uint32_t tasks = groups_of(width, kDownOutputs);
  // The counter goes on where the tasks of gate and up ended: every thread has taken one of them in vain.
  std::uint32_t first = n_threads;
  for (const ActiveExpert* a = lists.active; a->n_rows != 0; ++a) first += groups_of(n_ff, kGateUpOutputs);
  std::uint32_t task = next_task();
  for (const ActiveExpert* a = lists.active; a->n_rows != 0; ++a, first += tasks)
    for (; task < first + tasks; task = next_task())
      k.matmul({.w = expert_matrix(op.down, a->expert),
                .x = from_place(inner, a->place),
                .n_rows = a->n_rows,
                .y = branch + std::uint64_t{a->entry} * width,
                .y_stride = width,
                .bias = op.down_bias == kNoWeight ? nullptr
                                                  : x.vector(op.down_bias) + std::uint64_t{a->expert} * width,
                .out_begin = (task - first) * kDownOutputs,
                .out_end = std::min((task - first + 1) * kDownOutputs, width)});
}

// The best expert first: an order that the row alone decides.
void CpuExecutable::Worker::add_experts(const ExpertsOp& op) {
  const Lists lists = lists_of(x.base_, x.space_.experts);
  const std::uint32_t width = x.program_.buffers[op.out].width, pieces = groups_of(width, kAddColumns);
  const auto* branch = reinterpret_cast<const float*>(at(x.space_.experts.branch));
  const Range units = split_range(n_rows() * pieces, thread, n_threads);
  for (std::uint32_t u = units.begin; u < units.end; ++u) {
    const std::uint32_t row = u / pieces, col = u % pieces * kAddColumns,
                        n = std::min(kAddColumns, width - col);
    const std::uint64_t begin = std::uint64_t{row} * width + col;
    float* out = x.floats(op.out) + begin;
    if (op.out != op.residual) std::copy_n(x.floats(op.residual) + begin, n, out);
    for (std::uint32_t i = 0; i < op.routing.n_used; ++i) {
      const Choice& c = lists.choices[std::uint64_t{row} * op.routing.n_used + i];
      k.add_scaled(c.weight, branch + std::uint64_t{c.entry} * width + col, n, out);
    }
  }
}

}  // namespace steelyard::cpu
