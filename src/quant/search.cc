#include "quant/search.h"

#include <algorithm>
#include <cmath>

namespace steelyard {
namespace {

// Sums for the best d of x ≈ d v: d = xv / vv lowers the error by xv² / vv.
struct Correlation {
  float xv = 0, vv = 0;
  void add(float w, float x, float v) {
    xv += w * x * v;
    vv += w * v * v;
  }
  float gain() const { return vv > 0 ? xv * xv / vv : 0; }
  float scale() const { return vv > 0 ? xv / vv : 0; }
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
  float sw = 0, sq = 0, sqq = 0, sx = 0, sxq = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    sw += w[i];
    sq += w[i] * q[i];
    sqq += w[i] * q[i] * q[i];
    sx += w[i] * x[i];
    sxq += w[i] * x[i] * q[i];
  }
  const float determinant = sw * sqq - sq * sq;
  Affine fit{0, sw > 0 ? sx / sw : 0};
  if (determinant > 0) fit = {(sw * sxq - sq * sx) / determinant, (sqq * sx - sq * sxq) / determinant};
  if (offset_not_positive && fit.m > 0) fit = {sqq > 0 ? sxq / sqq : 0, 0};
  return fit;
}

float squared_error(std::span<const float> x, std::span<const float> w, std::span<const float> q,
                    Affine fit) {
  float sum = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const float difference = x[i] - fit.d * q[i] - fit.m;
    sum += w[i] * difference * difference;
  }
  return sum;
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
  float best_gain = -1, best = 0;
  for (int step = -10; step <= 10; ++step) {
    const float inverse = (static_cast<float>(lo) + 0.1f * static_cast<float>(step)) / extreme;
    Correlation sums;
    for (std::size_t i = 0; i < x.size(); ++i)
      sums.add(w[i], x[i], static_cast<float>(nearest_code(x[i] * inverse, lo, hi)));
    if (sums.gain() > best_gain) {
      best_gain = sums.gain();
      best = sums.scale();
    }
  }
  return best;
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
  float best_gain = -1, best = 0;
  for (const int end : {0, 15}) {
    for (int step = -7; step <= 7; ++step) {
      const float inverse = static_cast<float>(table[end]) * (1 + 0.02f * static_cast<float>(step)) / extreme;
      Correlation sums;
      for (std::size_t i = 0; i < x.size(); ++i)
        sums.add(w[i], x[i], static_cast<float>(table[nearest_entry(x[i] * inverse, table)]));
      if (sums.gain() > best_gain) {
        best_gain = sums.gain();
        best = sums.scale();
      }
    }
  }
  return best;
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
    for (std::size_t i = 0; i < x.size(); ++i)
      q[i] = static_cast<float>(nearest_code((x[i] - lo) * inverse, 0, levels));
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
