// What a step costs, per op: the bytes it must read or write at least once and its multiply-adds × 2. Pure.
// plan/ predicts time from it, observe/ and bench divide by it.
#pragma once

#include <cstdint>

#include "program/program.h"
#include "program/uses.h"

namespace steelyard {

struct StepShape {
  std::uint32_t rows = 1;     // tokens computed
  std::uint32_t outputs = 1;  // rows whose logits are wanted
  double context = 0;  // mean number of keys that a row attends to in an unwindowed layer, itself included
  double state_reads =
      0;  // sum over sequences of their context: KV tokens that must be read once in such a layer
};

struct OpCost {
  double weight_bytes = 0;  // in the file's types; of experts as many as rows that choose at random reach
  double state_bytes = 0;
  double flops = 0;            // of matrix products with weights
  double attention_flops = 0;  // of q·k and p·v
};

// Of one of its weights (uses.h).
OpCost weight_cost(const Program& program, const Op& op, const UsedWeight& used, const StepShape& shape);
OpCost op_cost(const Program& program, const Op& op, const StepShape& shape);
OpCost step_cost(const Program& program, const StepShape& shape);  // the sum

}  // namespace steelyard
