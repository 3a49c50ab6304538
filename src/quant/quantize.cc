// Floats to blocks: the plain formats by rounding, the K formats with searched scales.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/dtype.h"
#include "base/error.h"
#include "quant/blocks.h"
#include "quant/codebooks.h"
#include "quant/half.h"
#include "quant/quant.h"
#include "quant/search.h"

namespace steelyard {
namespace {

constexpr std::array<float, 32> kEqualWeights = [] {
  std::array<float, 32> w{};
  w.fill(1);
  return w;
}();

// A scale as a half, kept finite.
std::uint16_t finite_half(float f) { return float_to_half(std::clamp(f, -65504.0f, 65504.0f)); }
float inverse_or_zero(float d) { return d != 0 ? 1 / d : 0; }

// Nibbles: element i low, element i + 16 high.
void pack_nibbles(const std::uint8_t* codes, std::uint8_t* qs) {
  for (int i = 0; i < 16; ++i) qs[i] = static_cast<std::uint8_t>((codes[i] & 15) | (codes[i + 16] & 15) << 4);
}

void pack_fifth_bits(const std::uint8_t* codes, std::uint8_t* qh) {
  for (int i = 0; i < 32; ++i) qh[i / 8] |= static_cast<std::uint8_t>((codes[i] >> 4) << i % 8);
}

// ---- 32-weight types

// Codes q + offset for x ≈ d q, -offset ≤ q < offset; returns d as a half.
std::uint16_t signed_codes(const float* x, int offset, std::uint8_t* codes) {
  const std::uint16_t d = finite_half(search_scale({x, 32}, kEqualWeights, -offset, offset - 1));
  const float inverse = inverse_or_zero(half_to_float(d));
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<std::uint8_t>(nearest_code(x[i] * inverse, -offset, offset - 1) + offset);
  return d;
}

struct HalfAffine {
  std::uint16_t d, m;
};
HalfAffine affine_codes(const float* x, int levels, std::uint8_t* codes) {
  const Affine fit = search_affine({x, 32}, kEqualWeights, levels, false);
  const HalfAffine half{finite_half(fit.d), finite_half(fit.m)};
  const float inverse = inverse_or_zero(half_to_float(half.d)), m = half_to_float(half.m);
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<std::uint8_t>(nearest_code((x[i] - m) * inverse, 0, levels));
  return half;
}

void block(const float* x, BlockQ4_0& b) {
  std::uint8_t codes[32];
  b.d = signed_codes(x, 8, codes);
  pack_nibbles(codes, b.qs);
}

void block(const float* x, BlockQ5_0& b) {
  std::uint8_t codes[32];
  b.d = signed_codes(x, 16, codes);
  pack_nibbles(codes, b.qs);
  pack_fifth_bits(codes, b.qh);
}

void block(const float* x, BlockQ4_1& b) {
  std::uint8_t codes[32];
  const HalfAffine fit = affine_codes(x, 15, codes);
  b.d = fit.d;
  b.m = fit.m;
  pack_nibbles(codes, b.qs);
}

void block(const float* x, BlockQ5_1& b) {
  std::uint8_t codes[32];
  const HalfAffine fit = affine_codes(x, 31, codes);
  b.d = fit.d;
  b.m = fit.m;
  pack_nibbles(codes, b.qs);
  pack_fifth_bits(codes, b.qh);
}

void block(const float* x, BlockQ8_0& b) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
  const float d = largest / 127;
  b.d = finite_half(d);
  const float inverse = inverse_or_zero(d);
  for (int i = 0; i < 32; ++i) b.qs[i] = static_cast<std::int8_t>(nearest_code(x[i] * inverse, -127, 127));
}

void codebook_codes(const float* x, float d, std::uint8_t* qs) {
  const float inverse = inverse_or_zero(d);
  std::uint8_t codes[32];
  for (int i = 0; i < 32; ++i)
    codes[i] = static_cast<std::uint8_t>(nearest_entry(x[i] * inverse, kIq4Values.data()));
  pack_nibbles(codes, qs);
}

void block(const float* x, BlockIq4Nl& b) {
  b.d = finite_half(search_codebook_scale({x, 32}, kEqualWeights, kIq4Values.data()));
  codebook_codes(x, half_to_float(b.d), b.qs);
}

// Code of the nearest E2M1 value (doubled); sign in bit 3.
std::uint8_t mxfp4_code(float doubled) {
  constexpr std::array<float, 7> kMidpoints = {0.5f, 1.5f, 2.5f, 3.5f, 5, 7, 10};
  const float magnitude = std::abs(doubled);
  std::uint8_t code = 0;
  while (code < 7 && magnitude > kMidpoints[code]) ++code;
  return static_cast<std::uint8_t>(code | (doubled < 0 && code != 0 ? 8 : 0));
}

void block(const float* x, BlockMxfp4& b) {
  float largest = 0;
  for (int i = 0; i < 32; ++i) largest = std::max(largest, std::abs(x[i]));
  // 12 · 2^(e-128) near the largest: one of the two exponents around it, whichever errs less.
  const int exponent = largest > 0 ? std::ilogb(largest / 12) + 128 : 0;
  float best = INFINITY;
  for (const int e : {exponent, exponent + 1}) {
    const auto byte = static_cast<std::uint8_t>(std::clamp(e, 0, 254));
    const float scale = mxfp4_scale(byte);
    std::uint8_t codes[32];
    float error = 0;
    for (int i = 0; i < 32; ++i) {
      codes[i] = mxfp4_code(x[i] / scale);
      const float difference = x[i] - scale * static_cast<float>(kMxfp4Values[codes[i]]);
      error += difference * difference;
    }
    if (error < best || e == exponent) {
      best = error;
      b.e = byte;
      pack_nibbles(codes, b.qs);
    }
  }
}

// ---- 256-weight types

// Weights of a group's errors: large values matter more for dot products.
void magnitude_weights(std::span<const float> x, float* w) {
  float squares = 0;
  for (const float v : x) squares += v * v;
  const float rms = std::sqrt(squares / static_cast<float>(x.size()));
  for (std::size_t i = 0; i < x.size(); ++i) w[i] = rms + std::abs(x[i]);
}

// Codes 0 … levels of 256 values in groups of kGroup: w = (d sc) q - (dmin m), sc and m up to `most`.
template <int kGroup>
struct AffineGroups {
  static constexpr int kGroups = 256 / kGroup;
  std::uint16_t d, dmin;
  std::array<ScaleMin, kGroups> scales;
  std::array<std::uint8_t, 256> codes;

