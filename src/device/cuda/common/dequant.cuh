// 32 neighbouring weights of a row as exact floats, from a file's blocks (quant/blocks.h has their layout) or
// from a repacked matrix. For the general kernels: right for every type, fast for none.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/common/dequant_args.h"
#include "device/cuda/hopper/weights/layout.cuh"

namespace steelyard::cuda {

__device__ inline float half_at(const std::uint8_t* p) {
  return __half2float(*reinterpret_cast<const __half*>(p));
}

__device__ inline float bf16_at(const std::uint8_t* p) {
  return __uint_as_float(static_cast<unsigned>(*reinterpret_cast<const std::uint16_t*>(p)) << 16);
}

// 2^(e - 128), subnormal for e < 2.
__device__ inline float e8m0_half(unsigned e) {
  return __uint_as_float(e < 2 ? 0x00200000u << e : (e - 1u) << 23);
}

__device__ inline float iq4_value(int q) {
  constexpr std::int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                       1,    13,   25,  38,  53,  69,  89,  113};
  return kValues[q];
}

__device__ inline float mxfp4_value(int q) {
  constexpr std::int8_t kValues[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};
  return kValues[q];
}

// 6-bit scale and minimum of group g of Q4_K and Q5_K.
__device__ inline void scale_min(const std::uint8_t* s, int g, float& scale, float& min) {
  if (g < 4) {
    scale = s[g] & 63;
    min = s[g + 4] & 63;
  } else {
    scale = (s[g + 4] & 15) | (s[g - 4] >> 6) << 4;
    min = s[g + 4] >> 4 | (s[g] >> 6) << 4;
  }
}

// Types of 32-weight blocks: `p` is the block.
__device__ inline void small_block(int type, const std::uint8_t* p, float* out) {
  switch (type) {
    case 2: {  // Q4_0
      const float d = half_at(p);
      for (int i = 0; i < 16; ++i) {
        out[i] = d * ((p[2 + i] & 15) - 8);
        out[i + 16] = d * ((p[2 + i] >> 4) - 8);
      }
      return;
    }
    case 3: {  // Q4_1
      const float d = half_at(p), m = half_at(p + 2);
      for (int i = 0; i < 16; ++i) {
        out[i] = d * (p[4 + i] & 15) + m;
        out[i + 16] = d * (p[4 + i] >> 4) + m;
      }
      return;
    }
    case 6:    // Q5_0
    case 7: {  // Q5_1
      const float d = half_at(p), m = type == 7 ? half_at(p + 2) : 0.0f;
      const int base = type == 7 ? 4 : 2, bias = type == 7 ? 0 : 16;
      for (int i = 0; i < 16; ++i) {
        const int low = p[base + i / 8] >> i % 8 & 1, high = p[base + 2 + i / 8] >> i % 8 & 1;
        out[i] = d * (((p[base + 4 + i] & 15) | low << 4) - bias) + m;
        out[i + 16] = d * ((p[base + 4 + i] >> 4 | high << 4) - bias) + m;
      }
      return;
    }
    case 8: {  // Q8_0
      const float d = half_at(p);
      for (int i = 0; i < 32; ++i) out[i] = d * static_cast<std::int8_t>(p[2 + i]);
      return;
    }
    case 20: {  // IQ4_NL
      const float d = half_at(p);
      for (int i = 0; i < 16; ++i) {
        out[i] = d * iq4_value(p[2 + i] & 15);
        out[i + 16] = d * iq4_value(p[2 + i] >> 4);
      }
      return;
    }
    case 39: {  // MXFP4
      const float d = e8m0_half(p[0]);
      for (int i = 0; i < 16; ++i) {
        out[i] = d * mxfp4_value(p[1 + i] & 15);
        out[i + 16] = d * mxfp4_value(p[1 + i] >> 4);
      }
      return;
    }
  }
}

