// How the kernels read packed weights (pack.h). Included inside an unnamed namespace after
// kernels_impl_math.h.

// Reads the records of pack.h. Per block: tiles() gives 8 vectors of unsigned codes, scales(..) the factors;
// a value is scale * (code - kOffset) + minimum.
struct Scales {  // of one record, [block][half] where there are several
  float scale[16][16];
  float minimum[8][16];
};

STEELYARD_INLINE void nibble_tiles(const std::uint8_t* p, VI w[8]) {
  const VI low = vi_set(0x0f0f0f0f);
  for (int t = 0; t < 4; ++t) {
    const VI q = vi_load(p + 64 * t);
    w[t] = vi_and(q, low);
    w[t + 4] = vi_and(vi_shr<4>(q), low);
  }
}
STEELYARD_INLINE void add_high_bits(const std::uint8_t* p, VI w[8]) {
  const VI h = vi_load(p), bit = vi_set(0x10101010);
  w[0] = vi_or_and(w[0], vi_shl<4>(h), bit);
  w[1] = vi_or_and(w[1], vi_shl<3>(h), bit);
  w[2] = vi_or_and(w[2], vi_shl<2>(h), bit);
  w[3] = vi_or_and(w[3], vi_shl<1>(h), bit);
  w[4] = vi_or_and(w[4], h, bit);
  w[5] = vi_or_and(w[5], vi_shr<1>(h), bit);
  w[6] = vi_or_and(w[6], vi_shr<2>(h), bit);
  w[7] = vi_or_and(w[7], vi_shr<3>(h), bit);
}
STEELYARD_INLINE void add_high_pairs(const std::uint8_t* p, VI w[8]) {
  const VI bits = vi_set(0x30303030);
  for (int t = 0; t < 2; ++t) {
    const VI h = vi_load(p + 64 * t);
    w[4 * t] = vi_or_and(w[4 * t], vi_shl<4>(h), bits);
    w[4 * t + 1] = vi_or_and(w[4 * t + 1], vi_shl<2>(h), bits);
    w[4 * t + 2] = vi_or_and(w[4 * t + 2], h, bits);
    w[4 * t + 3] = vi_or_and(w[4 * t + 3], vi_shr<2>(h), bits);
  }
}

// Types with one record a block: scale (and minimum) straight from memory.
template <bool HasMin, bool HasHigh, int Shift>
struct Block32 {
  static constexpr int kBlocks = 1, kHalves = 1, kShift = Shift;  // offset = 1 << Shift, or none: -1
  static constexpr bool kMin = HasMin, kFull = false;
  static constexpr std::uint32_t kHead = HasMin ? 64 : 32;
  static constexpr std::uint32_t kRecord = kHead + (HasHigh ? 64 : 0) + 256;
  STEELYARD_INLINE void scales(const std::uint8_t* p, Scales& s) {
    vf_store(s.scale[0], vf_load_f16(p));
    if constexpr (HasMin) vf_store(s.minimum[0], vf_load_f16(p + 32));
  }
  STEELYARD_INLINE void tiles(const std::uint8_t* p, int, VI w[8]) {
    nibble_tiles(p + kRecord - 256, w);
    if constexpr (HasHigh) add_high_bits(p + kHead, w);
  }
};
using PackedQ4_0 = Block32<false, false, 3>;
using PackedQ4_1 = Block32<true, false, -1>;
using PackedQ5_0 = Block32<false, true, 4>;
using PackedQ5_1 = Block32<true, true, -1>;

// Four-bit codes that stand for values of a table, here plus the offset.
alignas(16) constexpr std::uint8_t kMxfp4Codes[16] = {16, 17, 18, 19, 20, 22, 24, 28,
                                                      16, 15, 14, 13, 12, 10, 8,  4};
alignas(16) constexpr std::uint8_t kIq4Codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                    129, 141, 153, 166, 181, 197, 217, 241};
STEELYARD_INLINE void table_tiles(const std::uint8_t* table, const std::uint8_t* p, VI w[8]) {
  nibble_tiles(p, w);
  for (int t = 0; t < 8; ++t) w[t] = vi_lookup(table, w[t]);
}

struct PackedMXFP4 {
  static constexpr int kBlocks = 1, kHalves = 1, kShift = 4;
  static constexpr bool kMin = false, kFull = false;
  static constexpr std::uint32_t kRecord = 16 + 256;
  // 2^(e - 128): subnormal for e < 2.
  STEELYARD_INLINE void scales(const std::uint8_t* p, Scales& s) {
    const VI e = vi_load_u8(p);
    const VF normal = vi_as_float(vi_shl<23>(vi_sub(e, vi_set(1))));
    const VF small = vi_as_float(vi_shl<21>(vi_add(e, vi_set(1))));
    vf_store(s.scale[0], vf_less_select(vi_to_float(e), vf_set(2.0f), small, normal));
  }
  STEELYARD_INLINE void tiles(const std::uint8_t* p, int, VI w[8]) { table_tiles(kMxfp4Codes, p + 16, w); }
};

