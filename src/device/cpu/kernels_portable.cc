// Kernels for any CPU: plain C++.
// Vectors are passed between inlined functions only.
#pragma GCC diagnostic ignored "-Wpsabi"
#define STEELYARD_SIMD "device/cpu/kernels_simd_portable.h"
#include "device/cpu/kernels_impl.h"

namespace steelyard::cpu {
extern const Kernels kPortableKernels;
const Kernels kPortableKernels = kernel_table(Isa::portable);
}  // namespace steelyard::cpu
