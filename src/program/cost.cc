#include "program/cost.h"

#include <algorithm>
#include <cmath>

#include "base/dtype.h"

namespace steelyard {
namespace {

void add(OpCost& total, const OpCost& more) {
  total.weight_bytes += more.weight_bytes;
  total.state_bytes += more.state_bytes;
  total.flops += more.flops;
  total.attention_flops += more.attention_flops;
}

double token_bytes(const StateSpec& s) {
  const DTypeInfo& type = dtype_info(s.type);
  return s.n_kv_heads * (static_cast<double>(s.head_dim_k + s.head_dim_v) * type.block_bytes / type.block);
}

OpCost attention_cost(const Program& program, const Attends& a, const StepShape& shape) {
  const StateSpec& s = program.states[a.state];
  const double seen = a.window ? std::min<double>(a.window, shape.context) : shape.context;
  const double part = shape.context > 0 ? seen / shape.context : 0;
  return {.state_bytes = token_bytes(s) * shape.state_reads * part,
          .attention_flops = 2.0 * shape.rows * a.n_heads * seen * (s.head_dim_k + s.head_dim_v)};
}

}  // namespace

OpCost weight_cost(const Program& program, const Op& op, const UsedWeight& used, const StepShape& shape) {
  const WeightSpec& w = program.weights[used.id];
  const double rows = role(op) == OpRole::logits ? shape.outputs : shape.rows;
  const auto bytes = static_cast<double>(w.file_bytes());
  if (rows == 0) return {};
  switch (used.use) {
    case WeightUse::lookup:
      return {.weight_bytes = static_cast<double>(row_bytes(w.type, w.cols)) * rows};
    case WeightUse::product:
      return {.weight_bytes = bytes, .flops = 2.0 * rows * static_cast<double>(w.elements())};
    case WeightUse::vector:
      return {.weight_bytes = bytes};
    case WeightUse::experts: {
      const double part = static_cast<double>(used.chosen) / w.experts;
      const double flops = w.rows > 1 ? 2.0 * rows * part * static_cast<double>(w.elements()) : 0;
      return {.weight_bytes = bytes * (1 - std::pow(1 - part, rows)), .flops = flops};
    }
  }
  return {};
}

OpCost op_cost(const Program& program, const Op& op, const StepShape& shape) {
  OpCost cost;
  for (const UsedWeight& used : weights_of(op)) add(cost, weight_cost(program, op, used, shape));
  if (const auto state = appends_to(op)) cost.state_bytes += token_bytes(program.states[*state]) * shape.rows;
  if (const auto a = attends(op)) add(cost, attention_cost(program, *a, shape));
  return cost;
}

OpCost step_cost(const Program& program, const StepShape& shape) {
  OpCost total;
  for (const auto& op : program.ops) add(total, op_cost(program, op, shape));
  return total;
}

}  // namespace steelyard
