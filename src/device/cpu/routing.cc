#include "device/cpu/routing.h"

#include <algorithm>
#include <array>
#include <bitset>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

namespace steelyard::cpu {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

void softmax(std::span<float> x) {
  const float most = *std::max_element(x.begin(), x.end());
  float sum = 0;
  for (float& v : x) sum += v = std::exp(v - most);
  for (float& v : x) v /= sum;
}

using Excluded = std::bitset<kMostExperts>;

struct Chooser {
  const float *scores, *bias;
  float operator()(std::uint32_t e) const { return bias ? scores[e] + bias[e] : scores[e]; }

  // The first of the best in [begin, end) that aren't excluded; numbers that aren't any come last.
  std::uint32_t best(std::uint32_t begin, std::uint32_t end, const Excluded& excluded) const {
    std::uint32_t found = end;
    for (std::uint32_t e = begin; e < end; ++e)
      if (!excluded[e] && (found == end || (*this)(e) > (*this)(found) || std::isnan((*this)(found))))
        found = e;
    return found;
  }
  // Of the two best of a group; of a group of one the one.
  float group_score(std::uint32_t begin, std::uint32_t end) const {
    Excluded taken;
    const std::uint32_t first = best(begin, end, taken);
    taken.set(first);
    const std::uint32_t second = best(begin, end, taken);
    return (*this)(first) + (second < end ? (*this)(second) : 0.0f);
  }
  // Everything outside of the groups that count.
  Excluded outside(const Routing& r) const {
    Excluded excluded;
    if (r.n_groups_used == r.n_groups) return excluded;
    const std::uint32_t size = r.n_experts / r.n_groups;
    std::array<float, kMostExperts> group;
    for (std::uint32_t g = 0; g < r.n_groups; ++g) group[g] = group_score(g * size, (g + 1) * size);
    excluded.set();
    for (std::uint32_t i = 0; i < r.n_groups_used; ++i) {
      const auto g = static_cast<std::uint32_t>(std::max_element(group.begin(), group.begin() + r.n_groups) -
                                                group.begin());
      for (std::uint32_t e = g * size; e < (g + 1) * size; ++e) excluded.reset(e);
      group[g] = kNone;
    }
    return excluded;
  }
};

}  // namespace

void choose(const Routing& r, float* logits, const float* choice_bias, Choice* choices) {
  const std::span<float> scores(logits, r.n_experts);
  if (r.scoring == Scoring::softmax) softmax(scores);
  if (r.scoring == Scoring::sigmoid)
    for (float& s : scores) s = 1.0f / (1.0f + std::exp(-s));
  const Chooser chooser{logits, choice_bias};
  Excluded excluded = chooser.outside(r);
  std::array<float, kMostUsedExperts> all;
  const std::span<float> weights(all.data(), r.n_used);
  for (std::uint32_t i = 0; i < r.n_used; ++i) {
    choices[i].expert = chooser.best(0, r.n_experts, excluded);
    excluded.set(choices[i].expert);
    weights[i] = scores[choices[i].expert];
  }
  if (r.scoring == Scoring::softmax_of_chosen) softmax(weights);
  float sum = 0;
  for (const float w : weights) sum += w;
  const float factor = r.renormalise ? r.scale / sum : r.scale;
  for (std::uint32_t i = 0; i < r.n_used; ++i) choices[i].weight = weights[i] * factor;
}

}  // namespace steelyard::cpu
