#include "plan/plan.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/units.h"
#include "plan/testing.h"

namespace steelyard {
namespace {

using testing::HandGpu;
using testing::HandTarget;

struct Fixture {
  Fixture() {
    program.n_embd = 256, program.vocab_size = 10;
    program.weights = {{"token_embd", WeightRole::embedding, -1, DType::F16, 10, 256},
                       {"a", WeightRole::qkv, 0, DType::F16, 4, 256},
                       {"b", WeightRole::down, 0, DType::Q2_K, 2, 256}};
    program.groups = {{"full", 0}, {"window 64", 64}};
    program.states = {
        {.layer = 0, .group = 0, .type = DType::F16, .n_kv_heads = 2, .head_dim_k = 4, .head_dim_v = 4},
        {.layer = 1, .group = 1, .type = DType::F16, .n_kv_heads = 2, .head_dim_k = 4, .head_dim_v = 4}};
    config.layers.resize(2);
  }
  PlanInput input(std::uint32_t context = 1000, std::uint32_t slots = 2) const {
    return {.config = &config,
            .program = &program,
            .target = &target,
            .limits = {.rows = 64, .outputs = 4, .slots = slots, .context = context},
            .threads = 3,
            .process_bytes = 77};
  }
  ModelConfig config;
  Program program;
  HandTarget target;
};

TEST(Plan, AddsUpWhatTheTargetDeclares) {
  const Fixture f;
  const MemoryPlan plan = plan_memory(f.input());
  const DevicePlan& d = plan.devices.at(0);
  EXPECT_EQ(d.bytes(Purpose::weights), 10u * 256 * 2 + 4 * 256 + 8 + 2 * 256 + 8);
  // 1000 tokens are 32 pages and one ahead; a window of 64 and a step of 64 tokens are 2 + 2 pages and two
  // partial ones.
  ASSERT_EQ(plan.groups.size(), 2u);
  EXPECT_EQ(plan.groups[0].pages, 33u * 2);
  EXPECT_EQ(plan.groups[1].pages, 6u * 2);
  EXPECT_EQ(d.bytes(Purpose::state), (33u + 6) * 2 * 32 * 2 * 8 * 2);
  EXPECT_EQ(d.bytes(Purpose::workspace), 64u * 100 + 30);
  EXPECT_EQ(d.bytes(Purpose::process), 77u);
  EXPECT_EQ(d.total(),
            d.bytes(Purpose::weights) + d.bytes(Purpose::state) + d.bytes(Purpose::workspace) + 77);
  EXPECT_THAT(plan.slow_types, ::testing::ElementsAre("Q2_K: 1 tensor"));
}

TEST(Plan, ADeviceOfItsOwnHasTheDriversShareAndAHostSide) {
  const Fixture f;
  const HandGpu gpu;
  PlanInput in = f.input();
  in.target = &gpu;
  in.device = "CUDA0";
  in.context_bytes = 5000;
  const MemoryPlan plan = plan_memory(in);
  ASSERT_EQ(plan.devices.size(), 2u);
  const DevicePlan &d = plan.devices[0], &host = plan.devices[1];
  EXPECT_EQ(d.bytes(Purpose::context), 5000u);
  EXPECT_EQ(d.bytes(Purpose::executables), 64u * 7);
  EXPECT_EQ(d.bytes(Purpose::reserve), 900u);
  EXPECT_EQ(d.bytes(Purpose::process), 0u);
  EXPECT_EQ(host.device, "CPU");
  EXPECT_EQ(host.bytes(Purpose::staging), 4u * 5);
  EXPECT_EQ(host.bytes(Purpose::process), 77u);
  EXPECT_EQ(why_not(in, d.total()), "");
  EXPECT_THAT(why_not(in, d.total() - 1), ::testing::HasSubstr("on CUDA0"));
  EXPECT_THAT(to_text(plan), ::testing::HasSubstr("2 repeating layers + output layer: 3/3 on CUDA0"));
  in.paper = true;
  EXPECT_EQ(plan_memory(in).devices[0].bytes(Purpose::context), 4000u);
}

TEST(Plan, AGpuIsPlannedForWithoutOne) {
  const Fixture f;
  PlanInput in = f.input();
  in.target = &cuda_target();
  in.paper = true;
  const DevicePlan device = plan_memory(in).devices[0];
  // Everything lies on the GPU, the embeddings too.
  EXPECT_GE(device.bytes(Purpose::weights), 10u * 256 * 2 + 4 * 256 * 2 + 2 * 84);
  EXPECT_GT(device.bytes(Purpose::context), 0u);
}

TEST(Plan, NamesTheSmallestChangesThatFit) {
  const Fixture f;
  const std::uint64_t total = plan_memory(f.input()).devices[0].total();
  EXPECT_EQ(why_not(f.input(), total), "");
  const std::string why = why_not(f.input(), total - 1);
  EXPECT_THAT(why, ::testing::HasSubstr("--context 768"));
  EXPECT_THAT(why, ::testing::HasSubstr("--parallel 1"));
  EXPECT_THAT(why, ::testing::HasSubstr("--kv-type q8_0"));
  EXPECT_THAT(why, ::testing::Not(::testing::HasSubstr("together")));
  EXPECT_THAT(why_not(f.input(), 100), ::testing::HasSubstr("a smaller model"));
}

// Every room from nothing to enough: what is advised fits, and what is said to be too small is.
TEST(Plan, AdviceNeverContradictsItself) {
  const Fixture f;
  PlanInput in = f.input();
  in.process_bytes = 3200;  // the allowance for it mustn't lead to a contradiction either
  PlanInput least = f.input(256, 1);
  least.process_bytes = 3200;
  Program small = f.program;
  for (auto& state : small.states) state.type = DType::Q8_0;
  least.program = &small;
  const std::uint64_t smallest = plan_memory(least).devices[0].total();
  const std::uint64_t total = plan_memory(in).devices[0].total();
  int together = 0;
  for (std::uint64_t room = smallest - 2000; room < total; room += 500) {
    const Verdict v = judge(in, room);
    EXPECT_FALSE(v.fits());
    EXPECT_EQ(v.changes.empty(), room < smallest) << room;
    EXPECT_EQ(v.why_not.find("smaller model") != std::string::npos, v.changes.empty()) << v.why_not;
    together += v.changes.find("together") != std::string::npos;
  }
  EXPECT_GT(together, 0);
  EXPECT_THAT(judge(in, smallest).changes, ::testing::HasSubstr("--kv-type q8_0 --parallel 1 together"));
}

TEST(Plan, AVerdictSaysWhatIsLeftAndTheLongestContext) {
  Fixture f;
  f.config.context_train = 8192;
  const std::uint64_t total = plan_memory(f.input()).devices[0].total();
  Verdict v = judge(f.input(), total);
  EXPECT_EQ(v.longest_context, 1024u);  // the same pages
  EXPECT_EQ(to_text(v), "fits: 0 B left; longest context that fits: 1024");
  const std::uint64_t more = plan_memory(f.input(2048)).devices[0].total();
  v = judge(f.input(), more);
  EXPECT_EQ(v.longest_context, 2048u);
  EXPECT_GT(plan_memory(f.input(2048 + 256)).devices[0].total(), more);
  v = judge(f.input(), std::uint64_t{1} << 40);
  EXPECT_EQ(v.longest_context, 8192u);
  EXPECT_THAT(to_text(v),
              ::testing::HasSubstr("longest context that fits: 8192, all that it was trained for"));
  EXPECT_THAT(to_text(judge(f.input(), total - 1)), ::testing::StartsWith("doesn't fit: the model needs "));
}

TEST(Plan, OtherModelsAndTheProcessCountAsTaken) {
  const Fixture f;
  PlanInput in = f.input();
  const std::uint64_t alone = plan_memory(in).devices[0].total();
  in.other_models_bytes = 5000;
  const DevicePlan d = plan_memory(in).devices[0];
  EXPECT_EQ(d.bytes(Purpose::other_models), 5000u);
  EXPECT_EQ(d.total(), alone + 5000);
  EXPECT_EQ(d.model_bytes(), alone - 77);
  // A limit is for everything together; without one there is what is free and what is taken.
  EXPECT_EQ(room_for(1000, 5077, 0), 6077u);
  EXPECT_EQ(room_for(1000, 5077, 4000), 4000u);
  EXPECT_EQ(room_for(1000, 5077, 9000), 6077u);
  EXPECT_EQ(room_for(UINT64_MAX, 5077, 0), UINT64_MAX);
}

TEST(Plan, TableAndVerdictNameTheSameFigure) {
  const Fixture f;
  PlanInput in = f.input();
  in.process_bytes = std::uint64_t{850} << 20;
  const MemoryPlan plan = plan_memory(in);
  const std::string total = size_text(plan.devices[0].total(), Rounding::up);
  EXPECT_THAT(to_text(plan), ::testing::ContainsRegex("total +" + total));
  EXPECT_THAT(judge(in, 1000).why_not, ::testing::HasSubstr("needs " + total + " of memory"));
}

TEST(Plan, TextShowsPlanBesideReality) {
  const Fixture f;
  const MemoryPlan plan = plan_memory(f.input());
  std::vector<std::vector<std::uint64_t>> actual(1);
  for (const auto& line : plan.devices[0].lines) actual[0].push_back(line.bytes);
  const std::string text = to_text(plan, &actual);
  EXPECT_THAT(text, ::testing::HasSubstr("actual"));
  EXPECT_THAT(text, ::testing::HasSubstr("2 repeating layers + output layer"));
  EXPECT_THAT(text, ::testing::HasSubstr("Q2_K: 1 tensor"));
}

}  // namespace
}  // namespace steelyard
