#include "program/share.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "program/cost.h"
#include "program/testing.h"
#include "program/uses.h"

namespace steelyard {
namespace {

using testing::Shape;
using testing::tiny_program;

const Shape kShape{.width = 256,
                   .n_heads = 8,
                   .n_kv_heads = 4,
                   .head_dim = 64,
                   .n_ff = 768,
                   .vocab = 100,
                   .layers = 3,
                   .qkv_bias = true,
                   .out_bias = true,
                   .head_norms = true,
                   .sinks = true,
                   .rope_factors = true};

std::uint64_t weight_bytes(const Program& p) {
  std::uint64_t bytes = 0;
  for (const auto& w : p.weights) bytes += w.file_bytes();
  return bytes;
}

TEST(Share, PartsOfAllUnitsHoldTheProgram) {
  for (const bool tied : {false, true}) {
    Shape shape = kShape;
    shape.tied = tied;
    shape.rope_factors = false;
    const Program whole = tiny_program(shape, DType::Q8_0, DType::F16);
    ASSERT_EQ(unit_count(whole), 5u);
    const StepShape step{.rows = 3, .outputs = 3, .context = 10, .state_reads = 30};
    double flops = 0;
    std::uint64_t bytes = 0;
    std::size_t ops = 0, states = 0;
    for (std::uint32_t unit = 0; unit < 5; ++unit) {
      const Program part = part_of(whole, {.begin = unit, .end = unit + 1});
      EXPECT_NO_THROW(check(part));
      bytes += weight_bytes(part), ops += part.ops.size(), states += part.states.size();
      flops += step_cost(part, step).flops;
    }
    EXPECT_EQ(ops, whole.ops.size());
    EXPECT_EQ(states, whole.states.size());
    EXPECT_DOUBLE_EQ(flops, step_cost(whole, step).flops);
    // A tied table is needed at both ends.
    EXPECT_EQ(bytes, weight_bytes(whole) + (tied ? whole.weights[0].file_bytes() : 0));
  }
}

TEST(Share, ATableThatIsOnlyLookedUpIsAnEmbedding) {
  Shape shape = kShape;
  shape.tied = true;
  const Program whole = tiny_program(shape, DType::Q8_0, DType::F16);
  const Program first = part_of(whole, {.begin = 0, .end = 2}), last = part_of(whole, {.begin = 2, .end = 5});
  EXPECT_EQ(first.weights[std::get<EmbedOp>(first.ops[0].body).table].role, WeightRole::embedding);
  const auto& head = std::get<HeadOp>(last.ops[last.ops.size() - 2].body);
  EXPECT_EQ(last.weights[head.weight].role, WeightRole::head);
}

TEST(Share, APartKeepsNumbersOfGroupsAndRopes) {
  Program whole = tiny_program(kShape, DType::Q8_0, DType::F16);
  whole.groups.push_back({"window 64", 64});
  whole.states[2].group = 1;
  const Program part = part_of(whole, {.begin = 3, .end = 4});
  ASSERT_EQ(part.groups.size(), 2u);
  ASSERT_EQ(part.states.size(), 1u);
  EXPECT_EQ(part.states[0].group, 1);
  ASSERT_EQ(part.ropes.size(), 1u);
  EXPECT_EQ(part.weights[part.ropes[0].factors].role, WeightRole::rope_factors);
  // An embedding alone rotates nothing.
  EXPECT_EQ(part_of(whole, {.begin = 0, .end = 1}).ropes[0].factors, kNoWeight);
}

TEST(Share, RanksDivideHeadsFeedForwardAndVocabulary) {
  const Program whole = tiny_program(kShape, DType::Q8_0, DType::F16);
  EXPECT_EQ(why_not_ranks(whole, 2), "");
  const StepShape step{.rows = 4, .outputs = 2, .context = 100, .state_reads = 300};
  double flops = 0, attention = 0;
  std::uint32_t vocab = 0, inner = 0;
  for (std::uint32_t rank = 0; rank < 2; ++rank) {
    const Program part = part_of(whole, {.begin = 0, .end = 5, .rank = rank, .ranks = 2});
    EXPECT_NO_THROW(check(part));
    EXPECT_EQ(part.states[0].n_kv_heads, 2u);
    const OpCost cost = step_cost(part, step);
    flops += cost.flops, attention += cost.attention_flops;
    vocab += part.vocab_size;
    for (const auto& b : part.buffers) inner += b.name == "inner" ? b.width : 0;
  }
  EXPECT_EQ(vocab, 100u);
  EXPECT_EQ(inner, 768u);  // 3 units of 256: 512 and 256
  EXPECT_DOUBLE_EQ(flops, step_cost(whole, step).flops);
  EXPECT_DOUBLE_EQ(attention, step_cost(whole, step).attention_flops);
}

// What one of two ranks holds of Qwen2.5 32B: 20 of 40 heads, 4 of 8 KV heads, half the rest.
TEST(Share, StagesAreJoinedByLinks) {
  const Program whole = tiny_program(kShape, DType::Q8_0, DType::F16);
  const Share shares[] = {{0, 2}, {2, 3}, {3, 5}};
  const std::vector<Program> stages = part_programs(whole, shares);
  ASSERT_EQ(stages.size(), 3u);
  for (std::size_t i = 0; i < 3; ++i) {
    const Program& p = stages[i];
    EXPECT_NO_THROW(check(p));
    ASSERT_EQ(p.links.size(), 2u);
    EXPECT_EQ(p.links[0].width, kShape.width);
    EXPECT_EQ(reads_tokens(p), i != 1);
    EXPECT_EQ(samples(p), i == 2);
    const auto first = link_of(p.ops.front()), last = link_of(p.ops.back());
    ASSERT_EQ(first.has_value(), i > 0);
    ASSERT_EQ(last.has_value(), i < 2);
    if (first) {
      EXPECT_TRUE(!first->sends && first->link == static_cast<LinkId>(i - 1));
    }
    if (last) {
      EXPECT_TRUE(last->sends && last->link == static_cast<LinkId>(i));
    }
  }
}

TEST(Share, HalfOfA32B) {
  const Program whole = tiny_program(
      {.width = 5120, .n_heads = 40, .n_kv_heads = 8, .head_dim = 128, .n_ff = 27648, .vocab = 152064},
      DType::Q4_K, DType::F16);
  const Program part = part_of(whole, {.begin = 0, .end = 3, .rank = 1, .ranks = 2});
  const Program half = tiny_program(
      {.width = 5120, .n_heads = 20, .n_kv_heads = 4, .head_dim = 128, .n_ff = 13824, .vocab = 76032},
      DType::Q4_K, DType::F16);
  ASSERT_EQ(part.weights.size(), half.weights.size());
  for (std::size_t w = 0; w < half.weights.size(); ++w) {
    EXPECT_EQ(part.weights[w].name, half.weights[w].name);
    EXPECT_EQ(part.weights[w].rows, half.weights[w].rows) << half.weights[w].name;
    EXPECT_EQ(part.weights[w].cols, half.weights[w].cols) << half.weights[w].name;
  }
  for (std::size_t b = 0; b < half.buffers.size(); ++b)
    EXPECT_EQ(part.buffers[b].width, half.buffers[b].width);
}

TEST(Share, MoreRanksThanKvHeadsRepeatThem) {
  const Program whole = tiny_program(kShape, DType::F16, DType::F16);
  Shape few = kShape;
  few.n_kv_heads = 2, few.n_ff = 1024;
  const Program p = tiny_program(few, DType::F16, DType::F16);
  EXPECT_EQ(why_not_ranks(p, 4), "");
  EXPECT_EQ(part_of(p, {.begin = 0, .end = 5, .rank = 3, .ranks = 4}).states[0].n_kv_heads, 1u);
}

// Every element of a weight is some rank's, and of matrices only one's.
TEST(Share, RanksPiecesCoverTheWeights) {
  const Program whole = tiny_program(kShape, DType::Q8_0, DType::F16);
  for (const std::uint32_t ranks : {2, 4}) {
    std::map<std::string, std::uint64_t> elements;
    for (std::uint32_t rank = 0; rank < ranks; ++rank)
      for (const WeightSpec& w : part_of(whole, {0, 5, rank, ranks}).weights) {
        elements[w.name] += w.elements();
        const bool first = rank == 0;
        EXPECT_EQ(w.first_row + w.first_col == 0,
                  first || w.role == WeightRole::norm || w.name.starts_with("out_bias") ||
                      w.role == WeightRole::rope_factors || w.name.starts_with("down_bias"))
            << w.name;
      }
    for (const WeightSpec& w : whole.weights)
      if (!w.is_vector()) EXPECT_EQ(elements.at(w.name), w.elements()) << w.name;
  }
}

TEST(Share, RanksTradeSumsAndLogits) {
  const Program whole = tiny_program(kShape, DType::Q8_0, DType::F16);
  const Share shares[] = {{0, 2, 0, 2}, {0, 2, 1, 2}, {2, 5, 0, 2}, {2, 5, 1, 2}};
  const std::vector<Program> parts = part_programs(whole, shares);
  ASSERT_EQ(parts.size(), 4u);
  ASSERT_EQ(parts[0].links.size(), 4u);   // sums, rows; sums, logits
  EXPECT_EQ(parts[0].links[0].uses, 3u);  // the embedding, and two of a layer
  EXPECT_EQ(parts[0].links[2].uses, 4u);
  std::size_t sends = 0, receives = 0, gathers = 0;
  for (const Program& p : parts) {
    EXPECT_NO_THROW(check(p));
    EXPECT_EQ(p.vocab_size, whole.vocab_size);
    for (const Op& op : p.ops) {
      if (const auto l = link_of(op)) ++(l->sends ? sends : receives);
      gathers += std::holds_alternative<GatherOp>(op.body);
    }
  }
  EXPECT_EQ(sends, 1u);
  EXPECT_EQ(receives, 2u);
  EXPECT_EQ(gathers, 2u);
  EXPECT_EQ(logits_of(parts[2]), kNoBuffer);
  EXPECT_FALSE(samples(parts[2]));
  ASSERT_NE(logits_of(parts[3]), kNoBuffer);
  EXPECT_EQ(parts[3].buffers[logits_of(parts[3])].width, whole.vocab_size);
  EXPECT_THROW(part_programs(whole, std::vector<Share>{{0, 5, 0, 3}, {0, 5, 1, 3}, {0, 5, 2, 3}}), Error);
}

TEST(Share, SaysWhyItDoesNotDivide) {
  const Program whole = tiny_program(kShape, DType::Q8_0, DType::F16);
  EXPECT_EQ(why_not_ranks(whole, 3), "8 heads don't divide by 3");
  Shape shape = kShape;
  shape.n_heads = 9, shape.n_kv_heads = 9, shape.head_dim = 64, shape.width = 576;
  EXPECT_EQ(why_not_ranks(tiny_program(shape, DType::Q8_0, DType::F16), 3), "");
  shape.n_heads = 8, shape.n_kv_heads = 8, shape.width = 512;
  // 8 ranks of a head of 64 columns: no super-block of 256.
  EXPECT_EQ(why_not_ranks(tiny_program(shape, DType::Q4_K, DType::F16), 2), "");
  EXPECT_NE(why_not_ranks(tiny_program(shape, DType::Q4_K, DType::F16), 8), "");
}

// Stages have all of their layers' experts; ranks are refused by name.
TEST(Share, ExpertsBelongToLayers) {
  const Shape shape = {.layers = 4, .routing = {.n_experts = 4, .n_used = 2}, .expert_bias = true};
  const Program whole = tiny_program(shape, DType::Q8_0, DType::F16);
  EXPECT_NE(why_not_ranks(whole, 2).find("experts"), std::string::npos);
  const std::vector<Share> stages = {{0, 3}, {3, 6}};
  const std::vector<Program> parts = part_programs(whole, stages);
  for (const Program& part : parts)
    EXPECT_EQ(std::count_if(part.weights.begin(), part.weights.end(),
                            [](const WeightSpec& w) { return w.role == WeightRole::experts; }),
              2 * 6);
}

}  // namespace
}  // namespace steelyard