  AffineGroups(const float* x, int levels, int most) {
    std::array<Affine, kGroups> fits;
    float largest_d = 0, largest_m = 0;
    for (int g = 0; g < kGroups; ++g) {
      const std::span<const float> group(x + g * kGroup, kGroup);
      float w[kGroup];
      magnitude_weights(group, w);
      fits[g] = search_affine(group, w, levels, true);
      largest_d = std::max(largest_d, fits[g].d);
      largest_m = std::max(largest_m, -fits[g].m);
    }
    d = finite_half(largest_d / static_cast<float>(most));
    dmin = finite_half(largest_m / static_cast<float>(most));
    const float unit = half_to_float(d), unit_min = half_to_float(dmin);
    for (int g = 0; g < kGroups; ++g) {
      scales[g].scale = static_cast<std::uint8_t>(nearest_code(fits[g].d * inverse_or_zero(unit), 0, most));
      scales[g].min =
          static_cast<std::uint8_t>(nearest_code(-fits[g].m * inverse_or_zero(unit_min), 0, most));
      const float inverse = inverse_or_zero(unit * static_cast<float>(scales[g].scale));
      const float m = unit_min * static_cast<float>(scales[g].min);
      for (int i = g * kGroup; i < (g + 1) * kGroup; ++i)
        codes[i] = static_cast<std::uint8_t>(nearest_code((x[i] + m) * inverse, 0, levels));
    }
  }
};

// Signed scales of groups: the half d and codes lo … hi with d·code nearest to each scale; the scale furthest
// from zero is put at lo.
template <std::size_t kGroups>
std::uint16_t code_scales(const std::array<float, kGroups>& scales, int lo, int hi,
                          std::array<int, kGroups>& codes) {
  float extreme = 0;
  for (const float s : scales)
    if (std::abs(s) > std::abs(extreme)) extreme = s;
  const std::uint16_t d = finite_half(extreme / static_cast<float>(lo));
  const float inverse = inverse_or_zero(half_to_float(d));
  for (std::size_t g = 0; g < kGroups; ++g) codes[g] = nearest_code(scales[g] * inverse, lo, hi);
  return d;
}

// Codes -offset … offset-1 (stored + offset) of 16 groups of 16: w = (d sc) q, scale_lo ≤ sc ≤ scale_hi.
struct SignedGroups {
  std::uint16_t d;
  std::array<int, 16> scales;
  std::array<std::uint8_t, 256> codes;

