// Blocks to floats, exactly as each format defines it.
#include <bit>
#include <cstring>

#include "base/dtype.h"
#include "base/error.h"
#include "quant/blocks.h"
#include "quant/codebooks.h"
#include "quant/half.h"
#include "quant/quant.h"

namespace steelyard {

float mxfp4_scale(std::uint8_t e) {
  return e < 2 ? std::bit_cast<float>(0x00200000u << e) : std::bit_cast<float>((e - 1u) << 23);
}

namespace {

void block(const BlockQ4_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((b.qs[i] & 15) - 8);
    out[i + 16] = d * static_cast<float>((b.qs[i] >> 4) - 8);
  }
}

void block(const BlockQ4_1& b, float* out) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(b.qs[i] & 15) + m;
    out[i + 16] = d * static_cast<float>(b.qs[i] >> 4) + m;
  }
}

// The fifth bit of element i, in place.
int fifth(const std::uint8_t* qh, int i) { return (qh[i / 8] >> i % 8 & 1) << 4; }

void block(const BlockQ5_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(((b.qs[i] & 15) | fifth(b.qh, i)) - 16);
    out[i + 16] = d * static_cast<float>((b.qs[i] >> 4 | fifth(b.qh, i + 16)) - 16);
  }
}

void block(const BlockQ5_1& b, float* out) {
  const float d = half_to_float(b.d), m = half_to_float(b.m);
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>((b.qs[i] & 15) | fifth(b.qh, i)) + m;
    out[i + 16] = d * static_cast<float>(b.qs[i] >> 4 | fifth(b.qh, i + 16)) + m;
  }
}

void block(const BlockQ8_0& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 32; ++i) out[i] = d * static_cast<float>(b.qs[i]);
}

void codebook_group(float d, const std::int8_t* values, const std::uint8_t* qs, float* out) {
  for (int i = 0; i < 16; ++i) {
    out[i] = d * static_cast<float>(values[qs[i] & 15]);
    out[i + 16] = d * static_cast<float>(values[qs[i] >> 4]);
  }
}

void block(const BlockIq4Nl& b, float* out) {
  codebook_group(half_to_float(b.d), kIq4Values.data(), b.qs, out);
}

void block(const BlockMxfp4& b, float* out) {
  codebook_group(mxfp4_scale(b.e), kMxfp4Values.data(), b.qs, out);
}

void block(const BlockIq4Xs& b, float* out) {
  const float d = half_to_float(b.d);
  for (int g = 0; g < 8; ++g) {
    const int scale = (b.scales_l[g / 2] >> 4 * (g % 2) & 15) | (b.scales_h >> 2 * g & 3) << 4;
    codebook_group(d * static_cast<float>(scale - 32), kIq4Values.data(), b.qs + 16 * g, out + 32 * g);
  }
}

void block(const BlockQ2K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int i = 0; i < 256; ++i) {
    const std::uint8_t scales = b.scales[i / 16];
    const int q = b.qs[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3;
    out[i] =
        d * static_cast<float>(scales & 15) * static_cast<float>(q) - dmin * static_cast<float>(scales >> 4);
  }
}

void block(const BlockQ3K& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const int low = b.qs[i / 128 * 32 + i % 32] >> 2 * (i / 32 % 4) & 3;
    const int high = b.hmask[i % 32] >> i / 32 & 1;
    const int scale = unpack_scale_q3k(b.scales, i / 16) - 32;
    out[i] = d * static_cast<float>(scale) * static_cast<float>(low + 4 * high - 4);
  }
}

void block(const BlockQ4K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const auto [scale, min] = unpack_scale_min(b.scales, g);
    const float ds = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; ++l) {
      const int q = b.qs[g / 2 * 32 + l] >> 4 * (g % 2) & 15;
      out[32 * g + l] = ds * static_cast<float>(q) - m;
    }
  }
}

void block(const BlockQ5K& b, float* out) {
  const float d = half_to_float(b.d), dmin = half_to_float(b.dmin);
  for (int g = 0; g < 8; ++g) {
    const auto [scale, min] = unpack_scale_min(b.scales, g);
    const float ds = d * static_cast<float>(scale), m = dmin * static_cast<float>(min);
    for (int l = 0; l < 32; ++l) {
      const int q = (b.qs[g / 2 * 32 + l] >> 4 * (g % 2) & 15) | (b.qh[l] >> g & 1) << 4;
      out[32 * g + l] = ds * static_cast<float>(q) - m;
    }
  }
}

void block(const BlockQ6K& b, float* out) {
  const float d = half_to_float(b.d);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i / 32 % 4, l = i % 32;
    const int low = b.ql[64 * half + 32 * (quarter % 2) + l] >> 4 * (quarter / 2) & 15;
    const int high = b.qh[32 * half + l] >> 2 * quarter & 3;
    out[i] = d * static_cast<float>(b.scales[i / 16]) * static_cast<float>((low | high << 4) - 32);
  }
}

template <typename Block, int kElements>
void all(const std::byte* blocks, std::uint64_t n, float* out) {
  for (std::uint64_t i = 0; i < n; i += kElements, blocks += sizeof(Block)) {
    Block copy;  // blocks may lie at any address
    std::memcpy(&copy, blocks, sizeof copy);
    block(copy, out + i);
  }
}

template <float (*kConvert)(std::uint16_t)>
void all_16bit(const std::byte* data, std::uint64_t n, float* out) {
  for (std::uint64_t i = 0; i < n; ++i) {
    std::uint16_t bits;
    std::memcpy(&bits, data + 2 * i, 2);
    out[i] = kConvert(bits);
  }
}

}  // namespace

void dequantize(DType type, const std::byte* blocks, std::uint64_t n, float* out) {
  if (n % dtype_info(type).block != 0) {
    throw_error(ErrorKind::internal, "{} elements are no whole blocks of {}", n, dtype_info(type).name);
  }
  switch (type) {
    case DType::F32:
      if (n != 0) std::memcpy(out, blocks, n * 4);  // nullptr goes with n == 0
      return;
    case DType::F16:
      return all_16bit<half_to_float>(blocks, n, out);
    case DType::BF16:
      return all_16bit<bf16_to_float>(blocks, n, out);
    case DType::Q4_0:
      return all<BlockQ4_0, 32>(blocks, n, out);
    case DType::Q4_1:
      return all<BlockQ4_1, 32>(blocks, n, out);
    case DType::Q5_0:
      return all<BlockQ5_0, 32>(blocks, n, out);
    case DType::Q5_1:
      return all<BlockQ5_1, 32>(blocks, n, out);
    case DType::Q8_0:
      return all<BlockQ8_0, 32>(blocks, n, out);
    case DType::Q2_K:
      return all<BlockQ2K, 256>(blocks, n, out);
    case DType::Q3_K:
      return all<BlockQ3K, 256>(blocks, n, out);
    case DType::Q4_K:
      return all<BlockQ4K, 256>(blocks, n, out);
    case DType::Q5_K:
      return all<BlockQ5K, 256>(blocks, n, out);
    case DType::Q6_K:
      return all<BlockQ6K, 256>(blocks, n, out);
    case DType::IQ4_NL:
      return all<BlockIq4Nl, 32>(blocks, n, out);
    case DType::IQ4_XS:
      return all<BlockIq4Xs, 256>(blocks, n, out);
    case DType::MXFP4:
      return all<BlockMxfp4, 32>(blocks, n, out);
  }
}

}  // namespace steelyard
