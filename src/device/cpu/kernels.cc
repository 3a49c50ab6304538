// Which instruction set runs, and what needs none.
#include "device/cpu/kernels.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "base/error.h"

namespace steelyard::cpu {

extern const Kernels kPortableKernels, kAvx2Kernels, kAvx512Kernels, kAvx512VnniKernels, kAvx512Bf16Kernels;

namespace {
constexpr Isa kIsas[] = {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16};
}

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return "portable";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    case Isa::avx512vnni:
      return "avx512vnni";
    case Isa::avx512bf16:
      return "avx512bf16";
  }
  return "?";
}

bool isa_available(Isa isa) {
  if (isa == Isa::portable) return true;
#if defined(__x86_64__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  const bool f16c = __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & (1u << 29)) != 0;
  // These also ask whether the system saves the registers.
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi2") && f16c;
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool vnni = avx512 && __builtin_cpu_supports("avx512vnni");
  switch (isa) {
    case Isa::avx2:
      return avx2 && STEELYARD_ISA_AVX2;
    case Isa::avx512:
      return avx512 && STEELYARD_ISA_AVX512;
    case Isa::avx512vnni:
      return vnni && STEELYARD_ISA_AVX512VNNI;
    case Isa::avx512bf16:
      return vnni && STEELYARD_ISA_AVX512BF16 && __builtin_cpu_supports("avx512bf16");
    default:
      return false;
  }
#else
  return false;
#endif
}

Isa choose_isa() {
  Isa best = Isa::portable;
  for (const Isa isa : kIsas) {
    if (isa_available(isa)) best = isa;
  }
  const char* wish = std::getenv("STEELYARD_CPU_ISA");
  if (wish == nullptr || *wish == '\0') return best;
  for (const Isa isa : kIsas) {
    if (std::string_view(wish) != isa_name(isa)) continue;
    if (!isa_available(isa)) {
      throw_error(ErrorKind::bad_input, "STEELYARD_CPU_ISA={} but this CPU lacks it; the best it has is {}",
                  wish, isa_name(best));
    }
    return isa;
  }
  throw_error(ErrorKind::bad_input,
              "STEELYARD_CPU_ISA={} is unknown; use portable, avx2, avx512, avx512vnni or avx512bf16", wish);
}

const Kernels& kernels(Isa isa) {
  switch (isa) {
#if defined(__x86_64__) && STEELYARD_ISA_AVX2
    case Isa::avx2:
      return kAvx2Kernels;
#endif
#if defined(__x86_64__) && STEELYARD_ISA_AVX512
    case Isa::avx512:
      return kAvx512Kernels;
#endif
#if defined(__x86_64__) && STEELYARD_ISA_AVX512VNNI
    case Isa::avx512vnni:
      return kAvx512VnniKernels;
#endif
#if defined(__x86_64__) && STEELYARD_ISA_AVX512BF16
    case Isa::avx512bf16:
      return kAvx512Bf16Kernels;
#endif
    default:
      return kPortableKernels;
  }
}

bool fast_type(DType type) {
  switch (type) {
    case DType::Q4_0:
    case DType::Q4_1:
    case DType::Q5_0:
    case DType::Q5_1:
    case DType::Q8_0:
    case DType::Q4_K:
    case DType::Q5_K:
    case DType::Q6_K:
    case DType::MXFP4:
    case DType::IQ4_NL:
      return true;
    default:
      return false;
  }
}

std::uint64_t kv_head_bytes(const KvLayout& l) {
  const std::uint64_t unit = l.type == DType::Q8_0 ? 32 : 16;
  const std::uint64_t pad = (l.head_dim_k + unit - 1) / unit * unit + (l.head_dim_v + unit - 1) / unit * unit;
  if (l.type == DType::Q8_0) return pad * kPageTokens + pad / 32 * kPageTokens * 2;
  return pad * kPageTokens * (l.type == DType::F32 ? 4 : 2);
}

std::uint64_t kv_page_bytes(const KvLayout& layout) { return kv_head_bytes(layout) * layout.n_kv_heads; }

void rope_inv_freq(const RopeFrequencies& rope, const float* factors, double* inv_freq) {
  for (std::uint32_t i = 0; i < rope.n_rot / 2; ++i) {
    const double r = std::clamp((i - rope.ramp_begin) / (rope.ramp_end - rope.ramp_begin), 0.0, 1.0);
    const double f = (1 + r * (rope.freq_scale - 1)) * std::pow(rope.base, -2.0 * i / rope.n_rot);
    inv_freq[i] = factors != nullptr ? f / factors[i] : f;
  }
}

void rope_angles(std::int32_t position, const double* inv_freq, std::uint32_t half, float magnitude,
                 float* out) {
  for (std::uint32_t i = 0; i < half; ++i) {
    const double angle = position * inv_freq[i];
    out[i] = static_cast<float>(std::cos(angle) * magnitude);
    out[half + i] = static_cast<float>(std::sin(angle) * magnitude);
  }
}

}  // namespace steelyard::cpu