  SignedGroups(const float* x, int offset, int scale_lo, int scale_hi) {
    std::array<float, 16> fits;
    for (int g = 0; g < 16; ++g) {
      const std::span<const float> group(x + 16 * g, 16);
      float w[16];
      magnitude_weights(group, w);
      fits[g] = search_scale(group, w, -offset, offset - 1);
    }
    d = code_scales(fits, scale_lo, scale_hi, scales);
    for (int i = 0; i < 256; ++i) {
      const float inverse = inverse_or_zero(half_to_float(d) * static_cast<float>(scales[i / 16]));
      codes[i] = static_cast<std::uint8_t>(nearest_code(x[i] * inverse, -offset, offset - 1) + offset);
    }
  }
};

// Two bits of each code, as in Q2_K and Q3_K.
void pack_pairs(const std::array<std::uint8_t, 256>& codes, std::uint8_t* qs) {
  for (int i = 0; i < 256; ++i)
    qs[i / 128 * 32 + i % 32] |= static_cast<std::uint8_t>((codes[i] & 3) << 2 * (i / 32 % 4));
}

// Four bits of each code: groups of 32 in pairs, as in Q4_K and Q5_K.
void pack_group_nibbles(const std::array<std::uint8_t, 256>& codes, std::uint8_t* qs) {
  for (int i = 0; i < 256; ++i)
    qs[i / 64 * 32 + i % 32] |= static_cast<std::uint8_t>((codes[i] & 15) << 4 * (i / 32 % 2));
}

void block(const float* x, BlockQ2K& b) {
  const AffineGroups<16> groups(x, 3, 15);
  b.d = groups.d;
  b.dmin = groups.dmin;
  for (int g = 0; g < 16; ++g)
    b.scales[g] = static_cast<std::uint8_t>(groups.scales[g].scale | groups.scales[g].min << 4);
  pack_pairs(groups.codes, b.qs);
}

void block(const float* x, BlockQ3K& b) {
  const SignedGroups groups(x, 4, -32, 31);
  b.d = groups.d;
  for (int g = 0; g < 16; ++g) pack_scale_q3k(b.scales, g, static_cast<std::uint8_t>(groups.scales[g] + 32));
  pack_pairs(groups.codes, b.qs);
  for (int i = 0; i < 256; ++i)
    b.hmask[i % 32] |= static_cast<std::uint8_t>((groups.codes[i] >> 2) << i / 32);
}

template <typename Block>
AffineGroups<32> affine_superblock(const float* x, int levels, Block& b) {
  const AffineGroups<32> groups(x, levels, 63);
  b.d = groups.d;
  b.dmin = groups.dmin;
  for (int g = 0; g < 8; ++g) pack_scale_min(b.scales, g, groups.scales[g]);
  pack_group_nibbles(groups.codes, b.qs);
  return groups;
}

void block(const float* x, BlockQ4K& b) { affine_superblock(x, 15, b); }

void block(const float* x, BlockQ5K& b) {
  const AffineGroups<32> groups = affine_superblock(x, 31, b);
  for (int i = 0; i < 256; ++i) b.qh[i % 32] |= static_cast<std::uint8_t>((groups.codes[i] >> 4) << i / 32);
}

void block(const float* x, BlockQ6K& b) {
  const SignedGroups groups(x, 32, -128, 127);
  b.d = groups.d;
  for (int g = 0; g < 16; ++g) b.scales[g] = static_cast<std::int8_t>(groups.scales[g]);
  for (int i = 0; i < 256; ++i) {
    const int half = i / 128, quarter = i / 32 % 4, l = i % 32;
    b.ql[64 * half + 32 * (quarter % 2) + l] |=
        static_cast<std::uint8_t>((groups.codes[i] & 15) << 4 * (quarter / 2));
    b.qh[32 * half + l] |= static_cast<std::uint8_t>((groups.codes[i] >> 4) << 2 * quarter);
  }
}

void block(const float* x, BlockIq4Xs& b) {
  std::array<float, 8> fits;
  for (int g = 0; g < 8; ++g) {
    const std::span<const float> group(x + 32 * g, 32);
    float w[32];
    magnitude_weights(group, w);
    fits[g] = search_codebook_scale(group, w, kIq4Values.data());
  }
  std::array<int, 8> scales;
  b.d = code_scales(fits, -32, 31, scales);
  for (int g = 0; g < 8; ++g) {
    const int code = scales[g] + 32;
    b.scales_l[g / 2] |= static_cast<std::uint8_t>((code & 15) << 4 * (g % 2));
    b.scales_h = static_cast<std::uint16_t>(b.scales_h | (code >> 4) << 2 * g);
    codebook_codes(x + 32 * g, half_to_float(b.d) * static_cast<float>(scales[g]), b.qs + 16 * g);
  }
}

// ---- all blocks of a row or tensor

template <typename Block, int kElements>
void all(const float* values, std::uint64_t n, std::byte* out) {
  float x[kElements];
  for (std::uint64_t i = 0; i < n; i += kElements, out += sizeof(Block)) {
    for (int j = 0; j < kElements; ++j) x[j] = std::isfinite(values[i + j]) ? values[i + j] : 0.0f;
    Block b{};
    block(x, b);
    std::memcpy(out, &b, sizeof b);
  }
}

template <std::uint16_t (*kConvert)(float)>
void all_16bit(const float* values, std::uint64_t n, std::byte* out) {
  for (std::uint64_t i = 0; i < n; ++i) {
    const std::uint16_t bits = kConvert(values[i]);
    std::memcpy(out + 2 * i, &bits, 2);
  }
}

}  // namespace

