#include "program/program.h"

#include <gtest/gtest.h>

#include "base/error.h"
#include "program/cost.h"

namespace steelyard {
namespace {

// embed → attention over one state → head; 8 wide, 16 tokens in the vocabulary.
Program small() {
  Program p;
  p.n_embd = 8;
  p.vocab_size = 16;
  p.buffers = {{"hidden", 8}, {"q", 8}, {"k", 4}, {"v", 4}, {"logits", 16, RowSet::outputs}};
  p.weights = {{"table", WeightRole::head, -1, DType::F16, 16, 8},
               {"q", WeightRole::qkv, 0, DType::F32, 8, 8},
               {"k", WeightRole::qkv, 0, DType::F32, 4, 8},
               {"v", WeightRole::qkv, 0, DType::F32, 4, 8},
               {"norm", WeightRole::norm, 0, DType::F32, 1, 8}};
  p.groups = {{"full", 0}};
  p.states = {
      {.layer = 0, .group = 0, .type = DType::F16, .n_kv_heads = 1, .head_dim_k = 4, .head_dim_v = 4}};
  p.ropes = {{.pairs = RopeSpec::Pairs::halves, .n_rot = 4, .base = 10000.0f}};
  p.ops = {
      {-1, EmbedOp{0, 1.0f, 0}},
      {0, QkvOp{.in = 0, .norm = {4, 1e-5f}, .q = 1, .k = 2, .v = 3, .q_out = 1, .k_out = 2, .v_out = 3}},
      {0, RopeAppendOp{.q = 1, .k = 2, .v = 3, .n_heads = 2, .rope = 0, .state = 0}},
      {0, AttentionOp{.q = 1, .out = 0, .n_heads = 2, .state = 0, .scale = 0.5f}},
      {-1, HeadOp{.in = 0, .weight = 0, .logits = 4}},
      {-1, SampleOp{4}}};
  return p;
}

TEST(Program, ChecksThatOpsFitTogether) {
  EXPECT_NO_THROW(check(small()));
  Program p = small();
  std::get<QkvOp>(p.ops[1].body).k = 1;
  EXPECT_THROW(check(p), Error);
  p = small();
  std::get<EmbedOp>(p.ops[0].body).out = 9;
  EXPECT_THROW(check(p), Error);
  p = small();
  p.buffers[4].rows = RowSet::all;
  EXPECT_THROW(check(p), Error);
  p = small();
  p.ropes[0].n_rot = 8;
  EXPECT_THROW(check(p), Error);
  p = small();
  std::get<RopeAppendOp>(p.ops[2].body).state = -1;
  EXPECT_THROW(check(p), Error);
  p = small();
  std::get<AttentionOp>(p.ops[3].body).state = 1;
  EXPECT_THROW(check(p), Error);
  p = small();
  std::get<HeadOp>(p.ops[4].body).weight = kNoWeight;
  EXPECT_THROW(check(p), Error);
  p = small();
  p.weights[1].name = "table";
  EXPECT_THROW(check(p), Error);
}

TEST(Cost, CountsBytesOnceAndProductsPerRow) {
  const Program p = small();
  const StepShape shape{.rows = 3, .outputs = 1, .context = 10, .state_reads = 10};
  EXPECT_EQ(op_cost(p, p.ops[0], shape).weight_bytes, 3 * 16);  // three rows of 8 halves
  const OpCost qkv = op_cost(p, p.ops[1], shape);
  EXPECT_EQ(qkv.weight_bytes, (64 + 32 + 32 + 8) * 4);
  EXPECT_EQ(qkv.flops, 2.0 * 3 * (64 + 32 + 32));
  const OpCost attention = op_cost(p, p.ops[3], shape);
  EXPECT_EQ(attention.state_bytes, 10 * 16);                   // ten tokens of 8 halves
  EXPECT_EQ(attention.attention_flops, 2.0 * 3 * 2 * 10 * 8);  // rows, heads, keys, q·k and p·v
  EXPECT_EQ(op_cost(p, p.ops[2], shape).state_bytes, 3 * 16);  // three tokens of 8 halves are written
  EXPECT_EQ(op_cost(p, p.ops[4], shape).flops, 2.0 * 16 * 8);
  EXPECT_EQ(op_cost(p, p.ops[4], {.rows = 3, .outputs = 0}).weight_bytes, 0);  // no output, no head
  EXPECT_EQ(step_cost(p, shape).flops, qkv.flops + 2.0 * 16 * 8);
}

// A layer of four experts, of which two are used, on 32 values.
Program experts() {
  Program p;
  p.n_embd = 32;
  p.vocab_size = 16;
  p.buffers = {{"hidden", 32}};
  p.weights = {{"router", WeightRole::router, 0, DType::F32, 4, 32},
               {.name = "gate",
                .role = WeightRole::experts,
                .layer = 0,
                .type = DType::F16,
                .rows = 64,
                .cols = 32,
                .experts = 4},
               {.name = "up",
                .role = WeightRole::experts,
                .layer = 0,
                .type = DType::F16,
                .rows = 64,
                .cols = 32,
                .experts = 4},
               {.name = "down",
                .role = WeightRole::experts,
                .layer = 0,
                .type = DType::F16,
                .rows = 128,
                .cols = 16,
                .experts = 4},
               {.name = "bias",
                .role = WeightRole::experts,
                .layer = 0,
                .type = DType::F32,
                .rows = 1,
                .cols = 128,
                .experts = 4}};
  p.ops = {{0, ExpertsOp{.in = 0,
                         .routing = {.n_experts = 4, .n_used = 2},
                         .router = 0,
                         .gate = 1,
                         .up = 2,
                         .down = 3,
                         .down_bias = 4,
                         .activation = Activation::silu,
                         .residual = 0,
                         .out = 0}}};
  return p;
}

TEST(Program, ChecksThatExpertsFitTogether) {
  EXPECT_NO_THROW(check(experts()));
  const auto refused = [](auto change) {
    Program p = experts();
    change(p, std::get<ExpertsOp>(p.ops[0].body));
    EXPECT_THROW(check(p), Error);
  };
  refused([](Program&, ExpertsOp& o) { o.routing.n_used = 5; });
  refused([](Program&, ExpertsOp& o) { o.routing.n_groups = 3; });
  refused([](Program&, ExpertsOp& o) { o.routing.n_groups = 4, o.routing.n_groups_used = 1; });
  refused([](Program&, ExpertsOp& o) { o.up = 3; });
  refused([](Program&, ExpertsOp& o) { o.gate_bias = 4; });
  refused([](Program& p, ExpertsOp&) { p.weights[1].rows = p.weights[2].rows = 32, p.weights[3].cols = 8; });
  refused([](Program& p, ExpertsOp&) { p.weights[3].experts = 2; });
  refused([](Program& p, ExpertsOp&) { p.ranks = 2; });
}

// One row reads its two of four experts; two rows three on average; all multiply-adds are those of the
// chosen.
TEST(Cost, ExpertsAreReadAsFarAsRowsReachThem) {
  const Program p = experts();
  const double router = 4 * 32 * 4, expert = 2 * (16 * 32 * 2) + 32 * 16 * 2 + 32 * 4;
  const OpCost one = op_cost(p, p.ops[0], {.rows = 1});
  EXPECT_DOUBLE_EQ(one.weight_bytes, router + 2 * expert);
  EXPECT_DOUBLE_EQ(one.flops, 2.0 * (4 * 32 + 2 * 3 * 16 * 32));
  const OpCost two = op_cost(p, p.ops[0], {.rows = 2});
  EXPECT_DOUBLE_EQ(two.weight_bytes, router + 3 * expert);
  EXPECT_DOUBLE_EQ(two.flops, 2 * one.flops);
}

}  // namespace
}  // namespace steelyard
