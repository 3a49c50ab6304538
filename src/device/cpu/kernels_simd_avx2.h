// 16 lanes in two 256-bit registers. Included inside an unnamed namespace by kernels_avx2.cc only.
// clang-format off
struct VF { __m256 a, b; };
struct VI { __m256i a, b; };
#define STEELYARD_INLINE static inline __attribute__((always_inline))

STEELYARD_INLINE VF vf_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
STEELYARD_INLINE void vf_store(float* p, VF x) { _mm256_storeu_ps(p, x.a); _mm256_storeu_ps(p + 8, x.b); }
STEELYARD_INLINE VF vf_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
STEELYARD_INLINE VF vf_zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
STEELYARD_INLINE VF vf_add(VF x, VF y) { return {_mm256_add_ps(x.a, y.a), _mm256_add_ps(x.b, y.b)}; }
STEELYARD_INLINE VF vf_sub(VF x, VF y) { return {_mm256_sub_ps(x.a, y.a), _mm256_sub_ps(x.b, y.b)}; }
STEELYARD_INLINE VF vf_mul(VF x, VF y) { return {_mm256_mul_ps(x.a, y.a), _mm256_mul_ps(x.b, y.b)}; }
STEELYARD_INLINE VF vf_div(VF x, VF y) { return {_mm256_div_ps(x.a, y.a), _mm256_div_ps(x.b, y.b)}; }
STEELYARD_INLINE VF vf_max(VF x, VF y) { return {_mm256_max_ps(x.a, y.a), _mm256_max_ps(x.b, y.b)}; }
STEELYARD_INLINE VF vf_min(VF x, VF y) { return {_mm256_min_ps(x.a, y.a), _mm256_min_ps(x.b, y.b)}; }
STEELYARD_INLINE VF vf_fma(VF x, VF y, VF z) { return {_mm256_fmadd_ps(x.a, y.a, z.a), _mm256_fmadd_ps(x.b, y.b, z.b)}; }
STEELYARD_INLINE VF vf_abs(VF x) {
  const __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  return {_mm256_and_ps(x.a, m), _mm256_and_ps(x.b, m)};
}
STEELYARD_INLINE __m256 range_mask(int first, int lo, int hi) {
  const __m256i i = _mm256_add_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(first));
  return _mm256_castsi256_ps(_mm256_andnot_si256(_mm256_cmpgt_epi32(_mm256_set1_epi32(lo), i),
                                                 _mm256_cmpgt_epi32(_mm256_set1_epi32(hi), i)));
}
STEELYARD_INLINE VF vf_keep_range(VF x, int lo, int hi, VF other) {
  return {_mm256_blendv_ps(other.a, x.a, range_mask(0, lo, hi)), _mm256_blendv_ps(other.b, x.b, range_mask(8, lo, hi))};
}
STEELYARD_INLINE VF vf_less_select(VF x, VF y, VF yes, VF no) {
  return {_mm256_blendv_ps(no.a, yes.a, _mm256_cmp_ps(x.a, y.a, _CMP_LT_OQ)),
          _mm256_blendv_ps(no.b, yes.b, _mm256_cmp_ps(x.b, y.b, _CMP_LT_OQ))};
}
STEELYARD_INLINE float vf_sum(VF x) {
  const __m256 h = _mm256_add_ps(x.a, x.b);
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
STEELYARD_INLINE float vf_hmax(VF x) {
  const __m256 h = _mm256_max_ps(x.a, x.b);
  __m128 q = _mm_max_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_max_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
STEELYARD_INLINE VF vf_swap_pairs(VF x) { return {_mm256_permute_ps(x.a, 0xb1), _mm256_permute_ps(x.b, 0xb1)}; }
STEELYARD_INLINE __m128i load128(const std::uint8_t* p) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p)); }
STEELYARD_INLINE VF vf_load_f16(const std::uint8_t* p) { return {_mm256_cvtph_ps(load128(p)), _mm256_cvtph_ps(load128(p + 16))}; }
STEELYARD_INLINE void vf_store_f16(std::uint8_t* p, VF x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm256_cvtps_ph(x.a, _MM_FROUND_TO_NEAREST_INT));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p + 16), _mm256_cvtps_ph(x.b, _MM_FROUND_TO_NEAREST_INT));
}
STEELYARD_INLINE VF vf_bcast_f16(const std::uint8_t* p) {
  short h;
  __builtin_memcpy(&h, p, 2);
  const __m256 x = _mm256_cvtph_ps(_mm_set1_epi16(h));
  return {x, x};
}
STEELYARD_INLINE VF vf_load_i8(const std::uint8_t* p) {
  const __m128i q = load128(p);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)), _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(q, 8)))};
}
STEELYARD_INLINE __m256i load256(const std::uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
STEELYARD_INLINE VI vi_load(const std::uint8_t* p) { return {load256(p), load256(p + 32)}; }
STEELYARD_INLINE VI vi_set(int x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
STEELYARD_INLINE VI vi_bcast(const std::uint8_t* p) {
  int x;
  __builtin_memcpy(&x, p, 4);
  return vi_set(x);
}
STEELYARD_INLINE VI vi_add(VI x, VI y) { return {_mm256_add_epi32(x.a, y.a), _mm256_add_epi32(x.b, y.b)}; }
STEELYARD_INLINE VI vi_sub(VI x, VI y) { return {_mm256_sub_epi32(x.a, y.a), _mm256_sub_epi32(x.b, y.b)}; }
STEELYARD_INLINE VI vi_load_u8(const std::uint8_t* p) {
  const __m128i q = load128(p);
  return {_mm256_cvtepu8_epi32(q), _mm256_cvtepu8_epi32(_mm_srli_si128(q, 8))};
}
STEELYARD_INLINE VI vi_lookup(const std::uint8_t* table, VI x) {  // of every byte, 0..15
  const __m256i t = _mm256_broadcastsi128_si256(load128(table));
  return {_mm256_shuffle_epi8(t, x.a), _mm256_shuffle_epi8(t, x.b)};
}
STEELYARD_INLINE VI vi_and(VI x, VI y) { return {_mm256_and_si256(x.a, y.a), _mm256_and_si256(x.b, y.b)}; }
STEELYARD_INLINE VI vi_or(VI x, VI y) { return {_mm256_or_si256(x.a, y.a), _mm256_or_si256(x.b, y.b)}; }
STEELYARD_INLINE VI vi_or_and(VI x, VI y, VI mask) { return vi_or(x, vi_and(y, mask)); }
template <int N> STEELYARD_INLINE VI vi_shl(VI x) { return {_mm256_slli_epi32(x.a, N), _mm256_slli_epi32(x.b, N)}; }
template <int N> STEELYARD_INLINE VI vi_shr(VI x) { return {_mm256_srli_epi32(x.a, N), _mm256_srli_epi32(x.b, N)}; }
template <int N> STEELYARD_INLINE VI vi_sar(VI x) { return {_mm256_srai_epi32(x.a, N), _mm256_srai_epi32(x.b, N)}; }
STEELYARD_INLINE VI vi_shr_n(VI x, int n) {
  const __m128i s = _mm_cvtsi32_si128(n);
  return {_mm256_srl_epi32(x.a, s), _mm256_srl_epi32(x.b, s)};
}
STEELYARD_INLINE VF vi_to_float(VI x) { return {_mm256_cvtepi32_ps(x.a), _mm256_cvtepi32_ps(x.b)}; }
STEELYARD_INLINE VI vf_round(VF x) { return {_mm256_cvtps_epi32(x.a), _mm256_cvtps_epi32(x.b)}; }
STEELYARD_INLINE VF vi_as_float(VI x) { return {_mm256_castsi256_ps(x.a), _mm256_castsi256_ps(x.b)}; }
STEELYARD_INLINE VI vf_as_int(VF x) { return {_mm256_castps_si256(x.a), _mm256_castps_si256(x.b)}; }
STEELYARD_INLINE std::uint32_t vi_sum(VI x) {
  const __m256i h = _mm256_add_epi32(x.a, x.b);
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1))));
}
STEELYARD_INLINE void vi_store_i8(std::uint8_t* p, VI x) {  // values fit i8
  const __m256i w = _mm256_permute4x64_epi64(_mm256_packs_epi32(x.a, x.b), 0xd8);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
}
// See kernels_simd_avx512.h.
constexpr bool kSignedWeights = true;
template <bool Full> STEELYARD_INLINE __m256i dot8(__m256i c, __m256i w, __m256i x) {
  if constexpr (Full) {
    const __m256i s = _mm256_xor_si256(w, _mm256_set1_epi8(static_cast<char>(0x80)));
    x = _mm256_sign_epi8(x, s);
    w = _mm256_abs_epi8(s);
  }
  return _mm256_add_epi32(c, _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)));
}
template <bool Full> STEELYARD_INLINE VI vi_dot(VI c, VI w, const std::uint8_t* px) {
  const __m256i x = vi_bcast(px).a;
  return {dot8<Full>(c.a, w.a, x), dot8<Full>(c.b, w.b, x)};
}
constexpr int kTileRows = 4;
STEELYARD_INLINE void prefetch(const std::uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
