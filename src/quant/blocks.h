// Layouts of quantised blocks, field by field as they lie in a file, and the packed 6-bit scales of the
// 256-weight types. All structs have alignment 2 or 1 and no padding.
#pragma once

#include <cstdint>

namespace steelyard {

struct BlockQ4_0 {      // w = d (q - 8)
  std::uint16_t d;      // half, as all d, m and dmin below
  std::uint8_t qs[16];  // element i low, i + 16 high nibble
};
struct BlockQ4_1 {  // w = d q + m
  std::uint16_t d, m;
  std::uint8_t qs[16];
};
struct BlockQ5_0 {  // w = d (q - 16)
  std::uint16_t d;
  std::uint8_t qh[4];  // bit i: the fifth bit of element i
  std::uint8_t qs[16];
};
struct BlockQ5_1 {  // w = d q + m
  std::uint16_t d, m;
  std::uint8_t qh[4];
  std::uint8_t qs[16];
};
struct BlockQ8_0 {  // w = d q
  std::uint16_t d;
  std::int8_t qs[32];
};
struct BlockIq4Nl {  // w = d kIq4Values[q]
  std::uint16_t d;
  std::uint8_t qs[16];
};
struct BlockMxfp4 {  // w = 2^(e - 128) kMxfp4Values[q]
  std::uint8_t e;
  std::uint8_t qs[16];
};

struct BlockQ2K {           // 16 groups of 16: w = (d sc) q - (dmin m)
  std::uint8_t scales[16];  // sc low, m high nibble
  std::uint8_t qs[64];      // element 128 h + 32 s + l: bits 2 s of qs[32 h + l]
  std::uint16_t d, dmin;
};
struct BlockQ3K {           // 16 groups of 16: w = (d (sc - 32)) (q - 4), q's third bit in hmask
  std::uint8_t hmask[32];   // bit b of hmask[l]: element 32 b + l
  std::uint8_t qs[64];      // low two bits, as in Q2_K
  std::uint8_t scales[12];  // 16 of 6 bits
  std::uint16_t d;
};
struct BlockQ4K {  // 8 groups of 32: w = (d sc) q - (dmin m)
  std::uint16_t d, dmin;
  std::uint8_t scales[12];  // 8 scales and 8 minimums of 6 bits
  std::uint8_t qs[128];     // groups 2 p (low) and 2 p + 1 (high) share qs[32 p ..]
};
struct BlockQ5K {  // as Q4_K with a fifth bit
  std::uint16_t d, dmin;
  std::uint8_t scales[12];
  std::uint8_t qh[32];  // bit g of qh[l]: element l of group g
  std::uint8_t qs[128];
};
struct BlockQ6K {        // 16 groups of 16: w = (d sc) (q - 32)
  std::uint8_t ql[128];  // low 4 bits: half h, quarters 0 and 2 share ql[64 h ..], 1 and 3 ql[64 h + 32 ..]
  std::uint8_t qh[64];   // high 2 bits: bits 2 s of qh[32 h + l], quarter s
  std::int8_t scales[16];
  std::uint16_t d;
};
struct BlockIq4Xs {  // 8 groups of 32: w = (d (sc - 32)) kIq4Values[q]
  std::uint16_t d;
  std::uint16_t scales_h;    // two high bits per group
  std::uint8_t scales_l[4];  // four low bits per group
  std::uint8_t qs[128];      // 16 bytes per group, nibbles as in Q4_0
};

static_assert(sizeof(BlockQ4_0) == 18 && sizeof(BlockQ4_1) == 20 && sizeof(BlockQ5_0) == 22);
static_assert(sizeof(BlockQ5_1) == 24 && sizeof(BlockQ8_0) == 34 && sizeof(BlockIq4Nl) == 18);
static_assert(sizeof(BlockMxfp4) == 17 && sizeof(BlockQ2K) == 84 && sizeof(BlockQ3K) == 110);
static_assert(sizeof(BlockQ4K) == 144 && sizeof(BlockQ5K) == 176 && sizeof(BlockQ6K) == 210);
static_assert(sizeof(BlockIq4Xs) == 136);

// The scale and minimum of group g (0 … 7) of Q4_K and Q5_K: groups 0–3 are the low six bits of bytes g and
// g + 4; groups 4–7 have their low nibble in byte g + 4 and two high bits atop bytes g - 4 and g.
struct ScaleMin {
  std::uint8_t scale, min;
};
inline ScaleMin unpack_scale_min(const std::uint8_t* s, int g) {
  if (g < 4) return {static_cast<std::uint8_t>(s[g] & 63), static_cast<std::uint8_t>(s[g + 4] & 63)};
  return {static_cast<std::uint8_t>((s[g + 4] & 15) | (s[g - 4] >> 6) << 4),
          static_cast<std::uint8_t>(s[g + 4] >> 4 | (s[g] >> 6) << 4)};
}
inline void pack_scale_min(std::uint8_t* s, int g, ScaleMin value) {  // s all zero before the first
  if (g < 4) {
    s[g] |= value.scale;
    s[g + 4] |= value.min;
    return;
  }
  s[g + 4] |= static_cast<std::uint8_t>((value.scale & 15) | (value.min & 15) << 4);
  s[g - 4] |= static_cast<std::uint8_t>((value.scale >> 4) << 6);
  s[g] |= static_cast<std::uint8_t>((value.min >> 4) << 6);
}

// The scale (0 … 63) of group g (0 … 15) of Q3_K: low nibbles of bytes 0–7 for groups 0–7, high ones for
// 8–15; two high bits in bytes 8–11, group g at bits 2 (g / 4) of byte 8 + g mod 4.
inline std::uint8_t unpack_scale_q3k(const std::uint8_t* s, int g) {
  const int low = g < 8 ? s[g] & 15 : s[g - 8] >> 4;
  return static_cast<std::uint8_t>(low | (s[8 + g % 4] >> 2 * (g / 4) & 3) << 4);
}
inline void pack_scale_q3k(std::uint8_t* s, int g, std::uint8_t scale) {  // s all zero before the first
  s[g % 8] |= static_cast<std::uint8_t>((scale & 15) << (g < 8 ? 0 : 4));
  s[8 + g % 4] |= static_cast<std::uint8_t>(scale >> 4 << 2 * (g / 4));
}

// 2^(e - 128) of MXFP4, subnormal for e < 2.
float mxfp4_scale(std::uint8_t e);

}  // namespace steelyard
