#include "program/uses.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

// Every id of these ops differs from every other, so that none can stand for another.
const Op kEmbed{-1, EmbedOp{.table = 1, .scale = 1.0f, .out = 2}};
const Op kQkv{0, QkvOp{.in = 3,
                       .norm = {4, 1e-5f},
                       .q = 5,
                       .k = 6,
                       .v = 7,
                       .q_bias = 8,
                       .k_bias = 9,
                       .v_bias = 10,
                       .q_out = 11,
                       .k_out = 12,
                       .v_out = 13}};
const Op kRope{0, RopeAppendOp{.q = 14,
                               .k = 15,
                               .v = 16,
                               .n_heads = 2,
                               .q_norm = {17, 1e-5f},
                               .k_norm = {18, 1e-5f},
                               .rope = 0,
                               .state = 19}};
const Op kAttention{
    0, AttentionOp{.q = 20, .out = 21, .n_heads = 6, .state = 22, .scale = 1.0f, .window = 48, .sinks = 23}};
const Op kResidual{
    0, ResidualLinearOp{
           .in = 24, .weight = 25, .bias = 26, .post_norm = {27, 1e-5f}, .residual = 28, .out = 29}};
const Op kGateUp{0, GateUpOp{.in = 30,
                             .norm = {31, 1e-5f},
                             .gate = 32,
                             .up = 33,
                             .gate_bias = 40,
                             .up_bias = 41,
                             .activation = Activation::silu,
                             .out = 34}};
const Op kHead{-1, HeadOp{.in = 35, .norm = {36, 1e-5f}, .weight = 37, .logits = 38}};
const Op kSample{-1, SampleOp{.logits = 39}};

const Op kExperts{0, ExpertsOp{.in = 41,
                               .norm = {42, 1e-5f},
                               .routing = {.n_experts = 8, .n_used = 3},
                               .router = 43,
                               .router_bias = 44,
                               .choice_bias = 45,
                               .gate = 46,
                               .up = 47,
                               .down = 48,
                               .gate_bias = 49,
                               .up_bias = 50,
                               .down_bias = 51,
                               .activation = Activation::silu,
                               .residual = 52,
                               .out = 53}};

UsedWeight experts(WeightId id) { return {id, WeightUse::experts, 3}; }
UsedWeight product(WeightId id) { return {id, WeightUse::product}; }
UsedWeight vector(WeightId id) { return {id, WeightUse::vector}; }

TEST(Uses, WeightsOfEveryOp) {
  EXPECT_THAT(weights_of(kEmbed), ElementsAre(UsedWeight{1, WeightUse::lookup}));
  EXPECT_THAT(weights_of(kQkv),
              ElementsAre(product(5), product(6), product(7), vector(4), vector(8), vector(9), vector(10)));
  EXPECT_THAT(weights_of(kRope), ElementsAre(vector(17), vector(18)));
  EXPECT_THAT(weights_of(kAttention), ElementsAre(vector(23)));
  EXPECT_THAT(weights_of(kResidual), ElementsAre(product(25), vector(26), vector(27)));
  EXPECT_THAT(weights_of(kGateUp), ElementsAre(product(32), product(33), vector(31), vector(40), vector(41)));
  EXPECT_THAT(weights_of(kExperts),
              ElementsAre(product(43), experts(46), experts(47), experts(48), experts(49), experts(50),
                          experts(51), vector(42), vector(44), vector(45)));
  EXPECT_THAT(weights_of(kHead), ElementsAre(product(37), vector(36)));
  EXPECT_THAT(weights_of(kSample), IsEmpty());
}

TEST(Uses, WeightsThatAnOpHasNotAreLeftOut) {
  EXPECT_THAT(weights_of({0, QkvOp{.in = 0, .q = 1, .k = 2, .v = 3, .q_out = 1, .k_out = 2, .v_out = 3}}),
              ElementsAre(product(1), product(2), product(3)));
  EXPECT_THAT(weights_of({0, RopeAppendOp{.q = 0, .k = 1, .v = 2, .n_heads = 1, .rope = -1, .state = 0}}),
              IsEmpty());
  EXPECT_THAT(weights_of({0, AttentionOp{.q = 0, .out = 1, .n_heads = 1, .state = 0, .scale = 1.0f}}),
              IsEmpty());
  EXPECT_THAT(weights_of({0, ResidualLinearOp{.in = 0, .weight = 1, .residual = 2, .out = 2}}),
              ElementsAre(product(1)));
  EXPECT_THAT(
      weights_of({0, GateUpOp{.in = 0, .gate = 1, .up = 2, .activation = Activation::silu, .out = 1}}),
      ElementsAre(product(1), product(2)));
}

