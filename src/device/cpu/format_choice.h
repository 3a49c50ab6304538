// Which activation format the products of a role read in fast mode: what fidelity costs where
// (docs/fidelity.md).
#pragma once

#include "device/cpu/kernels.h"
#include "program/program.h"

namespace steelyard::cpu {

ActFormat preferred_format(WeightRole role, DType type);

}  // namespace steelyard::cpu
