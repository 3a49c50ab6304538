// Kernels for CPUs with AVX-512 VNNI: byte dot products in one instruction.
#if defined(__x86_64__)
// gcc 12 warns about its own _mm512_undefined_ps.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include <immintrin.h>

#define STEELYARD_SIMD "device/cpu/kernels_simd_avx512.h"
#include "device/cpu/kernels_impl.h"

namespace steelyard::cpu {
extern const Kernels kAvx512VnniKernels;
const Kernels kAvx512VnniKernels = kernel_table(Isa::avx512vnni);
}  // namespace steelyard::cpu
#endif