struct PackedIQ4_NL {
  static constexpr int kBlocks = 1, kHalves = 1, kShift = 7;
  static constexpr bool kMin = false, kFull = true;
  static constexpr std::uint32_t kRecord = 32 + 256;
  STEELYARD_INLINE void scales(const std::uint8_t* p, Scales& s) { vf_store(s.scale[0], vf_load_f16(p)); }
  STEELYARD_INLINE void tiles(const std::uint8_t* p, int, VI w[8]) { table_tiles(kIq4Codes, p + 32, w); }
};

struct PackedQ8_0 {
  static constexpr int kBlocks = 1, kHalves = 1, kShift = 7;
  static constexpr bool kMin = false, kFull = true;
  static constexpr std::uint32_t kRecord = 32 + 512;
  STEELYARD_INLINE void scales(const std::uint8_t* p, Scales& s) { vf_store(s.scale[0], vf_load_f16(p)); }
  STEELYARD_INLINE void tiles(const std::uint8_t* p, int, VI w[8]) {
    for (int t = 0; t < 8; ++t) w[t] = vi_load(p + 32 + 64 * t);
  }
};

template <bool HasHigh>
struct SuperK {
  static constexpr int kBlocks = 8, kHalves = 1, kShift = -1;
  static constexpr bool kMin = true, kFull = false;
  static constexpr std::uint32_t kBlock = 256 + (HasHigh ? 64 : 0);
  static constexpr std::uint32_t kRecord = 64 + 192 + 8 * kBlock;
  STEELYARD_INLINE void scales(const std::uint8_t* p, Scales& s) {
    const VF d = vf_load_f16(p), dmin = vf_sub(vf_zero(), vf_load_f16(p + 32));
    const VI v0 = vi_load(p + 64), v1 = vi_load(p + 128), v2 = vi_load(p + 192);
    const VI m =
        vi_or(vi_or(vi_and(vi_shr<6>(v0), vi_set(0x03030303)), vi_and(vi_shr<4>(v1), vi_set(0x0c0c0c0c))),
              vi_and(vi_shr<2>(v2), vi_set(0x30303030)));
    const VI six = vi_set(0x3f);
    for (int k = 0; k < 4; ++k) {
      vf_store(s.scale[k], vf_mul(d, vi_to_float(vi_and(vi_shr_n(v0, 8 * k), six))));
      vf_store(s.scale[k + 4], vf_mul(d, vi_to_float(vi_and(vi_shr_n(v1, 8 * k), six))));
      vf_store(s.minimum[k], vf_mul(dmin, vi_to_float(vi_and(vi_shr_n(v2, 8 * k), six))));
      vf_store(s.minimum[k + 4], vf_mul(dmin, vi_to_float(vi_and(vi_shr_n(m, 8 * k), six))));
    }
  }
  STEELYARD_INLINE void tiles(const std::uint8_t* p, int b, VI w[8]) {
    const std::uint8_t* q = p + 256 + static_cast<std::uint32_t>(b) * kBlock;
    nibble_tiles(q + kBlock - 256, w);
    if constexpr (HasHigh) add_high_bits(q, w);
  }
};
using PackedQ4_K = SuperK<false>;
using PackedQ5_K = SuperK<true>;

struct PackedQ6_K {
  static constexpr int kBlocks = 8, kHalves = 2, kShift = 5;
  static constexpr bool kMin = false, kFull = false;
  static constexpr std::uint32_t kRecord = 32 + 256 + 8 * 384;
  STEELYARD_INLINE void scales(const std::uint8_t* p, Scales& s) {
    const VF d = vf_load_f16(p);
    for (int j = 0; j < 4; ++j) {
      const VI v = vi_load(p + 32 + 64 * j);
      vf_store(s.scale[4 * j], vf_mul(d, vi_to_float(vi_sar<24>(vi_shl<24>(v)))));
      vf_store(s.scale[4 * j + 1], vf_mul(d, vi_to_float(vi_sar<24>(vi_shl<16>(v)))));
      vf_store(s.scale[4 * j + 2], vf_mul(d, vi_to_float(vi_sar<24>(vi_shl<8>(v)))));
      vf_store(s.scale[4 * j + 3], vf_mul(d, vi_to_float(vi_sar<24>(v))));
    }
  }
  STEELYARD_INLINE void tiles(const std::uint8_t* p, int b, VI w[8]) {
    const std::uint8_t* q = p + 288 + static_cast<std::uint32_t>(b) * 384;
    nibble_tiles(q + 128, w);
    add_high_pairs(q, w);
  }
};

STEELYARD_INLINE VF bcast_f(const std::uint8_t* p) {
  float x;
  __builtin_memcpy(&x, p, 4);
  return vf_set(x);
}
