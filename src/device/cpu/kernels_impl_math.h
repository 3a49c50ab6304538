// Elementwise kernels, norms, quantisation of activations. Included inside an unnamed namespace, after a
// kernels_simd_*.h; no standard library calls, so that no code with special flags can be linked elsewhere.

// e^x, relative error about 1e-7; 0 below -87.3, which includes -infinity. Range reduction by ln 2 and the
// degree-6 polynomial of the Cephes library (S. Moshier).
STEELYARD_INLINE VF vf_exp(VF x) {
  const VF c = vf_min(vf_max(x, vf_set(-88.0f)), vf_set(88.3f));
  const VI n = vf_round(vf_mul(c, vf_set(1.44269504088896341f)));
  const VF nf = vi_to_float(n);
  VF r = vf_fma(nf, vf_set(-0.693359375f), c);
  r = vf_fma(nf, vf_set(2.12194440e-4f), r);
  VF p = vf_fma(vf_set(1.9875691500e-4f), r, vf_set(1.3981999507e-3f));
  p = vf_fma(p, r, vf_set(8.3334519073e-3f));
  p = vf_fma(p, r, vf_set(4.1665795894e-2f));
  p = vf_fma(p, r, vf_set(1.6666665459e-1f));
  p = vf_fma(p, r, vf_set(5.0000001201e-1f));
  p = vf_add(vf_fma(p, vf_mul(r, r), r), vf_set(1.0f));
  const VF power = vi_as_float(vi_shl<23>(vi_add(n, vi_set(127))));
  return vf_less_select(x, vf_set(-87.3f), vf_zero(), vf_mul(p, power));
}

STEELYARD_INLINE VF vf_sigmoid(VF x) {
  const VF one = vf_set(1.0f);
  return vf_div(one, vf_add(one, vf_exp(vf_sub(vf_zero(), x))));
}

STEELYARD_INLINE VF vf_silu(VF x) { return vf_mul(x, vf_sigmoid(x)); }

// x/2 (1 + tanh(u)) = x sigmoid(2u) with u = sqrt(2/pi) (x + 0.044715 x^3).
STEELYARD_INLINE VF vf_gelu_tanh(VF x) {
  const VF u =
      vf_mul(x, vf_fma(vf_mul(x, x), vf_set(2.0f * 0.7978845608f * 0.044715f), vf_set(2.0f * 0.7978845608f)));
  return vf_mul(x, vf_sigmoid(u));
}

// gpt-oss: the gate from above, the other from both sides.
STEELYARD_INLINE VF vf_clamped_swiglu(VF gate, VF up) {
  const VF most = vf_set(7.0f), g = vf_min(gate, most), u = vf_min(vf_max(up, vf_set(-7.0f)), most);
  return vf_mul(vf_mul(g, vf_sigmoid(vf_mul(vf_set(1.702f), g))), vf_add(u, vf_set(1.0f)));
}

// 1 - 2 / (e^2x + 1); a Taylor polynomial near zero, where that would cancel.
STEELYARD_INLINE VF vf_tanh(VF x) {
  const VF one = vf_set(1.0f), s = vf_mul(x, x);
  VF p = vf_fma(s, vf_set(-0.00886323553f), vf_set(0.0218694885f));
  p = vf_fma(p, s, vf_set(-0.0539682540f));
  p = vf_fma(p, s, vf_set(0.133333333f));
  p = vf_fma(p, s, vf_set(-0.333333333f));
  const VF small = vf_fma(vf_mul(p, s), x, x);
  const VF big = vf_sub(one, vf_div(vf_set(2.0f), vf_add(vf_exp(vf_add(x, x)), one)));
  return vf_less_select(vf_abs(x), vf_set(0.3f), small, big);
}

STEELYARD_INLINE VF load_part(const float* p, std::uint32_t n) {  // n < 16 values, then zeros
  float t[16] = {};
  for (std::uint32_t i = 0; i < n; ++i) t[i] = p[i];
  return vf_load(t);
}
STEELYARD_INLINE void store_part(float* p, std::uint32_t n, VF a) {
  float t[16];
  vf_store(t, a);
  for (std::uint32_t i = 0; i < n; ++i) p[i] = t[i];
}
// f(16 lanes) -> 16 lanes over an array, with a padded tail.
template <typename F>
STEELYARD_INLINE void transform(const float* x, std::uint32_t n, float* y, const F& f) {
  std::uint32_t i = 0;
  for (; i + 16 <= n; i += 16) vf_store(y + i, f(vf_load(x + i)));
  if (i < n) store_part(y + i, n - i, f(load_part(x + i, n - i)));
}

