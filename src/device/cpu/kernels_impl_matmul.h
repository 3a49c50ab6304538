// Products of packed weights and activations. Included inside an unnamed namespace after kernels_impl_math.h.
//
// One call of a kernel multiplies a group of 16 outputs (the lanes) with R rows of activations: per block of
// 32 columns the weights' 8 column groups are in registers as bytes, each row adds 8 byte dot products
// exactly in int32, then one float multiply-add per row and scale. The order over blocks is the same for
// every R.

// How far ahead of a stream of weights to ask for them; few rows only, where memory is the limit.
constexpr std::uint32_t kPrefetchBytes = 2048;

// Reads the records of pack.h. Per block: tiles() gives 8 vectors of unsigned codes, scales(..) the factors;
// a value is scale * (code - kOffset) + minimum.
struct Scales {  // of one record, [block][half] where there are several
  float scale[16][16];
  float minimum[8][16];
};

STRATA_INLINE void nibble_tiles(const std::uint8_t* p, VI w[8]) {
  const VI low = vi_set(0x0f0f0f0f);
  for (int t = 0; t < 4; ++t) {
    const VI q = vi_load(p + 64 * t);
    w[t] = vi_and(q, low);
    w[t + 4] = vi_and(vi_shr<4>(q), low);
  }
}
STRATA_INLINE void add_high_bits(const std::uint8_t* p, VI w[8]) {
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
STRATA_INLINE void add_high_pairs(const std::uint8_t* p, VI w[8]) {
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
  STRATA_INLINE void scales(const std::uint8_t* p, Scales& s) {
    vf_store(s.scale[0], vf_load_f16(p));
    if constexpr (HasMin) vf_store(s.minimum[0], vf_load_f16(p + 32));
  }
  STRATA_INLINE void tiles(const std::uint8_t* p, int, VI w[8]) {
    nibble_tiles(p + kRecord - 256, w);
    if constexpr (HasHigh) add_high_bits(p + kHead, w);
  }
};
using PackedQ4_0 = Block32<false, false, 3>;
using PackedQ4_1 = Block32<true, false, -1>;
using PackedQ5_0 = Block32<false, true, 4>;
using PackedQ5_1 = Block32<true, true, -1>;

struct PackedQ8_0 {
  static constexpr int kBlocks = 1, kHalves = 1, kShift = 7;
  static constexpr bool kMin = false, kFull = true;
  static constexpr std::uint32_t kRecord = 32 + 512;
  STRATA_INLINE void scales(const std::uint8_t* p, Scales& s) { vf_store(s.scale[0], vf_load_f16(p)); }
  STRATA_INLINE void tiles(const std::uint8_t* p, int, VI w[8]) {
    for (int t = 0; t < 8; ++t) w[t] = vi_load(p + 32 + 64 * t);
  }
};

template <bool HasHigh>
struct SuperK {
  static constexpr int kBlocks = 8, kHalves = 1, kShift = -1;
  static constexpr bool kMin = true, kFull = false;
  static constexpr std::uint32_t kBlock = 256 + (HasHigh ? 64 : 0);
  static constexpr std::uint32_t kRecord = 64 + 192 + 8 * kBlock;
  STRATA_INLINE void scales(const std::uint8_t* p, Scales& s) {
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
  STRATA_INLINE void tiles(const std::uint8_t* p, int b, VI w[8]) {
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
  STRATA_INLINE void scales(const std::uint8_t* p, Scales& s) {
    const VF d = vf_load_f16(p);
    for (int j = 0; j < 4; ++j) {
      const VI v = vi_load(p + 32 + 64 * j);
      vf_store(s.scale[4 * j], vf_mul(d, vi_to_float(vi_sar<24>(vi_shl<24>(v)))));
      vf_store(s.scale[4 * j + 1], vf_mul(d, vi_to_float(vi_sar<24>(vi_shl<16>(v)))));
      vf_store(s.scale[4 * j + 2], vf_mul(d, vi_to_float(vi_sar<24>(vi_shl<8>(v)))));
      vf_store(s.scale[4 * j + 3], vf_mul(d, vi_to_float(vi_sar<24>(v))));
    }
  }
  STRATA_INLINE void tiles(const std::uint8_t* p, int b, VI w[8]) {
    const std::uint8_t* q = p + 288 + static_cast<std::uint32_t>(b) * 384;
    nibble_tiles(q + 128, w);
    add_high_pairs(q, w);
  }
};

STRATA_INLINE VF bcast_f(const std::uint8_t* p) {
  float x;
  __builtin_memcpy(&x, p, 4);
  return vf_set(x);
}

// What a block needs beside its tiles. A weight is scale * (code - offset) + minimum, so that
//   sum w x = scale * x.scale * sum (code - offset) q + scale * x.middle * sum (code - offset) + minimum *
//   x.sum
struct Block {
  VF scale[2], minimum;
  VF sum;  // scale * sum (code - offset)
};

alignas(4) constexpr std::uint8_t kOnes[4] = {1, 1, 1, 1};

template <class W>
constexpr bool kSplit = W::kHalves == 2;  // columns 0..15 and 16..31 have their own scale
template <class W>
constexpr bool kOffset = W::kShift >= 0 && !(kSignedWeights && W::kFull);

template <class W>
STRATA_INLINE Block block_of(const Scales& s, int b, const VI w[8]) {
  Block k;
  k.scale[0] = vf_load(s.scale[b * W::kHalves]);
  k.scale[1] = vf_load(s.scale[b * W::kHalves + W::kHalves - 1]);
  k.minimum = W::kMin ? vf_load(s.minimum[b]) : vf_zero();
  const VI start = vi_set(kOffset<W> ? -((kSplit<W> ? 16 : 32) << (kOffset<W> ? W::kShift : 0)) : 0);
  VI lo = start, hi = start;
  for (int g = 0; g < 8; ++g) {
    VI& c = kSplit<W> && g >= 4 ? hi : lo;
    c = vi_dot<W::kFull>(c, w[g], kOnes);
  }
  k.sum = vf_mul(vi_to_float(lo), k.scale[0]);
  if constexpr (kSplit<W>) k.sum = vf_fma(vi_to_float(hi), k.scale[1], k.sum);
  return k;
}

// acc[r] += the products of one block, N rows at a time so that their chains of dot products overlap.
template <class W, int N>
STRATA_INLINE void block_rows(const VI w[8], const Block& k, const std::uint8_t* x, VF* acc) {
  constexpr std::uint32_t rec = record_bytes(ActFormat::q8);
  constexpr bool split = kSplit<W>;
  constexpr int shift = kOffset<W> ? W::kShift : 0;
  VI lo[N], hi[N];
  for (int r = 0; r < N; ++r) {
    const std::uint8_t* sums = x + r * rec + 40;
    lo[r] = kOffset<W> ? vi_shl<shift>(vi_bcast(sums + (split ? 0 : 8))) : vi_set(0);
    if constexpr (split) hi[r] = kOffset<W> ? vi_shl<shift>(vi_bcast(sums + 4)) : vi_set(0);
  }
  for (int g = 0; g < 8; ++g) {
    for (int r = 0; r < N; ++r) {
      VI& c = split && g >= 4 ? hi[r] : lo[r];
      c = vi_dot<W::kFull>(c, w[g], x + r * rec + 4 * g);
    }
  }
  for (int r = 0; r < N; ++r) {
    const std::uint8_t* tail = x + r * rec + 32;
    const VF scale = bcast_f(tail);
    if constexpr (split) {
      const VF s = vf_fma(vi_to_float(hi[r]), k.scale[1], vf_mul(vi_to_float(lo[r]), k.scale[0]));
      acc[r] = vf_fma(s, scale, acc[r]);
    } else {
      acc[r] = vf_fma(vf_mul(vi_to_float(lo[r]), scale), k.scale[0], acc[r]);
    }
    acc[r] = vf_fma(k.sum, bcast_f(tail + 4), acc[r]);
    if constexpr (W::kMin) acc[r] = vf_fma(k.minimum, bcast_f(tail + 20), acc[r]);
  }
}

// out[r][16], r < R: a group of weights times R rows of a tile. w: the group, x: the first row's first
// record.
template <class W, int R>
static void group_kernel(const std::uint8_t* w, const std::uint8_t* x, std::uint32_t records, float* out) {
  constexpr std::uint32_t rec = record_bytes(ActFormat::q8);
  constexpr int kStep = R >= 4 ? 4 : R;
  VF acc[R];
  for (int r = 0; r < R; ++r) acc[r] = vf_zero();
  for (std::uint32_t i = 0; i < records; ++i, w += W::kRecord) {
    if constexpr (R <= 4) {
      for (std::uint32_t line = 0; line < W::kRecord; line += 64) prefetch(w + kPrefetchBytes + line);
    }
    Scales s;
    W::scales(w, s);
    for (int b = 0; b < W::kBlocks; ++b, x += kActTile * rec) {
      VI tiles[8];
      W::tiles(w, b, tiles);
      const Block k = block_of<W>(s, b, tiles);
#pragma GCC unroll 4
      for (int r = 0; r < R; r += kStep) block_rows<W, kStep>(tiles, k, x + r * rec, acc + r);
    }
  }
  for (int r = 0; r < R; ++r) vf_store(out + 16 * r, acc[r]);
}

template <class W>
static void group_rows(const std::uint8_t* w, const std::uint8_t* x, std::uint32_t records, std::uint32_t n,
                       float* out) {
  constexpr std::uint32_t rec = record_bytes(ActFormat::q8);
  while (n > 0) {
    std::uint32_t done;
    if (kTileRows >= 16 && n >= 16) {
      group_kernel<W, kTileRows >= 16 ? 16 : 1>(w, x, records, out);
      done = 16;
    } else if (kTileRows >= 8 && n >= 8) {
      group_kernel<W, kTileRows >= 8 ? 8 : 1>(w, x, records, out);
      done = 8;
    } else if (kTileRows >= 4 && n >= 4) {
      group_kernel<W, kTileRows >= 4 ? 4 : 1>(w, x, records, out);
      done = 4;
    } else if (n >= 2) {
      group_kernel<W, 2>(w, x, records, out);
      done = 2;
    } else {
      group_kernel<W, 1>(w, x, records, out);
      done = 1;
    }
    n -= done;
    x += done * rec;
    out += 16 * done;
  }
}

// A group of 16 outputs times n <= 16 rows that start at row 0 of a tile: out[n][16].
using GroupFn = void (*)(const std::uint8_t* w, const std::uint8_t* x, std::uint32_t records, std::uint32_t n,
                         float* out);
struct GroupPlan {
  GroupFn fn = nullptr;
  std::uint32_t records = 0;
  std::uint64_t group_bytes = 0;
};

template <class W>
STRATA_INLINE GroupPlan plan_for(std::uint32_t cols) {
  GroupPlan plan;
  plan.fn = group_rows<W>;
  plan.records = cols / (32u * W::kBlocks);
  plan.group_bytes = std::uint64_t{plan.records} * W::kRecord;
  return plan;
}

static GroupPlan plan_group(const PackedMatrix& w) {
  switch (w.type) {
    case DType::Q4_0:
      return plan_for<PackedQ4_0>(w.cols);
    case DType::Q4_1:
      return plan_for<PackedQ4_1>(w.cols);
    case DType::Q5_0:
      return plan_for<PackedQ5_0>(w.cols);
    case DType::Q5_1:
      return plan_for<PackedQ5_1>(w.cols);
    case DType::Q8_0:
      return plan_for<PackedQ8_0>(w.cols);
    case DType::Q4_K:
      return plan_for<PackedQ4_K>(w.cols);
    case DType::Q5_K:
      return plan_for<PackedQ5_K>(w.cols);
    case DType::Q6_K:
      return plan_for<PackedQ6_K>(w.cols);
    default:
      return {};
  }
}

// ---- Float path: 256 columns of 16 rows dequantised to [column][16 rows], then plain multiply-adds
// ------------
constexpr std::uint32_t kFloatCols = 256;

template <class W>
STRATA_INLINE void float_tile_packed(const std::uint8_t* group, std::uint32_t col, std::uint32_t n,
                                     float* out) {
  const std::uint8_t* p = group + std::uint64_t{col / (32u * W::kBlocks)} * W::kRecord;
  constexpr int offset = W::kShift < 0 ? 0 : 1 << (W::kShift < 0 ? 0 : W::kShift);
  for (std::uint32_t done = 0; done < n; p += W::kRecord) {
    Scales s;
    W::scales(p, s);
    for (int b = 0; b < W::kBlocks && done < n; ++b, done += 32) {
      VI w[8];
      W::tiles(p, b, w);
      const VF minimum = W::kMin ? vf_load(s.minimum[b]) : vf_zero();
      for (int g = 0; g < 8; ++g) {
        const VF scale = vf_load(s.scale[b * W::kHalves + (W::kHalves == 2 ? g / 4 : 0)]);
        for (int k = 0; k < 4; ++k) {
          const VI q = vi_sub(vi_and(vi_shr_n(w[g], 8 * k), vi_set(255)), vi_set(offset));
          vf_store(out + (done + 4 * g + k) * 16, vf_fma(scale, vi_to_float(q), minimum));
        }
      }
    }
  }
}

static void float_tile_raw(const PackedMatrix& w, std::uint32_t row, std::uint32_t col, std::uint32_t n,
                           float* out) {
  float line[kFloatCols];
  const DTypeInfo& info = dtype_info(w.type);
  const std::uint64_t stride = w.cols / info.block * info.block_bytes;
  for (std::uint32_t i = 0; i < 16; ++i) {
    if (row + i < w.rows) {
      dequantize(w.type, w.data + (row + i) * stride + col / info.block * info.block_bytes, n, line);
      for (std::uint32_t c = 0; c < n; ++c) out[c * 16 + i] = line[c];
    } else {
      for (std::uint32_t c = 0; c < n; ++c) out[c * 16 + i] = 0.0f;
    }
  }
}

// Columns [col, col + n) of the rows from `row` on (a multiple of 16); col is a multiple of 256.
static void float_tile(const PackedMatrix& w, std::uint32_t row, std::uint32_t col, std::uint32_t n,
                       float* out) {
  const std::uint8_t* data = reinterpret_cast<const std::uint8_t*>(w.data);
  const std::uint8_t* group = data + packed_row_offset(w.type, w.cols, row);
  switch (w.type) {
    case DType::Q4_0:
      return float_tile_packed<PackedQ4_0>(group, col, n, out);
    case DType::Q4_1:
      return float_tile_packed<PackedQ4_1>(group, col, n, out);
    case DType::Q5_0:
      return float_tile_packed<PackedQ5_0>(group, col, n, out);
    case DType::Q5_1:
      return float_tile_packed<PackedQ5_1>(group, col, n, out);
    case DType::Q8_0:
      return float_tile_packed<PackedQ8_0>(group, col, n, out);
    case DType::Q4_K:
      return float_tile_packed<PackedQ4_K>(group, col, n, out);
    case DType::Q5_K:
      return float_tile_packed<PackedQ5_K>(group, col, n, out);
    case DType::Q6_K:
      return float_tile_packed<PackedQ6_K>(group, col, n, out);
    case DType::F16:
      for (std::uint32_t c = 0; c < n; ++c) vf_store(out + c * 16, vf_load_f16(group + (col + c) * 32));
      return;
    case DType::BF16:  // 16 rows x 2 columns in a vector
      for (std::uint32_t c = 0; c < n; ++c) {
        const VI pair = vi_load(group + (col + c) / 2 * 64);
        vf_store(out + c * 16, vi_as_float(c % 2 == 0 ? vi_shl<16>(pair)
                                                      : vi_and(pair, vi_set(static_cast<int>(0xffff0000u)))));
      }
      return;
    case DType::F32:
      __builtin_memcpy(out, group + std::uint64_t{col} * 64, std::uint64_t{n} * 64);
      return;
    default:
      return float_tile_raw(w, row, col, n, out);
  }
}

// Even and odd columns have an accumulator each (acc[r][0..15], [16..31]); x: records of f32 rows.
template <int R>
STRATA_INLINE void float_block(const float* w, const std::uint8_t* x, std::uint32_t n, float* acc) {
  VF even[R], odd[R];
  for (int r = 0; r < R; ++r) {
    even[r] = vf_load(acc + 32 * r);
    odd[r] = vf_load(acc + 32 * r + 16);
  }
  for (std::uint32_t c = 0; c < n; c += 2) {
    const VF w0 = vf_load(w + c * 16), w1 = vf_load(w + c * 16 + 16);
    const std::uint8_t* p = x + c / 32 * (kActTile * 128) + c % 32 * 4;
    for (int r = 0; r < R; ++r) {
      even[r] = vf_fma(w0, bcast_f(p + r * 128), even[r]);
      odd[r] = vf_fma(w1, bcast_f(p + r * 128 + 4), odd[r]);
    }
  }
  for (int r = 0; r < R; ++r) {
    vf_store(acc + 32 * r, even[r]);
    vf_store(acc + 32 * r + 16, odd[r]);
  }
}

// out[n][16] for n <= kFloatRows rows that start at a tile.
constexpr std::uint32_t kFloatRows = 64;
static void float_group(const PackedMatrix& w, std::uint32_t out_row, const std::uint8_t* x,
                        std::uint64_t tile_bytes, std::uint32_t n_rows, float* out) {
  alignas(64) float tile[kFloatCols * 16 + 16], acc[kFloatRows * 32];
  for (std::uint32_t i = 0; i < n_rows * 32; ++i) acc[i] = 0.0f;
  for (std::uint32_t col = 0; col < w.cols; col += kFloatCols) {
    std::uint32_t n = w.cols - col < kFloatCols ? w.cols - col : kFloatCols;
    float_tile(w, out_row, col, n, tile);
    if (n % 2 != 0) vf_store(tile + n++ * 16, vf_zero());
    const std::uint8_t* xc = x + std::uint64_t{col / 32} * kActTile * 128;
    for (std::uint32_t r = 0; r < n_rows;) {
      const std::uint8_t* xr = xc + r / kActTile * tile_bytes + r % kActTile * 128;
      if (n_rows - r >= 4) {
        float_block<4>(tile, xr, n, acc + 32 * r);
        r += 4;
      } else {
        float_block<1>(tile, xr, n, acc + 32 * r);
        r += 1;
      }
    }
  }
  for (std::uint32_t r = 0; r < n_rows; ++r)
    vf_store(out + 16 * r, vf_add(vf_load(acc + 32 * r), vf_load(acc + 32 * r + 16)));
}

// ---- Whole products
// -----------------------------------------------------------------------------------------
STRATA_INLINE std::uint32_t min_u(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }

// Writes 16 (or fewer, at the edge) outputs of row r with the epilogue.
STRATA_INLINE void finish(const MatmulArgs& a, std::uint32_t row, std::uint32_t out, const float* value) {
  const std::uint32_t n = min_u(16, a.w.rows - out);
  float* y = a.y + row * a.y_stride + out;
  const float* res = a.residual != nullptr ? a.residual + row * a.residual_stride + out : nullptr;
  if (n == 16) {
    VF v = vf_load(value);
    if (a.bias != nullptr) v = vf_add(v, vf_load(a.bias + out));
    if (res != nullptr) v = vf_add(v, vf_load(res));
    vf_store(y, v);
    return;
  }
  for (std::uint32_t i = 0; i < n; ++i) {
    float v = value[i];
    if (a.bias != nullptr) v += a.bias[out + i];
    if (res != nullptr) v += res[i];
    y[i] = v;
  }
}

// Rows of activations that stay in the second-level cache while all weights of the range pass by.
constexpr std::uint64_t kChunkBytes = 384 * 1024;
STRATA_INLINE std::uint32_t chunk_tiles(std::uint64_t tile_bytes) {
  const std::uint64_t n = kChunkBytes / (tile_bytes + 1);
  return n < 1 ? 1 : static_cast<std::uint32_t>(n);
}

static void matmul_float(const MatmulArgs& a) {
  alignas(64) float out[kFloatRows * 16];
  const std::uint64_t tile_bytes = act_tile_bytes(ActFormat::f32, a.x.cols);
  for (std::uint32_t row = 0; row < a.n_rows; row += kFloatRows) {
    const std::uint32_t n = min_u(kFloatRows, a.n_rows - row);
    const std::uint8_t* x = reinterpret_cast<const std::uint8_t*>(a.x.data) + row / kActTile * tile_bytes;
    for (std::uint32_t o = a.out_begin; o < a.out_end; o += 16) {
      float_group(a.w, o, x, tile_bytes, n, out);
      for (std::uint32_t r = 0; r < n; ++r) finish(a, row + r, o, out + 16 * r);
    }
  }
}

static void matmul_kernel(const MatmulArgs& a) {
  if (a.x.format == ActFormat::f32) return matmul_float(a);
  const GroupPlan plan = plan_group(a.w);
  const std::uint64_t tile_bytes = act_tile_bytes(a.x.format, a.x.cols);
  const std::uint32_t chunk = chunk_tiles(tile_bytes) * kActTile;
  const std::uint8_t* x = reinterpret_cast<const std::uint8_t*>(a.x.data);
  const std::uint8_t* w = reinterpret_cast<const std::uint8_t*>(a.w.data);
  alignas(64) float out[kActTile * 16];
  for (std::uint32_t row0 = 0; row0 < a.n_rows; row0 += chunk) {
    const std::uint32_t row1 = min_u(row0 + chunk, a.n_rows);
    for (std::uint32_t o = a.out_begin; o < a.out_end; o += 16) {
      for (std::uint32_t row = row0; row < row1; row += kActTile) {
        const std::uint32_t n = min_u(kActTile, row1 - row);
        plan.fn(w + o / 16 * plan.group_bytes, x + row / kActTile * tile_bytes, plan.records, n, out);
        for (std::uint32_t r = 0; r < n; ++r) finish(a, row + r, o, out + 16 * r);
      }
    }
  }
}

// Gate and up values of 32 outputs -> one record of the next product's activations.
STRATA_INLINE void finish_gate_up(const GateUpArgs& a, std::uint32_t row, std::uint32_t o, const float* g0,
                                  const float* g1, const float* u0, const float* u1) {
  VF x0 = vf_load(g0), x1 = vf_load(g1);
  x0 = vf_mul(a.act == Gate::silu ? vf_silu(x0) : vf_gelu_tanh(x0), vf_load(u0));
  x1 = vf_mul(a.act == Gate::silu ? vf_silu(x1) : vf_gelu_tanh(x1), vf_load(u1));
  const int left = static_cast<int>(a.gate.rows - o);  // lanes beyond the last output are padding
  if (left < 32) {
    x0 = vf_keep_range(x0, 0, left, vf_zero());
    x1 = vf_keep_range(x1, 0, left - 16, vf_zero());
  }
  encode_record(a.out.format, x0, x1, record_at(a.out, row, o / 32));
}

static void gate_up_float(const GateUpArgs& a) {
  alignas(64) float out[4][kFloatRows * 16];
  const std::uint64_t tile_bytes = act_tile_bytes(ActFormat::f32, a.x.cols);
  for (std::uint32_t row = 0; row < a.n_rows; row += kFloatRows) {
    const std::uint32_t n = min_u(kFloatRows, a.n_rows - row);
    const std::uint8_t* x = reinterpret_cast<const std::uint8_t*>(a.x.data) + row / kActTile * tile_bytes;
    for (std::uint32_t o = a.out_begin; o < a.out_end; o += 32) {
      for (std::uint32_t i = 0; i < 4; ++i) {
        if (o + i % 2 * 16 >= a.gate.rows) {
          for (std::uint32_t k = 0; k < n * 16; ++k) out[i][k] = 0.0f;
        } else {
          float_group(i < 2 ? a.gate : a.up, o + i % 2 * 16, x, tile_bytes, n, out[i]);
        }
      }
      for (std::uint32_t r = 0; r < n; ++r)
        finish_gate_up(a, row + r, o, out[0] + 16 * r, out[1] + 16 * r, out[2] + 16 * r, out[3] + 16 * r);
    }
  }
}

static void gate_up_kernel(const GateUpArgs& a) {
  if (a.x.format == ActFormat::f32) return gate_up_float(a);
  const GroupPlan plans[2] = {plan_group(a.gate), plan_group(a.up)};
  const std::uint8_t* w[2] = {reinterpret_cast<const std::uint8_t*>(a.gate.data),
                              reinterpret_cast<const std::uint8_t*>(a.up.data)};
  const std::uint64_t tile_bytes = act_tile_bytes(a.x.format, a.x.cols);
  const std::uint32_t chunk = chunk_tiles(tile_bytes) * kActTile;
  const std::uint8_t* x = reinterpret_cast<const std::uint8_t*>(a.x.data);
  alignas(64) float out[4][kActTile * 16];
  for (std::uint32_t row0 = 0; row0 < a.n_rows; row0 += chunk) {
    const std::uint32_t row1 = min_u(row0 + chunk, a.n_rows);
    for (std::uint32_t o = a.out_begin; o < a.out_end; o += 32) {
      for (std::uint32_t row = row0; row < row1; row += kActTile) {
        const std::uint32_t n = min_u(kActTile, row1 - row);
        for (std::uint32_t i = 0; i < 4; ++i) {
          const std::uint32_t group = o / 16 + i % 2;
          if (group * 16 >= a.gate.rows) {
            for (std::uint32_t k = 0; k < n * 16; ++k) out[i][k] = 0.0f;
            continue;
          }
          const GroupPlan& plan = plans[i / 2];
          plan.fn(w[i / 2] + group * plan.group_bytes, x + row / kActTile * tile_bytes, plan.records, n,
                  out[i]);
        }
        for (std::uint32_t r = 0; r < n; ++r)
          finish_gate_up(a, row + r, o, out[0] + 16 * r, out[1] + 16 * r, out[2] + 16 * r, out[3] + 16 * r);
      }
    }
  }
}
