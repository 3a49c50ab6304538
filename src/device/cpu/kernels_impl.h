// Everything of one instruction set's table, compiled with its flags. The including file names the vectors
// (kernels_simd_*.h) in STEELYARD_SIMD, includes <immintrin.h> if they need it, and exports kernel_table.
// All code is internal to the file.
#include "base/dtype.h"
#include "device/cpu/kernels.h"
#include "quant/quant.h"

namespace steelyard::cpu {
namespace {
#include STEELYARD_SIMD
// Each needs those before it.
// clang-format off
#include "device/cpu/kernels_impl_math.h"
#include "device/cpu/kernels_impl_records.h"
#include "device/cpu/kernels_impl_float.h"
#include "device/cpu/kernels_impl_matmul.h"
#include "device/cpu/kernels_impl_attention.h"
#include "device/cpu/kernels_impl_probe.h"
// clang-format on

constexpr Kernels kernel_table(Isa isa) {
  Kernels k{};
  k.isa = isa;
  k.rms_norm = rms_norm_kernel;
  k.quantize = quantize_kernel;
  k.rms_norm_quantize = rms_norm_quantize_kernel;
  k.dequantize_act = dequantize_act_kernel;
  k.matmul = matmul_kernel;
  k.gate_up = gate_up_kernel;
  k.rope_halves = rope_halves_kernel;
  k.rope_adjacent = rope_adjacent_kernel;
  k.append_kv = append_kv_kernel;
  k.attention = attention_kernel;
  k.attention_chunk = attention_chunk_kernel;
  k.attention_merge = attention_merge_kernel;
  k.add = add_kernel;
  k.add_scaled = add_scaled_kernel;
  k.scale = scale_kernel;
  k.softcap = softcap_kernel;
  k.max = max_kernel;
  k.argmax = argmax_kernel;
  k.exp_sub = exp_sub_kernel;
  k.read_all = read_all_kernel;
  k.spin_dots = spin_dots_kernel;
  k.spin_fmas = spin_fmas_kernel;
  return k;
}
}  // namespace
}  // namespace steelyard::cpu
