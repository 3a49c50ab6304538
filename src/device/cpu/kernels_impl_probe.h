// Loops that do nothing but one thing, for measuring what the machine can do. Included inside an unnamed
// namespace after kernels_impl_attention.h.

// Reads everything once, 8 streams of loads in flight; the sum keeps the loads alive.
static std::uint64_t read_all_kernel(const std::byte* data, std::uint64_t bytes) {
  const auto* p = reinterpret_cast<const std::uint8_t*>(data);
  VI s[8];
  for (VI& x : s) x = vi_set(0);
  for (std::uint64_t i = 0; i + 512 <= bytes; i += 512) {
    for (std::uint32_t j = 0; j < 512; j += 64) prefetch(p + i + kPrefetchBytes + j);
    for (int j = 0; j < 8; ++j) s[j] = vi_or(s[j], vi_load(p + i + 64 * j));
  }
  for (int j = 1; j < 8; ++j) s[0] = vi_or(s[0], s[j]);
  return vi_sum(s[0]);
}

STEELYARD_INLINE VI add(VI a, VI b) { return vi_add(a, b); }
STEELYARD_INLINE VF add(VF a, VF b) { return vf_add(a, b); }

// Twelve independent accumulators, named one by one: the compiler keeps an array of them in memory.
template <typename V, typename F>
STEELYARD_INLINE V spin(std::uint64_t iterations, V x, F step) {
  V a = x, b = step(a), c = step(b), d = step(c), e = step(d), f = step(e);  // all different
  V g = step(f), h = step(g), i = step(h), j = step(i), k = step(j), l = step(k);
  for (std::uint64_t n = 0; n < iterations; ++n) {
    a = step(a), b = step(b), c = step(c), d = step(d), e = step(e), f = step(f);
    g = step(g), h = step(h), i = step(i), j = step(j), k = step(k), l = step(l);
  }
  const auto sum = [](V p, V q) __attribute__((always_inline)) { return add(p, q); };
  return sum(sum(sum(a, b), sum(c, d)), sum(sum(sum(e, f), sum(g, h)), sum(sum(i, j), sum(k, l))));
}

// 12 x 64 byte products and sums per iteration, in registers.
static std::uint64_t spin_dots_kernel(std::uint64_t iterations) {
  const VI w = vi_set(0x01020304);
  const VI s = spin(
      iterations, vi_set(0), [w](VI x) __attribute__((always_inline)) { return vi_dot<false>(x, w, kOnes); });
  return vi_sum(s);
}

// 12 x 16 float multiply-adds per iteration, in registers.
static std::uint64_t spin_fmas_kernel(std::uint64_t iterations) {
  const VF m = vf_set(0.999f), c = vf_set(0.001f);
  const VF s = spin(
      iterations, m, [ m, c ](VF x) __attribute__((always_inline)) { return vf_fma(x, m, c); });
  return vf_sum(s) > 0.0f ? 1 : 0;
}
