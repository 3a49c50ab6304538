// bf16 for kernels on the CPU (emulation.h).
#pragma once

#include "device/cuda/emulation/emulation.h"

struct __nv_bfloat162 {
  unsigned short x, y;
};
namespace emulation {
inline unsigned short bf16_of(float x) {  // to the nearest, of two the even one
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return static_cast<unsigned short>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}
inline float float_of(unsigned short bf16) { return std::bit_cast<float>(std::uint32_t{bf16} << 16); }
}  // namespace emulation
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y) {
  return {emulation::bf16_of(x), emulation::bf16_of(y)};
}
inline float __low2float(__nv_bfloat162 pair) { return emulation::float_of(pair.x); }
inline float __high2float(__nv_bfloat162 pair) { return emulation::float_of(pair.y); }