TEST(Uses, ProductsOfEveryOp) {
  EXPECT_THAT(products(kQkv).weights, ElementsAre(5, 6, 7));
  EXPECT_EQ(products(kQkv).in, 3);
  EXPECT_EQ(products(kQkv).rows, RowSet::all);
  EXPECT_THAT(products(kResidual).weights, ElementsAre(25));
  EXPECT_EQ(products(kResidual).in, 24);
  EXPECT_THAT(products(kGateUp).weights, ElementsAre(32, 33));
  EXPECT_EQ(products(kGateUp).in, 30);
  EXPECT_THAT(products(kExperts).weights, ElementsAre(43));
  EXPECT_EQ(products(kExperts).in, 41);
  EXPECT_THAT(products(kHead).weights, ElementsAre(37));
  EXPECT_EQ(products(kHead).in, 35);
  EXPECT_EQ(products(kHead).rows, RowSet::outputs);
  for (const Op& op : {kEmbed, kRope, kAttention, kSample}) EXPECT_THAT(products(op).weights, IsEmpty());
}

TEST(Uses, BuffersWrittenByEveryOp) {
  EXPECT_THAT(writes(kEmbed), ElementsAre(2));
  EXPECT_THAT(writes(kQkv), ElementsAre(11, 12, 13));
  EXPECT_THAT(writes(kRope), ElementsAre(14));  // q in place; k and v go to the state
  EXPECT_THAT(writes(kAttention), ElementsAre(21));
  EXPECT_THAT(writes(kResidual), ElementsAre(29));
  EXPECT_THAT(writes(kGateUp), ElementsAre(34));
  EXPECT_THAT(writes(kExperts), ElementsAre(53));
  EXPECT_THAT(writes(kHead), ElementsAre(38));
  EXPECT_THAT(writes(kSample), IsEmpty());
}

TEST(Uses, BuffersReadByEveryOp) {
  EXPECT_THAT(reads(kEmbed), IsEmpty());
  EXPECT_THAT(reads(kQkv), ElementsAre(3));
  EXPECT_THAT(reads(kRope), ElementsAre(14, 15, 16));
  EXPECT_THAT(reads(kAttention), ElementsAre(20));
  EXPECT_THAT(reads(kResidual), ElementsAre(24, 28));
  EXPECT_THAT(reads(kGateUp), ElementsAre(30));
  EXPECT_THAT(reads(kExperts), ElementsAre(41, 52));
  EXPECT_THAT(reads(kHead), ElementsAre(35));
  EXPECT_THAT(reads(kSample), ElementsAre(39));
}

TEST(Uses, StatesOfEveryOp) {
  EXPECT_EQ(appends_to(kRope), 19);
  const auto a = attends(kAttention);
  ASSERT_TRUE(a);
  EXPECT_EQ(a->state, 22);
  EXPECT_EQ(a->n_heads, 6u);
  EXPECT_EQ(a->window, 48u);
  for (const Op& op : {kEmbed, kQkv, kAttention, kResidual, kGateUp, kExperts, kHead, kSample})
    EXPECT_FALSE(appends_to(op));
  for (const Op& op : {kEmbed, kQkv, kRope, kResidual, kGateUp, kHead, kSample}) EXPECT_FALSE(attends(op));
}

TEST(Uses, RolesOfEveryOp) {
  EXPECT_EQ(role(kEmbed), OpRole::input);
  for (const Op& op : {kQkv, kRope, kAttention, kResidual, kGateUp, kExperts})
    EXPECT_EQ(role(op), OpRole::layer);
  EXPECT_EQ(role(kHead), OpRole::logits);
  EXPECT_EQ(role(kSample), OpRole::sample);
}

TEST(Uses, LogitsAreWhatTheHeadWrites) {
  Program p;
  EXPECT_EQ(logits_of(p), kNoBuffer);  // a part of a model without a head
  p.ops = {kEmbed, kQkv, kHead, kSample};
  EXPECT_EQ(logits_of(p), 38);
}

}  // namespace
}  // namespace steelyard
