// Which experts a row uses (Routing in program/program.h). Pure; one fixed order of operations.
#pragma once

#include "device/cpu/workspace.h"
#include "program/program.h"

namespace steelyard::cpu {

// logits[n_experts] become the scores; choice_bias may be null. Fills expert and weight of choices[n_used],
// the best first. Logits that aren't numbers make the weights so.
void choose(const Routing& routing, float* logits, const float* choice_bias, Choice* choices);

}  // namespace steelyard::cpu
