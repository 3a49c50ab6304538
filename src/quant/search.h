// Least-squares searches for the scales of a group of 16 or 32 weights. Internal to quant/.
#pragma once

#include <cstdint>
#include <span>

namespace steelyard {

// Rounds to the nearest code in lo … hi; huge and NaN inputs land inside.
int nearest_code(float value, int lo, int hi);

// The scale d with the least Σ w (x - d q)² over integer codes lo ≤ q ≤ hi, lo < 0 < hi, |lo| ≥ hi. May be
// negative: the value furthest from zero is put on the longer side. 0 when all x are 0.
float search_scale(std::span<const float> x, std::span<const float> w, int lo, int hi);

// The same over a table of 16 ascending values: x ≈ d table[q].
float search_codebook_scale(std::span<const float> x, std::span<const float> w, const std::int8_t* table);
// Index of the entry nearest to value in 16 ascending ones.
int nearest_entry(float value, const std::int8_t* table);

// d ≥ 0 and m with the least Σ w (x - d q - m)² over 0 ≤ q ≤ levels; with offset_not_positive also m ≤ 0.
struct Affine {
  float d, m;
};
Affine search_affine(std::span<const float> x, std::span<const float> w, int levels,
                     bool offset_not_positive);

}  // namespace steelyard
