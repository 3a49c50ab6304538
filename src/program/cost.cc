#include "program/cost.h"

#include <algorithm>

#include "base/dtype.h"

namespace steelyard {
namespace {

struct CostOf {
  const Program& program;
  const StepShape& shape;

  // `rows` token rows through a matrix
  OpCost matrix(WeightId id, double rows) const {
    if (id == kNoWeight || rows == 0) return {};
    const WeightSpec& w = program.weights[id];
    return {.weight_bytes = static_cast<double>(w.file_bytes()),
            .flops = w.is_vector() ? 0 : 2.0 * rows * static_cast<double>(w.elements())};
  }
  static OpCost sum(std::initializer_list<OpCost> parts) {
    OpCost total;
    for (const auto& p : parts) {
      total.weight_bytes += p.weight_bytes;
      total.state_bytes += p.state_bytes;
      total.flops += p.flops;
      total.attention_flops += p.attention_flops;
    }
    return total;
  }
  static double token_bytes(const StateSpec& s) {
    return s.n_kv_heads * (static_cast<double>(s.head_dim_k + s.head_dim_v) * dtype_info(s.type).block_bytes /
                           dtype_info(s.type).block);
  }

  OpCost operator()(const EmbedOp& op) const {
    const WeightSpec& w = program.weights[op.table];
    return {.weight_bytes = static_cast<double>(row_bytes(w.type, w.cols)) * shape.rows};
  }
  OpCost operator()(const QkvOp& op) const {
    return sum({matrix(op.q, shape.rows), matrix(op.k, shape.rows), matrix(op.v, shape.rows),
                matrix(op.norm.weight, shape.rows)});
  }
  OpCost operator()(const RopeAppendOp& op) const {
    return {.state_bytes = token_bytes(program.states[op.state]) * shape.rows};
  }
  OpCost operator()(const AttentionOp& op) const {
    const StateSpec& s = program.states[op.state];
    const double seen = op.window ? std::min<double>(op.window, shape.context) : shape.context;
    const double part = shape.context > 0 ? seen / shape.context : 0;
    return {.state_bytes = token_bytes(s) * shape.state_reads * part,
            .attention_flops = 2.0 * shape.rows * op.n_heads * seen * (s.head_dim_k + s.head_dim_v)};
  }
  OpCost operator()(const ResidualLinearOp& op) const {
    return sum({matrix(op.weight, shape.rows), matrix(op.post_norm.weight, shape.rows)});
  }
  OpCost operator()(const GateUpOp& op) const {
    return sum({matrix(op.gate, shape.rows), matrix(op.up, shape.rows), matrix(op.norm.weight, shape.rows)});
  }
  OpCost operator()(const HeadOp& op) const { return matrix(op.weight, shape.outputs); }
  OpCost operator()(const SampleOp&) const { return {}; }
};

}  // namespace

OpCost op_cost(const Program& program, const Op& op, const StepShape& shape) {
  return std::visit(CostOf{program, shape}, op.body);
}

OpCost step_cost(const Program& program, const StepShape& shape) {
  OpCost total;
  for (const auto& op : program.ops) total = CostOf::sum({total, op_cost(program, op, shape)});
  return total;
}

}  // namespace steelyard
