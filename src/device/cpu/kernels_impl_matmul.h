// Products of packed weights and activations. Included inside an unnamed namespace after
// kernels_impl_float.h.
//
// One call of a kernel multiplies a group of 16 outputs (the lanes) with R rows of activations: per block of
// 32 columns the weights' 8 column groups are in registers as bytes, each row adds 8 byte dot products
// exactly in int32, then one float multiply-add per row and scale. The order over blocks is the same for
// every R.

// How far ahead of a stream of weights to ask for them; few rows only, where memory is the limit.
constexpr std::uint32_t kPrefetchBytes = 2048;

// What a block needs beside its tiles. A weight is scale * (code - offset) + minimum, so that
//   sum w x = scale * x.scale * sum (code - offset) q
//           + scale * x.middle * sum (code - offset)
//           + minimum * x.sum
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
STEELYARD_INLINE Block block_of(const Scales& s, int b, const VI w[8]) {
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

// acc[g][r] += the products of one block of G groups and N rows: as many chains of dot products overlap, and
// G of them share what is read of a row.
template <class W, int G, int N>
STEELYARD_INLINE void block_rows(const VI (*w)[8], const Block* k, const std::uint8_t* x, VF (*acc)[N]) {
  constexpr std::uint32_t rec = record_bytes(ActFormat::q8);
  constexpr bool split = kSplit<W>;
  constexpr int shift = kOffset<W> ? W::kShift : 0;
  VI lo[G][N], hi[G][N];
  for (int r = 0; r < N; ++r) {
    const std::uint8_t* sums = x + r * rec + 40;
    for (int g = 0; g < G; ++g) {
      lo[g][r] = kOffset<W> ? vi_shl<shift>(vi_bcast(sums + (split ? 0 : 8))) : vi_set(0);
      if constexpr (split) hi[g][r] = kOffset<W> ? vi_shl<shift>(vi_bcast(sums + 4)) : vi_set(0);
    }
  }
  for (int c = 0; c < 8; ++c) {
    for (int r = 0; r < N; ++r) {
      const std::uint8_t* q = x + r * rec + 4 * c;
      VI(*const sum)[N] = split && c >= 4 ? hi : lo;
      if constexpr (G == 1) {
        sum[0][r] = vi_dot<W::kFull>(sum[0][r], w[0][c], q);
      } else {
        const VI v = vi_bcast(q);
        for (int g = 0; g < G; ++g) sum[g][r] = vi_dot<W::kFull>(sum[g][r], w[g][c], v);
      }
    }
  }
  for (int r = 0; r < N; ++r) {
    const std::uint8_t* tail = x + r * rec + 32;
    const VF scale = bcast_f(tail), middle = bcast_f(tail + 4);
    for (int g = 0; g < G; ++g) {
      VF& a = acc[g][r];
      if constexpr (split) {
        const VF s =
            vf_fma(vi_to_float(hi[g][r]), k[g].scale[1], vf_mul(vi_to_float(lo[g][r]), k[g].scale[0]));
        a = vf_fma(s, scale, a);
      } else {
        a = vf_fma(vf_mul(vi_to_float(lo[g][r]), scale), k[g].scale[0], a);
      }
      a = vf_fma(k[g].sum, middle, a);
      if constexpr (W::kMin) a = vf_fma(k[g].minimum, bcast_f(tail + 20), a);
    }
  }
}

// out[r][16], r < R: a group of weights times R rows of a tile. w: the group, x: the first row's first
// record.
template <class W, int R>
static void group_kernel(const std::uint8_t* w, const std::uint8_t* x, std::uint32_t records, float* out) {
  constexpr std::uint32_t rec = record_bytes(ActFormat::q8);
  constexpr int kStep = R >= 4 ? 4 : R;
  VF acc[R / kStep][1][kStep];
  for (int r = 0; r < R; ++r) acc[r / kStep][0][r % kStep] = vf_zero();
  for (std::uint32_t i = 0; i < records; ++i, w += W::kRecord) {
    if constexpr (R <= 4) {
      for (std::uint32_t line = 0; line < W::kRecord; line += 64) prefetch(w + kPrefetchBytes + line);
    }
    Scales s;
    W::scales(w, s);
    for (int b = 0; b < W::kBlocks; ++b, x += kActTile * rec) {
      VI tiles[1][8];
      W::tiles(w, b, tiles[0]);
      const Block k = block_of<W>(s, b, tiles[0]);
#pragma GCC unroll 4
      for (int r = 0; r < R; r += kStep) block_rows<W, 1, kStep>(tiles, &k, x + r * rec, acc[r / kStep]);
    }
  }
  for (int r = 0; r < R; ++r) vf_store(out + 16 * r, acc[r / kStep][0][r % kStep]);
}

// Two neighbouring groups times 16 rows, out[2][16 rows][16]: what is read of the activations serves both, so
// that the multipliers are the limit and not the loads. The sums are kept in `out`: the registers are full.
template <class W>
static void pair_kernel(const std::uint8_t* w, std::uint64_t group_bytes, const std::uint8_t* x,
                        std::uint32_t records, float* out) {
  constexpr std::uint32_t rec = record_bytes(ActFormat::q8);
  constexpr int kStep = kSplit<W> ? 2 : 4;
  for (int i = 0; i < 2 * 16; ++i) vf_store(out + 16 * i, vf_zero());
  for (std::uint32_t i = 0; i < records; ++i, w += W::kRecord) {
    Scales s[2];
    for (int g = 0; g < 2; ++g) W::scales(w + g * group_bytes, s[g]);
    for (int b = 0; b < W::kBlocks; ++b, x += kActTile * rec) {
      VI tiles[2][8];
      Block k[2];
      for (int g = 0; g < 2; ++g) {
        W::tiles(w + g * group_bytes, b, tiles[g]);
        k[g] = block_of<W>(s[g], b, tiles[g]);
      }
      for (int r = 0; r < 16; r += kStep) {
        VF acc[2][kStep];
        for (int j = 0; j < 2 * kStep; ++j)
          acc[j / kStep][j % kStep] = vf_load(out + 256 * (j / kStep) + 16 * (r + j % kStep));
        block_rows<W, 2, kStep>(tiles, k, x + r * rec, acc);
        for (int j = 0; j < 2 * kStep; ++j)
          vf_store(out + 256 * (j / kStep) + 16 * (r + j % kStep), acc[j / kStep][j % kStep]);
      }
    }
  }
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
// Two neighbouring groups times 16 rows: out[2][16][16].
using PairFn = void (*)(const std::uint8_t* w, std::uint64_t group_bytes, const std::uint8_t* x,
                        std::uint32_t records, float* out);
struct GroupPlan {
  GroupFn fn = nullptr;
  PairFn pair = nullptr;  // where there are registers for it
  std::uint32_t records = 0;
  std::uint64_t group_bytes = 0;
};

template <class W>
STEELYARD_INLINE GroupPlan plan_for(std::uint32_t cols) {
  GroupPlan plan;
  plan.fn = group_rows<W>;
  if constexpr (kTileRows >= 16) plan.pair = pair_kernel<W>;
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
    case DType::MXFP4:
      return plan_for<PackedMXFP4>(w.cols);
    case DType::IQ4_NL:
      return plan_for<PackedIQ4_NL>(w.cols);
    default:
      return {};
  }
}

// ---- Whole products ----
STEELYARD_INLINE std::uint32_t min_u(std::uint32_t a, std::uint32_t b) { return a < b ? a : b; }

// Writes 16 (or fewer, at the edge) outputs of row r with the epilogue.
STEELYARD_INLINE void finish(const MatmulArgs& a, std::uint32_t row, std::uint32_t out, const float* value) {
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
STEELYARD_INLINE std::uint32_t chunk_tiles(std::uint64_t tile_bytes) {
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

// Groups [first, first + count), count 1 or 2, times n <= 16 rows: out[count][16][16].
STEELYARD_INLINE void multiply_groups(const GroupPlan& plan, const std::uint8_t* w, std::uint32_t first,
                                      std::uint32_t count, const std::uint8_t* x, std::uint32_t n,
                                      float* out) {
  w += first * plan.group_bytes;
  if (count == 2 && n == 16 && plan.pair != nullptr)
    return plan.pair(w, plan.group_bytes, x, plan.records, out);
  for (std::uint32_t i = 0; i < count; ++i)
    plan.fn(w + i * plan.group_bytes, x, plan.records, n, out + 256 * i);
}

static void matmul_kernel(const MatmulArgs& a) {
  if (a.x.format == ActFormat::f32) return matmul_float(a);
  const GroupPlan plan = plan_group(a.w);
  const std::uint64_t tile_bytes = act_tile_bytes(a.x.format, a.x.cols);
  const std::uint32_t chunk = chunk_tiles(tile_bytes) * kActTile;
  const std::uint8_t* x = reinterpret_cast<const std::uint8_t*>(a.x.data);
  const std::uint8_t* w = reinterpret_cast<const std::uint8_t*>(a.w.data);
  alignas(64) float out[2 * kActTile * 16];
  for (std::uint32_t row0 = 0; row0 < a.n_rows; row0 += chunk) {
    const std::uint32_t row1 = min_u(row0 + chunk, a.n_rows);
    for (std::uint32_t o = a.out_begin; o < a.out_end; o += 32) {
      const std::uint32_t count = o + 16 < a.out_end ? 2 : 1;
      for (std::uint32_t row = row0; row < row1; row += kActTile) {
        const std::uint32_t n = min_u(kActTile, row1 - row);
        multiply_groups(plan, w, o / 16, count, x + row / kActTile * tile_bytes, n, out);
        for (std::uint32_t i = 0; i < count; ++i)
          for (std::uint32_t r = 0; r < n; ++r) finish(a, row + r, o + 16 * i, out + 256 * i + 16 * r);
      }
    }
  }
}

// Plus the biases of outputs o .. o + 15, of which `left` exist.
STEELYARD_INLINE VF with_bias(VF x, const float* bias, std::uint32_t o, int left) {
  if (bias == nullptr || left <= 0) return x;
  if (left >= 16) return vf_add(x, vf_load(bias + o));
  alignas(64) float padded[16] = {};
  for (int i = 0; i < left; ++i) padded[i] = bias[o + static_cast<std::uint32_t>(i)];
  return vf_add(x, vf_load(padded));
}

STEELYARD_INLINE VF gated(Gate act, VF gate, VF up) {
  if (act == Gate::clamped_swiglu) return vf_clamped_swiglu(gate, up);
  return vf_mul(act == Gate::silu ? vf_silu(gate) : vf_gelu_tanh(gate), up);
}

// Gate and up values of 32 outputs -> one record of the next product's activations.
STEELYARD_INLINE void finish_gate_up(const GateUpArgs& a, std::uint32_t row, std::uint32_t o, const float* g0,
                                     const float* g1, const float* u0, const float* u1) {
  const int left = static_cast<int>(a.gate.rows - o);  // lanes beyond the last output are padding
  VF x0 = with_bias(vf_load(g0), a.gate_bias, o, left), y0 = with_bias(vf_load(u0), a.up_bias, o, left);
  VF x1 = with_bias(vf_load(g1), a.gate_bias, o + 16, left - 16);
  VF y1 = with_bias(vf_load(u1), a.up_bias, o + 16, left - 16);
  x0 = gated(a.act, x0, y0);
  x1 = gated(a.act, x1, y1);
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
  alignas(64) float out[4][kActTile * 16] = {};  // gate's two groups, up's two
  for (std::uint32_t row0 = 0; row0 < a.n_rows; row0 += chunk) {
    const std::uint32_t row1 = min_u(row0 + chunk, a.n_rows);
    for (std::uint32_t o = a.out_begin; o < a.out_end; o += 32) {
      const std::uint32_t count = o + 16 < a.gate.rows ? 2 : 1;  // finish_gate_up drops what isn't there
      for (std::uint32_t row = row0; row < row1; row += kActTile) {
        const std::uint32_t n = min_u(kActTile, row1 - row);
        for (std::uint32_t i = 0; i < 2; ++i)
          multiply_groups(plans[i], w[i], o / 16, count, x + row / kActTile * tile_bytes, n, out[2 * i]);
        for (std::uint32_t r = 0; r < n; ++r)
          finish_gate_up(a, row + r, o, out[0] + 16 * r, out[1] + 16 * r, out[2] + 16 * r, out[3] + 16 * r);
      }
    }
  }
}