void quantize(DType type, const float* values, std::uint64_t n, std::byte* out) {
  if (n % dtype_info(type).block != 0) {
    throw_error(ErrorKind::internal, "{} elements are no whole blocks of {}", n, dtype_info(type).name);
  }
  switch (type) {
    case DType::F32:
      if (n != 0) std::memcpy(out, values, n * 4);
      return;
    case DType::F16:
      return all_16bit<float_to_half>(values, n, out);
    case DType::BF16:
      return all_16bit<float_to_bf16>(values, n, out);
    case DType::Q4_0:
      return all<BlockQ4_0, 32>(values, n, out);
    case DType::Q4_1:
      return all<BlockQ4_1, 32>(values, n, out);
    case DType::Q5_0:
      return all<BlockQ5_0, 32>(values, n, out);
    case DType::Q5_1:
      return all<BlockQ5_1, 32>(values, n, out);
    case DType::Q8_0:
      return all<BlockQ8_0, 32>(values, n, out);
    case DType::Q2_K:
      return all<BlockQ2K, 256>(values, n, out);
    case DType::Q3_K:
      return all<BlockQ3K, 256>(values, n, out);
    case DType::Q4_K:
      return all<BlockQ4K, 256>(values, n, out);
    case DType::Q5_K:
      return all<BlockQ5K, 256>(values, n, out);
    case DType::Q6_K:
      return all<BlockQ6K, 256>(values, n, out);
    case DType::IQ4_NL:
      return all<BlockIq4Nl, 32>(values, n, out);
    case DType::IQ4_XS:
      return all<BlockIq4Xs, 256>(values, n, out);
    case DType::MXFP4:
      return all<BlockMxfp4, 32>(values, n, out);
  }
}

}  // namespace steelyard
