#include "device/cpu/format_choice.h"

namespace strata::cpu {

ActFormat preferred_format(WeightRole, DType) { return ActFormat::q8; }

}  // namespace strata::cpu
