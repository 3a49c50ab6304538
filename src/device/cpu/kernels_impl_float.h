// Products with float activations. Included inside an unnamed namespace after kernels_impl_records.h.

// 256 columns of 16 rows are dequantised to [column][16 rows], then plain multiply-adds.
constexpr std::uint32_t kFloatCols = 256;

template <class W>
STEELYARD_INLINE void float_tile_packed(const std::uint8_t* group, std::uint32_t col, std::uint32_t n,
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
    case DType::MXFP4:
      return float_tile_packed<PackedMXFP4>(group, col, n, out);
    case DType::IQ4_NL:
      return float_tile_packed<PackedIQ4_NL>(group, col, n, out);
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
STEELYARD_INLINE void float_block(const float* w, const std::uint8_t* x, std::uint32_t n, float* acc) {
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