static void add_kernel(const float* x, std::uint32_t n, float* y) {
  std::uint32_t i = 0;
  for (; i + 16 <= n; i += 16) vf_store(y + i, vf_add(vf_load(y + i), vf_load(x + i)));
  for (; i < n; ++i) y[i] += x[i];
}
static void add_scaled_kernel(float factor, const float* x, std::uint32_t n, float* y) {
  const VF f = vf_set(factor);
  std::uint32_t i = 0;
  for (; i + 16 <= n; i += 16) vf_store(y + i, vf_fma(f, vf_load(x + i), vf_load(y + i)));
  if (i < n) store_part(y + i, n - i, vf_fma(f, load_part(x + i, n - i), load_part(y + i, n - i)));
}
static void scale_kernel(float factor, std::uint32_t n, float* x) {
  const VF f = vf_set(factor);
  transform(
      x, n, x, [f](VF a) __attribute__((always_inline)) { return vf_mul(a, f); });
}
static void softcap_kernel(float cap, std::uint32_t n, float* x) {
  const VF c = vf_set(cap), inverse = vf_set(1.0f / cap);
  transform(
      x, n, x,
      [ c, inverse ](VF a) __attribute__((always_inline)) { return vf_mul(c, vf_tanh(vf_mul(a, inverse))); });
}
static void exp_sub_kernel(const float* x, float minus, std::uint32_t n, float* y) {
  const VF m = vf_set(minus);
  transform(
      x, n, y, [m](VF a) __attribute__((always_inline)) { return vf_exp(vf_sub(a, m)); });
}
static float max_kernel(const float* x, std::uint32_t n) {
  float best = x[0];
  std::uint32_t i = 0;
  if (n >= 16) {
    VF m = vf_load(x);
    for (i = 16; i + 16 <= n; i += 16) m = vf_max(vf_load(x + i), m);
    best = vf_hmax(m);
  }
  for (; i < n; ++i) best = x[i] > best ? x[i] : best;
  return best;
}
static std::uint32_t argmax_kernel(const float* x, std::uint32_t n) {
  constexpr std::uint32_t kSpan = 512;
  const float limit = __builtin_inff();
  const VF infinity = vf_set(limit), one = vf_set(1.0f);
  VF wrong = vf_zero();
  float best = -limit;
  std::uint32_t span = 0, i = 0;  // span: where the first of the best is
  while (i + 16 <= n) {
    const std::uint32_t begin = i;
    VF m = vf_set(-limit);
    for (; i + 16 <= n && i < begin + kSpan; i += 16) {
      const VF v = vf_load(x + i);
      m = vf_max(v, m);
      wrong = vf_less_select(v, infinity, wrong, one);
    }
    const float top = vf_hmax(m);
    if (top > best) best = top, span = begin;
  }
  bool good = vf_hmax(wrong) == 0.0f;
  for (; i < n; ++i) {
    good = good && x[i] < limit;
    if (x[i] > best) best = x[i], span = i;
  }
  if (!good) return n;
  for (i = span; i < n; ++i)
    if (x[i] == best) return i;
  return 0;
}

STEELYARD_INLINE float rms_factor(const float* x, float eps, std::uint32_t cols) {
  VF s0 = vf_zero(), s1 = vf_zero();
  std::uint32_t i = 0;
  for (; i + 32 <= cols; i += 32) {
    const VF a = vf_load(x + i), b = vf_load(x + i + 16);
    s0 = vf_fma(a, a, s0);
    s1 = vf_fma(b, b, s1);
  }
  for (; i < cols; i += 16) {
    const VF a = i + 16 <= cols ? vf_load(x + i) : load_part(x + i, cols - i);
    s0 = vf_fma(a, a, s0);
  }
  return 1.0f / __builtin_sqrtf(vf_sum(vf_add(s0, s1)) / static_cast<float>(cols) + eps);
}

static void rms_norm_kernel(const float* x, const float* weight, float eps, std::uint32_t cols, float* y) {
  const VF f = vf_set(rms_factor(x, eps, cols));
  std::uint32_t i = 0;
  for (; i + 16 <= cols; i += 16) {
    const VF a = vf_mul(vf_load(x + i), f);
    vf_store(y + i, weight != nullptr ? vf_mul(a, vf_load(weight + i)) : a);
  }
  if (i < cols) {
    const VF a = vf_mul(load_part(x + i, cols - i), f);
    store_part(y + i, cols - i, weight != nullptr ? vf_mul(a, load_part(weight + i, cols - i)) : a);
  }
}

// ---- Records of 32 activations (kernels.h)
// ------------------------------------------------------------------
STEELYARD_INLINE std::uint8_t* record_at(const ActView& v, std::uint32_t row, std::uint32_t block) {
  const std::uint64_t rec = record_bytes(v.format);
  return reinterpret_cast<std::uint8_t*>(v.data) + row / kActTile * act_tile_bytes(v.format, v.cols) +
         (std::uint64_t{block} * kActTile + row % kActTile) * rec;
}

// Blocks whose range is below this become their middle: the inverse scale would overflow.
constexpr float kTiny = 1e-34f;

