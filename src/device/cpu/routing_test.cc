#include "device/cpu/routing.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace steelyard::cpu {
namespace {

using ::testing::ElementsAre;

struct Chosen {
  std::vector<std::uint32_t> experts;
  std::vector<float> weights;
};
Chosen chosen(Routing routing, std::vector<float> logits, const std::vector<float>& bias = {}) {
  routing.n_experts = static_cast<std::uint32_t>(logits.size());
  std::vector<Choice> choices(routing.n_used);
  choose(routing, logits.data(), bias.empty() ? nullptr : bias.data(), choices.data());
  Chosen out;
  for (const Choice& c : choices) out.experts.push_back(c.expert), out.weights.push_back(c.weight);
  return out;
}
const float kLn2 = std::log(2.0f);

TEST(Routing, SoftmaxBeforeTheChoice) {  // probabilities 1/8, 4/8, 2/8, 1/8
  const Chosen c = chosen({.n_used = 2}, {0, 2 * kLn2, kLn2, 0});
  EXPECT_THAT(c.experts, ElementsAre(1u, 2u));
  EXPECT_NEAR(c.weights[0], 0.5f, 1e-6f);
  EXPECT_NEAR(c.weights[1], 0.25f, 1e-6f);
}

TEST(Routing, RenormalisedAndScaled) {
  const Chosen c = chosen({.n_used = 2, .renormalise = true, .scale = 3}, {0, 2 * kLn2, kLn2, 0});
  EXPECT_NEAR(c.weights[0], 2.0f, 1e-6f);
  EXPECT_NEAR(c.weights[1], 1.0f, 1e-6f);
}

TEST(Routing, SoftmaxOfTheChosen) {
  const Chosen c = chosen({.n_used = 2, .scoring = Scoring::softmax_of_chosen}, {-9, kLn2, 2 * kLn2, 0});
  EXPECT_THAT(c.experts, ElementsAre(2u, 1u));
  EXPECT_NEAR(c.weights[0], 2.0f / 3, 1e-6f);
}

// The bias chooses, and counts no further.
TEST(Routing, SigmoidWithABiasOfTheChoice) {
  const Chosen c = chosen({.n_used = 1, .scoring = Scoring::sigmoid}, {2, 0, 1}, {0, 1, 0});
  EXPECT_THAT(c.experts, ElementsAre(1u));
  EXPECT_NEAR(c.weights[0], 0.5f, 1e-6f);
}

// The best expert's group has no second: the other two together are better.
TEST(Routing, GroupsCountByTheirTwoBest) {
  const Routing groups{.n_used = 2, .scoring = Scoring::softmax_of_chosen, .n_groups = 2, .n_groups_used = 1};
  EXPECT_THAT(chosen(groups, {5, -4, 2, 3}).experts, ElementsAre(3u, 2u));
  EXPECT_THAT(chosen(groups, {5, 1, 2, 3}).experts, ElementsAre(0u, 1u));
}

TEST(Routing, OfEqualsTheFirst) {
  EXPECT_THAT(chosen({.n_used = 3}, std::vector<float>(8, 1.0f)).experts, ElementsAre(0u, 1u, 2u));
}

// Broken weights: some experts are chosen, each once, and the answer isn't a number.
TEST(Routing, NumbersThatAreNoneChooseEachExpertOnce) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Chosen c = chosen({.n_used = 3}, {nan, nan, nan});
  EXPECT_THAT(c.experts, ::testing::UnorderedElementsAre(0u, 1u, 2u));
  EXPECT_TRUE(std::isnan(c.weights[0]));
}

}  // namespace
}  // namespace steelyard::cpu
