// Halves for kernels on the CPU (emulation.h).
#pragma once

#include "device/cuda/emulation/emulation.h"

struct __half {
  _Float16 value;
};
struct __half2 {
  _Float16 x, y;
};
inline __half2 __floats2half2_rn(float x, float y) {
  return {static_cast<_Float16>(x), static_cast<_Float16>(y)};
}
inline float2 __half22float2(__half2 h) { return {static_cast<float>(h.x), static_cast<float>(h.y)}; }
inline __half __float2half_rn(float x) { return {static_cast<_Float16>(x)}; }
inline float __half2float(__half h) { return static_cast<float>(h.value); }
inline __half __ushort_as_half(unsigned short bits) { return {std::bit_cast<_Float16>(bits)}; }

inline __half2 __float2half2_rn(float x) { return __floats2half2_rn(x, x); }
inline __half2 __half2half2(__half x) { return {x.value, x.value}; }
inline __half2 __low2half2(__half2 h) { return {h.x, h.x}; }
inline __half2 __high2half2(__half2 h) { return {h.y, h.y}; }
inline __half2 __hsub2(__half2 a, __half2 b) {
  return {static_cast<_Float16>(a.x - b.x), static_cast<_Float16>(a.y - b.y)};
}
inline __half2 __hmul2(__half2 a, __half2 b) {
  return {static_cast<_Float16>(a.x * b.x), static_cast<_Float16>(a.y * b.y)};
}
inline __half2 __hfma2(__half2 a, __half2 b, __half2 c) {  // one rounding: doubles hold what comes before it
  const auto fma = [](double x, double y, double z) { return static_cast<_Float16>(x * y + z); };
  return {fma(a.x, b.x, c.x), fma(a.y, b.y, c.y)};
}
