// Kernels for CPUs with AVX-512 VNNI and BF16.
#if defined(__x86_64__)
// gcc 12 warns about its own _mm512_undefined_ps.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#define STEELYARD_SIMD "device/cpu/kernels_simd_avx512.h"
#include "device/cpu/kernels_impl.h"

namespace steelyard::cpu {
extern const Kernels kAvx512Bf16Kernels;
const Kernels kAvx512Bf16Kernels = kernel_table(Isa::avx512bf16);
}  // namespace steelyard::cpu
#endif