// Types of 256-weight blocks: group g (0 … 7) of 32 weights of block `p`.
__device__ inline void group_of_256(int type, const std::uint8_t* p, int g, float* out) {
  switch (type) {
    case 10: {  // Q2_K: scales 16, qs 64, d, dmin
      const float d = half_at(p + 80), dmin = half_at(p + 82);
      for (int i = 0; i < 32; ++i) {
        const int scales = p[2 * g + i / 16], q = p[16 + g / 4 * 32 + i] >> 2 * (g % 4) & 3;
        out[i] = d * (scales & 15) * q - dmin * (scales >> 4);
      }
      return;
    }
    case 11: {  // Q3_K: hmask 32, qs 64, scales 12, d
      const float d = half_at(p + 108);
      const std::uint8_t* s = p + 96;
      for (int i = 0; i < 32; ++i) {
        const int j = 2 * g + i / 16;
        const int scale = ((j < 8 ? s[j] & 15 : s[j - 8] >> 4) | (s[8 + j % 4] >> 2 * (j / 4) & 3) << 4) - 32;
        const int q = (p[32 + g / 4 * 32 + i] >> 2 * (g % 4) & 3) + 4 * (p[i] >> g & 1) - 4;
        out[i] = d * scale * q;
      }
      return;
    }
    case 12:    // Q4_K: d, dmin, scales 12, qs 128
    case 13: {  // Q5_K: d, dmin, scales 12, qh 32, qs 128
      float scale, min;
      scale_min(p + 4, g, scale, min);
      const float ds = half_at(p) * scale, m = half_at(p + 2) * min;
      const std::uint8_t* qs = p + (type == 12 ? 16 : 48) + g / 2 * 32;
      for (int i = 0; i < 32; ++i) {
        int q = qs[i] >> 4 * (g % 2) & 15;
        if (type == 13) q |= (p[16 + i] >> g & 1) << 4;
        out[i] = ds * q - m;
      }
      return;
    }
    case 14: {  // Q6_K: ql 128, qh 64, scales 16, d
      const float d = half_at(p + 208);
      const int half = g / 4, quarter = g % 4;
      for (int i = 0; i < 32; ++i) {
        const int low = p[64 * half + 32 * (quarter % 2) + i] >> 4 * (quarter / 2) & 15;
        const int high = p[128 + 32 * half + i] >> 2 * quarter & 3;
        const int scale = static_cast<std::int8_t>(p[192 + 2 * g + i / 16]);
        out[i] = d * scale * ((low | high << 4) - 32);
      }
      return;
    }
    case 23: {  // IQ4_XS: d, scales_h, scales_l 4, qs 128
      const int high = *reinterpret_cast<const std::uint16_t*>(p + 2) >> 2 * g & 3;
      const int scale = (p[4 + g / 2] >> 4 * (g % 2) & 15) | high << 4;
      const float d = half_at(p) * (scale - 32);
      for (int i = 0; i < 16; ++i) {
        out[i] = d * iq4_value(p[8 + 16 * g + i] & 15);
        out[i + 16] = d * iq4_value(p[8 + 16 * g + i] >> 4);
      }
      return;
    }
  }
}

// Columns [32 * block, 32 * block + 32) of a row, zeros beyond the last column (float types only).
__device__ inline void load32(const MatrixArg& w, std::uint32_t row, std::uint32_t block, float* out) {
  if (w.repacked) return repacked_block32(w.type, w.data, w.rows, w.cols, row, block, out);
  const std::uint8_t* p = w.data + static_cast<std::uint64_t>(row) * w.row_bytes;
  if (w.type == 0 || w.type == 1 || w.type == 30) {
    const std::uint32_t first = block * 32;
    for (std::uint32_t i = 0; i < 32; ++i) {
      const std::uint32_t c = first + i;
      out[i] = c >= w.cols   ? 0.0f
               : w.type == 0 ? reinterpret_cast<const float*>(p)[c]
               : w.type == 1 ? half_at(p + 2ull * c)
                             : bf16_at(p + 2ull * c);
    }
    return;
  }
  switch (w.type) {
    case 2:
    case 20:
      return small_block(w.type, p + 18ull * block, out);
    case 3:
      return small_block(w.type, p + 20ull * block, out);
    case 6:
      return small_block(w.type, p + 22ull * block, out);
    case 7:
      return small_block(w.type, p + 24ull * block, out);
    case 8:
      return small_block(w.type, p + 34ull * block, out);
    case 39:
      return small_block(w.type, p + 17ull * block, out);
    case 10:
      return group_of_256(w.type, p + 84ull * (block / 8), block % 8, out);
    case 11:
      return group_of_256(w.type, p + 110ull * (block / 8), block % 8, out);
    case 12:
      return group_of_256(w.type, p + 144ull * (block / 8), block % 8, out);
    case 13:
      return group_of_256(w.type, p + 176ull * (block / 8), block % 8, out);
    case 14:
      return group_of_256(w.type, p + 210ull * (block / 8), block % 8, out);
    case 23:
      return group_of_256(w.type, p + 136ull * (block / 8), block % 8, out);
  }
}

}  // namespace steelyard::cuda
