// 16 lanes as arrays, for any CPU. Included inside an unnamed namespace by kernels_portable.cc only.
// clang-format off
typedef float FloatLanes __attribute__((vector_size(64)));         // the compiler splits these into what the CPU has
typedef std::int32_t IntLanes __attribute__((vector_size(64)));
typedef std::uint32_t UintLanes __attribute__((vector_size(64)));
struct VF { FloatLanes v; };
struct VI { IntLanes v; };
#define STEELYARD_INLINE static inline __attribute__((always_inline))
#define STEELYARD_LANES(type, expression) type r; for (int i = 0; i < 16; ++i) r.v[i] = (expression); return r

STEELYARD_INLINE VF vf_load(const float* p) { VF r; __builtin_memcpy(&r.v, p, 64); return r; }
STEELYARD_INLINE void vf_store(float* p, VF a) { __builtin_memcpy(p, &a.v, 64); }
STEELYARD_INLINE VF vf_zero() { return {FloatLanes{}}; }
STEELYARD_INLINE VF vf_set(float x) { return {FloatLanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}}; }
STEELYARD_INLINE VF vf_add(VF a, VF b) { return {a.v + b.v}; }
STEELYARD_INLINE VF vf_sub(VF a, VF b) { return {a.v - b.v}; }
STEELYARD_INLINE VF vf_mul(VF a, VF b) { return {a.v * b.v}; }
STEELYARD_INLINE VF vf_div(VF a, VF b) { return {a.v / b.v}; }
STEELYARD_INLINE VF vf_choose(IntLanes mask, VF yes, VF no) { return {(FloatLanes)(((IntLanes)yes.v & mask) | ((IntLanes)no.v & ~mask))}; }
STEELYARD_INLINE VF vf_max(VF a, VF b) { return vf_choose(a.v > b.v, a, b); }
STEELYARD_INLINE VF vf_min(VF a, VF b) { return vf_choose(a.v < b.v, a, b); }
STEELYARD_INLINE VF vf_fma(VF a, VF b, VF c) { return {a.v * b.v + c.v}; }
STEELYARD_INLINE VF vf_abs(VF a) { return {(FloatLanes)((IntLanes)a.v & 0x7fffffff)}; }
STEELYARD_INLINE VF vf_keep_range(VF a, int lo, int hi, VF o) {
  const IntLanes i = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  return vf_choose((i >= lo) & (i < hi), a, o);
}
STEELYARD_INLINE VF vf_less_select(VF a, VF b, VF yes, VF no) { return vf_choose(a.v < b.v, yes, no); }
STEELYARD_INLINE float vf_sum(VF a) {
  float t[16];
  vf_store(t, a);
  for (int n = 8; n > 0; n /= 2) for (int i = 0; i < n; ++i) t[i] += t[i + n];
  return t[0];
}
STEELYARD_INLINE float vf_hmax(VF a) {
  float t[16];
  vf_store(t, a);
  for (int n = 8; n > 0; n /= 2) for (int i = 0; i < n; ++i) t[i] = t[i] > t[i + n] ? t[i] : t[i + n];
  return t[0];
}
STEELYARD_INLINE std::uint32_t bits_of(float f) { std::uint32_t u; __builtin_memcpy(&u, &f, 4); return u; }
STEELYARD_INLINE float float_of(std::uint32_t u) { float f; __builtin_memcpy(&f, &u, 4); return f; }
STEELYARD_INLINE float half_to_f32(std::uint32_t h) {
  const std::uint32_t sign = (h & 0x8000u) << 16, m = h & 0x7fffu;
  if (m >= 0x7c00u) return float_of(sign | 0x7f800000u | (m & 0x3ffu) << 13);
  if (m >= 0x0400u) return float_of(sign | ((m << 13) + (112u << 23)));
  return float_of(sign | bits_of(static_cast<float>(m) * 0x1p-24f));
}
STEELYARD_INLINE std::uint16_t f32_to_half(float f) {  // to nearest, ties to even
  const std::uint32_t bits = bits_of(f), sign = bits >> 16 & 0x8000u, m = bits & 0x7fffffffu;
  if (m > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u | (m >> 13 & 0x3ffu));
  if (m >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);
  if (m < 0x38800000u) return static_cast<std::uint16_t>(sign | (bits_of(float_of(m) + 0.5f) - 0x3f000000u));
  return static_cast<std::uint16_t>(sign | ((m - (112u << 23) + 0xfffu + (m >> 13 & 1u)) >> 13));
}
STEELYARD_INLINE VF vf_load_f16(const std::uint8_t* p) {
  STEELYARD_LANES(VF, half_to_f32(static_cast<std::uint32_t>(p[2 * i]) | static_cast<std::uint32_t>(p[2 * i + 1]) << 8));
}
STEELYARD_INLINE void vf_store_f16(std::uint8_t* p, VF a) {
  for (int i = 0; i < 16; ++i) { const std::uint16_t h = f32_to_half(a.v[i]); __builtin_memcpy(p + 2 * i, &h, 2); }
}
STEELYARD_INLINE VF vf_bcast_f16(const std::uint8_t* p) {
  return vf_set(half_to_f32(static_cast<std::uint32_t>(p[0]) | static_cast<std::uint32_t>(p[1]) << 8));
}
STEELYARD_INLINE VF vf_load_i8(const std::uint8_t* p) { STEELYARD_LANES(VF, static_cast<float>(static_cast<std::int8_t>(p[i]))); }
STEELYARD_INLINE VI vi_load(const std::uint8_t* p) { VI r; __builtin_memcpy(&r.v, p, 64); return r; }
STEELYARD_INLINE VI vi_load_u8(const std::uint8_t* p) { STEELYARD_LANES(VI, p[i]); }
STEELYARD_INLINE VI vi_set(int x) { return {IntLanes{x, x, x, x, x, x, x, x, x, x, x, x, x, x, x, x}}; }
STEELYARD_INLINE VI vi_bcast(const std::uint8_t* p) { std::int32_t x; __builtin_memcpy(&x, p, 4); return vi_set(x); }
STEELYARD_INLINE VI vi_add(VI a, VI b) { return {(IntLanes)((UintLanes)a.v + (UintLanes)b.v)}; }
STEELYARD_INLINE VI vi_sub(VI a, VI b) { return {(IntLanes)((UintLanes)a.v - (UintLanes)b.v)}; }
STEELYARD_INLINE VI vi_and(VI a, VI b) { return {a.v & b.v}; }
STEELYARD_INLINE VI vi_or(VI a, VI b) { return {a.v | b.v}; }
STEELYARD_INLINE VI vi_or_and(VI a, VI b, VI m) { return {a.v | (b.v & m.v)}; }
template <int N> STEELYARD_INLINE VI vi_shl(VI a) { return {(IntLanes)((UintLanes)a.v << N)}; }
template <int N> STEELYARD_INLINE VI vi_shr(VI a) { return {(IntLanes)((UintLanes)a.v >> N)}; }
template <int N> STEELYARD_INLINE VI vi_sar(VI a) { return {a.v >> N}; }
STEELYARD_INLINE VI vi_shr_n(VI a, int n) { return {(IntLanes)((UintLanes)a.v >> n)}; }
STEELYARD_INLINE VI vi_lookup(const std::uint8_t* table, VI a) {  // of every byte, 0..15
  std::uint8_t bytes[64];
  __builtin_memcpy(bytes, &a.v, 64);
  for (int i = 0; i < 64; ++i) bytes[i] = table[bytes[i]];
  return vi_load(bytes);
}
STEELYARD_INLINE VF vi_to_float(VI a) { STEELYARD_LANES(VF, static_cast<float>(a.v[i])); }
STEELYARD_INLINE VF vi_as_float(VI a) { return {(FloatLanes)a.v}; }
STEELYARD_INLINE VI vf_as_int(VF a) { return {(IntLanes)a.v}; }
STEELYARD_INLINE VI vf_round(VF a) {  // to nearest, ties to even; |a| < 2^22
  return {(IntLanes)(a.v + 12582912.0f) - 0x4b400000};
}
STEELYARD_INLINE std::uint32_t vi_sum(VI a) {
  std::uint32_t s = 0;
  for (int i = 0; i < 16; ++i) s += static_cast<std::uint32_t>(a.v[i]);
  return s;
}
STEELYARD_INLINE void vi_store_i8(std::uint8_t* p, VI a) { for (int i = 0; i < 16; ++i) p[i] = static_cast<std::uint8_t>(a.v[i]); }
constexpr bool kSignedWeights = false;  // see kernels_simd_avx512.h
template <bool Full> STEELYARD_INLINE VI vi_dot(VI c, VI w, const std::uint8_t* x) {
  const UintLanes u = (UintLanes)w.v;
  return {c.v + (IntLanes)(u & 255u) * static_cast<std::int8_t>(x[0]) + (IntLanes)(u >> 8 & 255u) * static_cast<std::int8_t>(x[1]) +
          (IntLanes)(u >> 16 & 255u) * static_cast<std::int8_t>(x[2]) + (IntLanes)(u >> 24) * static_cast<std::int8_t>(x[3])};
}
constexpr int kTileRows = 2;
STEELYARD_INLINE void prefetch(const std::uint8_t*) {}