STEELYARD_INLINE void encode_q8(VF a, VF b, std::uint8_t* rec) {
  const VF zero = vf_zero();
  const float top = vf_hmax(vf_max(a, b)), bottom = -vf_hmax(vf_max(vf_sub(zero, a), vf_sub(zero, b)));
  const float range = top - bottom, middle = 0.5f * top + 0.5f * bottom;
  const VF inverse = vf_set(range > kTiny ? 254.0f / range : 0.0f), m = vf_set(middle);
  const VI qa = vf_round(vf_mul(vf_sub(a, m), inverse)), qb = vf_round(vf_mul(vf_sub(b, m), inverse));
  vi_store_i8(rec, qa);
  vi_store_i8(rec + 16, qb);
  QTail t;
  // Modulo 2^32: values that aren't finite round to the least integer, whose sums would overflow.
  const std::uint32_t s0 = vi_sum(qa), s1 = vi_sum(qb);
  t.scale = range * (1.0f / 254.0f);
  t.middle = middle;
  t.minus_sum[0] = static_cast<std::int32_t>(0 - s0);
  t.minus_sum[1] = static_cast<std::int32_t>(0 - s1);
  t.minus_sum[2] = static_cast<std::int32_t>(0 - (s0 + s1));
  t.sum = t.scale * static_cast<float>(static_cast<std::int32_t>(s0 + s1)) + 32.0f * middle;
  __builtin_memcpy(rec + 32, &t, sizeof(t));
}

STEELYARD_INLINE void encode_record(ActFormat format, VF a, VF b, std::uint8_t* rec) {
  if (format == ActFormat::q8) return encode_q8(a, b, rec);
  vf_store(reinterpret_cast<float*>(rec), a);
  vf_store(reinterpret_cast<float*>(rec) + 16, b);
}

// values(i, n): the 16 values from column i on, of which n exist.
template <typename F>
STEELYARD_INLINE void encode_columns(const ActView& dst, std::uint32_t row, std::uint32_t col_begin,
                                     std::uint32_t cols, const F& values) {
  for (std::uint32_t c = 0; c < cols; c += kActBlock) {
    const std::uint32_t left = cols - c;
    const VF a = values(c, left < 16 ? left : 16);
    const VF b = left > 16 ? values(c + 16, left < 32 ? left - 16 : 16) : vf_zero();
    encode_record(dst.format, a, b, record_at(dst, row, (col_begin + c) / kActBlock));
  }
}

static void quantize_kernel(const float* x, std::uint32_t col_begin, std::uint32_t cols, const ActView& dst,
                            std::uint32_t row) {
  encode_columns(
      dst, row, col_begin, cols, [x](std::uint32_t i, std::uint32_t n) __attribute__((always_inline)) {
        return n == 16 ? vf_load(x + i) : load_part(x + i, n);
      });
}

static void rms_norm_quantize_kernel(const float* x, const float* weight, float eps, const ActView& dst,
                                     std::uint32_t row) {
  if (eps < 0.0f) return quantize_kernel(x, 0, dst.cols, dst, row);
  const VF f = vf_set(rms_factor(x, eps, dst.cols));
  encode_columns(
      dst, row, 0, dst.cols, [=](std::uint32_t i, std::uint32_t n) __attribute__((always_inline)) {
        const VF a = vf_mul(n == 16 ? vf_load(x + i) : load_part(x + i, n), f);
        if (weight == nullptr) return a;
        return vf_mul(a, n == 16 ? vf_load(weight + i) : load_part(weight + i, n));
      });
}

static void dequantize_act_kernel(const ActView& src, std::uint32_t row, float* out) {
  for (std::uint32_t c = 0; c < src.cols; ++c) {
    const std::uint8_t* rec = record_at(src, row, c / kActBlock);
    const std::uint32_t i = c % kActBlock;
    if (src.format == ActFormat::f32) {
      __builtin_memcpy(out + c, rec + 4 * i, 4);
      continue;
    }
    QTail t;
    __builtin_memcpy(&t, rec + 32, sizeof(t));
    out[c] = t.scale * static_cast<float>(static_cast<std::int8_t>(rec[i])) + t.middle;
  }
}

// ---- RoPE
// ---------------------------------------------------------------------------------------------------
static void rope_halves_kernel(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot,
                               const float* cos_sin) {
  const std::uint32_t half = n_rot / 2;
  const float *cs = cos_sin, *sn = cos_sin + half;
  for (std::uint32_t h = 0; h < n_heads; ++h, x += head_dim) {
    std::uint32_t i = 0;
    for (; i + 16 <= half; i += 16) {
      const VF a = vf_load(x + i), b = vf_load(x + half + i), c = vf_load(cs + i), s = vf_load(sn + i);
      vf_store(x + i, vf_sub(vf_mul(a, c), vf_mul(b, s)));
      vf_store(x + half + i, vf_add(vf_mul(a, s), vf_mul(b, c)));
    }
    for (; i < half; ++i) {
      const float a = x[i], b = x[half + i];
      x[i] = a * cs[i] - b * sn[i];
      x[half + i] = a * sn[i] + b * cs[i];
    }
  }
}
static void rope_adjacent_kernel(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot,
                                 const float* cos_sin) {
  const std::uint32_t half = n_rot / 2;
  const float *cs = cos_sin, *sn = cos_sin + half;
  for (std::uint32_t h = 0; h < n_heads; ++h, x += head_dim) {
    for (std::uint32_t i = 0; i < half; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1];
      x[2 * i] = a * cs[i] - b * sn[i];
      x[2 * i + 1] = a * sn[i] + b * cs[i];
    }
  }
}
