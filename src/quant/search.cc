#include "quant/search.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace steelyard {
namespace {

// Four values at a time, on every machine: the compiler's vectors become SSE, NEON or plain code. Groups have
// 16 or 32 values.
using Four = float __attribute__((vector_size(16)));
constexpr std::size_t kFour = 4;

Four load(const float* x) {
  Four out;
  std::memcpy(&out, x, sizeof out);
  return out;
}
Four all(float x) { return Four{} + x; }
float sum(Four x) { return (x[0] + x[1]) + (x[2] + x[3]); }

// Nearest whole numbers from lo to hi. Beyond 2^23 a float has no places after the point, so adding 1.5 ·
// 2^23 and taking it away again rounds to the nearest, halves to even.
Four nearest_codes(Four value, float lo, float hi) {
  const Four low = all(lo), high = all(hi), big = all(12582912.0f);
  const Four kept = value > low ? (value > high ? high : value) : low;
  return (kept + big) - big;
}

// The entries of an ascending table nearest to the values: each step that they are past the middle of adds
// its height.
Four nearest_entries(Four value, const std::int8_t* table) {
  Four out = all(table[0]);
  for (int i = 0; i < 15; ++i) {
    const Four middle = all(0.5f * static_cast<float>(table[i] + table[i + 1]));
    out += value > middle ? all(static_cast<float>(table[i + 1] - table[i])) : Four{};
  }
  return out;
}

// Sums for the best d of x ≈ d v: d = xv / vv lowers the error by xv² / vv.
struct Correlation {
  Four xv{}, vv{};
  void add(Four w, Four x, Four v) {
    const Four wv = w * v;
    xv += wv * x;
    vv += wv * v;
  }
};

// The scale with the largest gain so far.
struct BestScale {
  float gain = -1, scale = 0;
  void take(const Correlation& sums) {
    const float xv = sum(sums.xv), vv = sum(sums.vv);
    const float g = vv > 0 ? xv * xv / vv : 0;
    if (g <= gain) return;
    gain = g;
    scale = vv > 0 ? xv / vv : 0;
  }
};

float furthest_from_zero(std::span<const float> x) {
  float extreme = 0;
  for (const float v : x)
    if (std::abs(v) > std::abs(extreme)) extreme = v;
  return extreme;
}

// Weighted least squares of x ≈ d q + m for given codes.
Affine solve(std::span<const float> x, std::span<const float> w, std::span<const float> q,
             bool offset_not_positive) {
  Four vw{}, vq{}, vqq{}, vx{}, vxq{};
  for (std::size_t i = 0; i < x.size(); i += kFour) {
    const Four wi = load(&w[i]), qi = load(&q[i]), xi = load(&x[i]);
    const Four wq = wi * qi;
    vw += wi;
    vq += wq;
    vqq += wq * qi;
    vx += wi * xi;
    vxq += wq * xi;
  }
  const float sw = sum(vw), sq = sum(vq), sqq = sum(vqq), sx = sum(vx), sxq = sum(vxq);
  const float determinant = sw * sqq - sq * sq;
  Affine fit{0, sw > 0 ? sx / sw : 0};
  if (determinant > 0) fit = {(sw * sxq - sq * sx) / determinant, (sqq * sx - sq * sxq) / determinant};
  if (offset_not_positive && fit.m > 0) fit = {sqq > 0 ? sxq / sqq : 0, 0};
  return fit;
}

float squared_error(std::span<const float> x, std::span<const float> w, std::span<const float> q,
                    Affine fit) {
  Four total{};
  for (std::size_t i = 0; i < x.size(); i += kFour) {
    const Four difference = load(&x[i]) - all(fit.d) * load(&q[i]) - all(fit.m);
    total += load(&w[i]) * difference * difference;
  }
  return sum(total);
}

}  // namespace

int nearest_code(float value, int lo, int hi) {
  // Written so that NaN fails both comparisons' "keep" side and becomes lo.
  if (!(value > static_cast<float>(lo))) return lo;
  if (value > static_cast<float>(hi)) return hi;
  return static_cast<int>(std::lrint(value));
}

float search_scale(std::span<const float> x, std::span<const float> w, int lo, int hi) {
  const float extreme = furthest_from_zero(x);
  if (std::abs(extreme) < 1e-30f) return 0;
  BestScale best;
  for (int step = -10; step <= 10; ++step) {
    const float inverse = (static_cast<float>(lo) + 0.1f * static_cast<float>(step)) / extreme;
    Correlation sums;
    for (std::size_t i = 0; i < x.size(); i += kFour) {
      const Four xi = load(&x[i]);
      sums.add(load(&w[i]), xi, nearest_codes(xi * inverse, static_cast<float>(lo), static_cast<float>(hi)));
    }
    best.take(sums);
  }
  return best.scale;
}

int nearest_entry(float value, const std::int8_t* table) {
  int code = 0;
  // The midpoint between neighbours decides.
  while (code < 15 && 2 * value > static_cast<float>(table[code] + table[code + 1])) ++code;
  return code;
}

float search_codebook_scale(std::span<const float> x, std::span<const float> w, const std::int8_t* table) {
  const float extreme = furthest_from_zero(x);
  if (std::abs(extreme) < 1e-30f) return 0;
  BestScale best;
  for (const int end : {0, 15}) {
    for (int step = -7; step <= 7; ++step) {
      const float inverse = static_cast<float>(table[end]) * (1 + 0.02f * static_cast<float>(step)) / extreme;
      Correlation sums;
      for (std::size_t i = 0; i < x.size(); i += kFour) {
        const Four xi = load(&x[i]);
        sums.add(load(&w[i]), xi, nearest_entries(xi * inverse, table));
      }
      best.take(sums);
    }
  }
  return best.scale;
}

Affine search_affine(std::span<const float> x, std::span<const float> w, int levels,
                     bool offset_not_positive) {
  const auto [least, most] = std::minmax_element(x.begin(), x.end());
  const float lo = offset_not_positive ? std::min(*least, 0.0f) : *least;
  const float range = *most - lo;
  if (!(range > 1e-30f)) return {0, lo};
  Affine best{range / static_cast<float>(levels), lo};
  float codes[32];
  const std::span<float> q(codes, x.size());
  float best_error = INFINITY;
  for (int step = -5; step <= 20; ++step) {
    // Shrinking the grid a little clips the ends but serves the middle.
    const float inverse = (static_cast<float>(levels) + 0.1f * static_cast<float>(step)) / range;
    for (std::size_t i = 0; i < x.size(); i += kFour) {
      const Four code = nearest_codes((load(&x[i]) - lo) * inverse, 0, static_cast<float>(levels));
      std::memcpy(&q[i], &code, sizeof code);
    }
    const Affine fit = solve(x, w, q, offset_not_positive);
    const float error = squared_error(x, w, q, fit);
    if (fit.d > 0 && error < best_error) {
      best_error = error;
      best = fit;
    }
  }
  return best;
}

}  // namespace steelyard
