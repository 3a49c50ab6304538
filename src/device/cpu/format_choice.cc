#include "device/cpu/format_choice.h"

namespace steelyard::cpu {

ActFormat preferred_format(WeightRole, DType) { return ActFormat::q8; }

}  // namespace steelyard::cpu
