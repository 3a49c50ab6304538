#include "device/cpu/sampler.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

namespace steelyard::cpu {
namespace {

constexpr SamplingParams kPlain{.temperature = 1, .top_k = 0, .top_p = 1};

std::int32_t run(const SamplingParams& p, std::vector<float> logits, std::int32_t position = 0,
                 std::vector<std::int32_t> history = {}, const std::uint32_t* mask = nullptr) {
  std::vector<Candidate> scratch(std::max(logits.size(), history.size()));
  return sample(kernels(choose_isa()), p, {logits, history, position, mask}, scratch);
}

// How often each token comes up over many positions.
std::map<std::int32_t, double> frequencies(const SamplingParams& p, const std::vector<float>& logits,
                                           int n = 20000) {
  std::map<std::int32_t, double> seen;
  for (int i = 0; i < n; ++i) seen[run(p, logits, i)] += 1.0 / n;
  return seen;
}

TEST(Sampler, GreedyTakesTheFirstOfTheBest) {
  EXPECT_EQ(run({.temperature = 0}, {1, 5, 5, 2}), 1);
  EXPECT_EQ(run({.temperature = 1, .top_k = 1}, {1, 5, 7, 2}), 2);
}

TEST(Sampler, SaysWhenLogitsAreNoNumbers) {
  for (const std::size_t n : {3u, 16u, 100u, 2000u})
    for (const std::size_t at : {std::size_t{0}, n / 2, n - 1})
      for (const float wrong : {NAN, -NAN, INFINITY})
        for (const float temperature : {0.0f, 1.0f}) {
          std::vector<float> logits(n, 1.0f);
          logits[at] = wrong;
          EXPECT_EQ(run({.temperature = temperature}, logits), kNoNumber) << n << ' ' << at << ' ' << wrong;
        }
  EXPECT_EQ(run({.temperature = 0}, std::vector<float>(40, NAN)), kNoNumber);
  EXPECT_EQ(run({.temperature = 1}, {-INFINITY, 0, -INFINITY}), 1);
  EXPECT_EQ(run({.temperature = 1}, {-INFINITY, -INFINITY}), 0);
}

TEST(Sampler, TypicalKeepsOneAtLeast) {
  const std::vector<float> logits = {1, 2, 3, 2};
  SamplingParams p = kPlain;
  p.typical_p = 0;
  for (int i = 0; i < 50; ++i) {
    const std::int32_t token = run(p, logits, i);
    EXPECT_GE(token, 0);
    EXPECT_LT(token, 4);
    EXPECT_EQ(token, run(p, logits, 0));  // one, whatever the draw
  }
}

TEST(Sampler, DrawsWithTheProbabilitiesOfTheLogits) {
  const std::vector<float> logits = {std::log(0.5f), std::log(0.3f), std::log(0.2f)};
  auto f = frequencies(kPlain, logits);
  EXPECT_NEAR(f[0], 0.5, 0.015);
  EXPECT_NEAR(f[1], 0.3, 0.015);
  EXPECT_NEAR(f[2], 0.2, 0.015);
  SamplingParams hot = kPlain;
  hot.temperature = 2;  // probabilities to the power 1/2, normalised
  f = frequencies(hot, logits);
  EXPECT_NEAR(f[0], 0.415, 0.015);
  EXPECT_NEAR(f[2], 0.263, 0.015);
}

TEST(Sampler, SameSeedAndPositionSameDraw) {
  const std::vector<float> logits(1000, 0.0f);
  SamplingParams p = kPlain;
  p.seed = 7;
  EXPECT_EQ(run(p, logits, 3), run(p, logits, 3));
  int equal = 0;
  for (int i = 0; i < 100; ++i) equal += run(p, logits, i) == run(p, logits, i + 1);
  EXPECT_LT(equal, 5);
}

TEST(Sampler, FiltersKeepWhatTheyShould) {
  const std::vector<float> logits = {std::log(0.4f), std::log(0.3f), std::log(0.2f), std::log(0.1f)};
  SamplingParams p = kPlain;
  p.top_k = 2;
  EXPECT_EQ(frequencies(p, logits).size(), 2u);
  p = kPlain;
  p.top_p = 0.65f;  // 0.4 + 0.3 reaches it
  EXPECT_EQ(frequencies(p, logits).size(), 2u);
  p = kPlain;
  p.min_p = 0.6f;  // at least 0.24
  EXPECT_EQ(frequencies(p, logits).size(), 2u);
  p = kPlain;
  p.typical_p = 0.25f;  // entropy 1.28 nat: 0.3 (1.20) is the nearest
  const auto typical = frequencies(p, logits);
  EXPECT_EQ(typical.size(), 1u);
  EXPECT_EQ(typical.begin()->first, 1);
}

TEST(Sampler, PenaltiesSeeTheWindowOnly) {
  SamplingParams p{.temperature = 0, .repeat_penalty = 2.0f, .repeat_last_n = 2};
  EXPECT_EQ(run(p, {4, 3, 1}, 3, {0, 1, 2}), 0);  // token 0 lies before the window
  p.repeat_last_n = 3;
  EXPECT_EQ(run(p, {4, 3, -1}, 3, {0, 2, 2}), 1);  // 4 / 2 < 3
  p = {.temperature = 0, .frequency_penalty = 1.0f};
  EXPECT_EQ(run(p, {4, 3, 1}, 3, {0, 0, 1}), 0);  // 4 - 2 and 3 - 1: the first of equals
  EXPECT_EQ(run(p, {4, 3, 1}, 4, {0, 0, 0, 1}), 1);
  p = {.temperature = 0, .presence_penalty = 1.5f};
  EXPECT_EQ(run(p, {4, 3, 1}, 3, {0, 0, 0}), 1);
}

TEST(Sampler, MasksForbid) {
  const std::uint32_t only_two = 1u << 2;
  EXPECT_EQ(run(kPlain, {9, 8, 1, 7}, 0, {}, &only_two), 2);
  EXPECT_EQ(run({.temperature = 0}, {9, 8, 1, 7}, 0, {}, &only_two), 2);
}

}  // namespace
}  // namespace steelyard::cpu
