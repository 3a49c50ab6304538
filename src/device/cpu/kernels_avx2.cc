// Kernels for CPUs with AVX2, FMA and F16C.
#if defined(__x86_64__)
#include <immintrin.h>
#define STEELYARD_SIMD "device/cpu/kernels_simd_avx2.h"
#include "device/cpu/kernels_impl.h"

namespace steelyard::cpu {
extern const Kernels kAvx2Kernels;
const Kernels kAvx2Kernels = kernel_table(Isa::avx2);
}  // namespace steelyard::cpu
#endif
