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
