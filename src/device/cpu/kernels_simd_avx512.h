// 16 lanes in one 512-bit register. Included inside an unnamed namespace by the avx512* files only.
// clang-format off
struct VF { __m512 v; };
struct VI { __m512i v; };
#define STEELYARD_INLINE static inline __attribute__((always_inline))

STEELYARD_INLINE VF vf_load(const float* p) { return {_mm512_loadu_ps(p)}; }
STEELYARD_INLINE void vf_store(float* p, VF a) { _mm512_storeu_ps(p, a.v); }
STEELYARD_INLINE VF vf_set(float x) { return {_mm512_set1_ps(x)}; }
STEELYARD_INLINE VF vf_zero() { return {_mm512_setzero_ps()}; }
STEELYARD_INLINE VF vf_add(VF a, VF b) { return {_mm512_add_ps(a.v, b.v)}; }
STEELYARD_INLINE VF vf_sub(VF a, VF b) { return {_mm512_sub_ps(a.v, b.v)}; }
STEELYARD_INLINE VF vf_mul(VF a, VF b) { return {_mm512_mul_ps(a.v, b.v)}; }
STEELYARD_INLINE VF vf_div(VF a, VF b) { return {_mm512_div_ps(a.v, b.v)}; }
STEELYARD_INLINE VF vf_max(VF a, VF b) { return {_mm512_max_ps(a.v, b.v)}; }
STEELYARD_INLINE VF vf_min(VF a, VF b) { return {_mm512_min_ps(a.v, b.v)}; }
STEELYARD_INLINE VF vf_fma(VF a, VF b, VF c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a b + c
STEELYARD_INLINE VF vf_abs(VF a) { return {_mm512_abs_ps(a.v)}; }
// Lane i kept where lo <= i < hi, else `other`.
STEELYARD_INLINE VF vf_keep_range(VF a, int lo, int hi, VF other) {
  const unsigned below = hi >= 16 ? 0xffffu : hi <= 0 ? 0u : (1u << hi) - 1u;
  const unsigned from = lo <= 0 ? 0xffffu : lo >= 16 ? 0u : 0xffffu << lo;
  return {_mm512_mask_mov_ps(other.v, static_cast<__mmask16>(below & from), a.v)};
}
STEELYARD_INLINE VF vf_less_select(VF a, VF b, VF yes, VF no) {  // a < b ? yes : no
  return {_mm512_mask_mov_ps(no.v, _mm512_cmp_ps_mask(a.v, b.v, _CMP_LT_OQ), yes.v)};
}
STEELYARD_INLINE float vf_sum(VF a) {  // a fixed tree: lanes i and i+8, then i+4, i+2, i+1
  __m256 h = _mm256_add_ps(_mm512_castps512_ps256(a.v), _mm512_extractf32x8_ps(a.v, 1));
  __m128 q = _mm_add_ps(_mm256_castps256_ps128(h), _mm256_extractf128_ps(h, 1));
  q = _mm_add_ps(q, _mm_movehl_ps(q, q));
  return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
STEELYARD_INLINE float vf_hmax(VF a) { return _mm512_reduce_max_ps(a.v); }
STEELYARD_INLINE VF vf_swap_pairs(VF a) { return {_mm512_permute_ps(a.v, 0xb1)}; }
STEELYARD_INLINE VF vf_load_f16(const std::uint8_t* p) {
  return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
}
STEELYARD_INLINE void vf_store_f16(std::uint8_t* p, VF a) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT));
}
STEELYARD_INLINE VF vf_bcast_f16(const std::uint8_t* p) {
  short h;
  __builtin_memcpy(&h, p, 2);
  return {_mm512_cvtph_ps(_mm256_set1_epi16(h))};
}
STEELYARD_INLINE VF vf_load_i8(const std::uint8_t* p) {
  return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
}
STEELYARD_INLINE VI vi_load(const std::uint8_t* p) { return {_mm512_loadu_si512(p)}; }
STEELYARD_INLINE VI vi_load_u8(const std::uint8_t* p) {
  return {_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))};
}
STEELYARD_INLINE VI vi_lookup(const std::uint8_t* table, VI a) {  // of every byte, 0..15
  return {_mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table))), a.v)};
}
STEELYARD_INLINE VI vi_set(int x) { return {_mm512_set1_epi32(x)}; }
STEELYARD_INLINE VI vi_bcast(const std::uint8_t* p) {
  int x;
  __builtin_memcpy(&x, p, 4);
  return {_mm512_set1_epi32(x)};
}
STEELYARD_INLINE VI vi_add(VI a, VI b) { return {_mm512_add_epi32(a.v, b.v)}; }
STEELYARD_INLINE VI vi_sub(VI a, VI b) { return {_mm512_sub_epi32(a.v, b.v)}; }
STEELYARD_INLINE VI vi_and(VI a, VI b) { return {_mm512_and_si512(a.v, b.v)}; }
STEELYARD_INLINE VI vi_or(VI a, VI b) { return {_mm512_or_si512(a.v, b.v)}; }
STEELYARD_INLINE VI vi_or_and(VI a, VI b, VI mask) {  // a | (b & mask)
  return {_mm512_ternarylogic_epi32(a.v, b.v, mask.v, 0xf8)};
}
template <int N> STEELYARD_INLINE VI vi_shl(VI a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> STEELYARD_INLINE VI vi_shr(VI a) { return {_mm512_srli_epi32(a.v, N)}; }
template <int N> STEELYARD_INLINE VI vi_sar(VI a) { return {_mm512_srai_epi32(a.v, N)}; }
STEELYARD_INLINE VI vi_shr_n(VI a, int n) { return {_mm512_srl_epi32(a.v, _mm_cvtsi32_si128(n))}; }
STEELYARD_INLINE VF vi_to_float(VI a) { return {_mm512_cvtepi32_ps(a.v)}; }
STEELYARD_INLINE VI vf_round(VF a) { return {_mm512_cvtps_epi32(a.v)}; }  // to nearest, ties to even
STEELYARD_INLINE VF vi_as_float(VI a) { return {_mm512_castsi512_ps(a.v)}; }
STEELYARD_INLINE VI vf_as_int(VF a) { return {_mm512_castps_si512(a.v)}; }
// Modulo 2^32: _mm512_reduce_add_epi32 adds as signed integers, whose overflow the language leaves open.
STEELYARD_INLINE std::uint32_t vi_sum(VI a) {
  const __m256i h = _mm256_add_epi32(_mm512_castsi512_si256(a.v), _mm512_extracti64x4_epi64(a.v, 1));
  __m128i q = _mm_add_epi32(_mm256_castsi256_si128(h), _mm256_extracti128_si256(h, 1));
  q = _mm_add_epi32(q, _mm_shuffle_epi32(q, 0x4e));
  return static_cast<std::uint32_t>(_mm_cvtsi128_si32(_mm_add_epi32(q, _mm_shuffle_epi32(q, 0xb1))));
}
// The low bytes of the lanes.
STEELYARD_INLINE void vi_store_i8(std::uint8_t* p, VI a) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(a.v));
}
// c + sum over the 4 bytes of a lane of w (unsigned) * x (signed). `Full`: w may exceed 127.
// Then kSignedWeights says whether the result is for w - 128 instead of w.
#if defined(__AVX512VNNI__)
constexpr bool kSignedWeights = false;
template <bool Full> STEELYARD_INLINE VI vi_dot(VI c, VI w, VI x) { return {_mm512_dpbusd_epi32(c.v, w.v, x.v)}; }
#else
constexpr bool kSignedWeights = true;
template <bool Full> STEELYARD_INLINE VI vi_dot(VI c, VI w, VI x) {
  if constexpr (Full) {  // vpmaddubsw saturates: take |w - 128| and move the sign to x
    const __m512i s = _mm512_xor_si512(w.v, _mm512_set1_epi8(static_cast<char>(0x80)));
    x.v = _mm512_mask_sub_epi8(x.v, _mm512_movepi8_mask(s), _mm512_setzero_si512(), x.v);
    w.v = _mm512_abs_epi8(s);
  }
  return {_mm512_add_epi32(c.v, _mm512_madd_epi16(_mm512_maddubs_epi16(w.v, x.v), _mm512_set1_epi16(1)))};
}
#endif
template <bool Full> STEELYARD_INLINE VI vi_dot(VI c, VI w, const std::uint8_t* x) { return vi_dot<Full>(c, w, vi_bcast(x)); }
constexpr int kTileRows = 16;  // rows of activations a kernel call handles at most
STEELYARD_INLINE void prefetch(const std::uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }
