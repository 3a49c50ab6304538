// A model in parts: the same answers as on one device, whatever is in flight; and what happens when a part
// fails.
#include <gtest/gtest.h>

#include <cmath>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/error.h"
#include "decoder/testing.h"
#include "device/device.h"
#include "device/link.h"
#include "device/step.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "model/forward.h"
#include "plan/plan.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {
namespace {

using namespace testing;

// Micro models have two layers at least; three parts where there are as many.
std::vector<float> logits_in_parts(const char* file, std::uint32_t parts, Mode mode, std::size_t rows,
                                   std::uint32_t ranks = 1) {
  TestModel model(golden(file), {.mode = mode, .threads = 1, .parts = parts, .ranks = ranks});
  const auto tokens = read_ids(golden("llama.tokens.txt"));
  std::vector<std::int32_t> few(tokens.begin(), tokens.begin() + 40);
  for (auto& t : few) t %= static_cast<std::int32_t>(model.config.vocab_size);
  return model.logits(few, rows);
}

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  EXPECT_FALSE(a.empty());
  double most = 0;
  for (std::size_t i = 0; i < std::min(a.size(), b.size()); ++i)
    most = std::max(most, std::abs(double{a[i]} - b[i]));
  return most;
}

class InParts : public ::testing::TestWithParam<const char*> {};

// On the CPU the parts compute what the whole does, to the bit; on a GPU beside a CPU they are as near as
// modes allow.
TEST_P(InParts, AnswersAsOnOneDevice) {
  for (const Mode mode : {Mode::exact, Mode::invariant, Mode::fast})
    for (const std::size_t rows : {40, 7, 1}) {
      const auto whole = logits_in_parts(GetParam(), 1, mode, rows);
      const auto parts = logits_in_parts(GetParam(), 2, mode, rows);
      const double tolerance = !tests_a_gpu() ? 0 : mode == Mode::exact ? 1e-3 : 0.5;
      EXPECT_LE(largest_difference(whole, parts), tolerance)
          << rows << " rows, mode " << static_cast<int>(mode);
    }
}

bool divides(const char* file, std::uint32_t ranks) {
  const GgufFile open = GgufFile::open(golden(file));
  return why_not_ranks(write_forward(open, read_config(open), {}).program, ranks).empty();
}

// Sums over ranks add in another order than one device does.
TEST_P(InParts, RanksAnswerAsOneDevice) {
  if (!divides(GetParam(), 2)) {
    // Half of its heads are 48 columns: no whole blocks of 32.
    EXPECT_STREQ(GetParam(), "llama.gguf");
    EXPECT_THROW(logits_in_parts(GetParam(), 1, Mode::exact, 40, 2), Error);
    return;
  }
  for (const Mode mode : {Mode::exact, Mode::invariant, Mode::fast})
    for (const std::size_t rows : {40, 7, 1}) {
      const auto whole = logits_in_parts(GetParam(), 1, mode, rows);
      const double tolerance = mode == Mode::exact ? (tests_a_gpu() ? 1e-3 : 1e-5) : 0.5;
      for (const auto& [stages, ranks] : {std::pair(1u, 2u), std::pair(2u, 2u)})
        EXPECT_LE(largest_difference(whole, logits_in_parts(GetParam(), stages, mode, rows, ranks)),
                  tolerance)
            << stages << " stages of " << ranks << " ranks, " << rows << " rows, mode "
            << static_cast<int>(mode);
    }
}
INSTANTIATE_TEST_SUITE_P(Architectures, InParts,
                         ::testing::Values("llama.gguf", "qwen2.gguf", "qwen3.gguf", "phi3.gguf",
                                           "gemma2.gguf", "gemma3.gguf"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name.substr(0, name.find('.'));
                         });

// Tokens of two sequences, `deep` steps in flight; each step's samples are the next one's input, elsewhere.
std::vector<std::int32_t> generate(std::uint32_t parts, std::uint32_t deep, const SamplingParams& sampling,
                                   std::uint32_t ranks = 1, Mode mode = Mode::fast) {
  TestModel model(golden("gemma3.gguf"), {.mode = mode,
                                          .limits = {.rows = 32, .outputs = 8, .slots = 2, .context = 128},
                                          .threads = 1,
                                          .parts = parts,
                                          .ranks = ranks});
  model.sampling = sampling;
  std::vector<std::int32_t> tokens;
  const auto take = [&] {
    const auto& got = model.decoder->wait().tokens;
    tokens.insert(tokens.end(), got.begin(), got.end());
  };
  model.submit({{0, {1, 2, 3}, Want::none}, {1, {7}, Want::none}});
  model.decoder->wait();
  model.step({{0, {4}, Want::sample}, {1, {8}, Want::sample}});
  std::uint32_t in_flight = 0;
  for (int i = 0; i < 30; ++i) {
    // Now both, now one of them: then two steps know nothing of each other, and may run at once.
    if (i % 3 == 0)
      model.submit({{0, {kLastSample}, Want::sample}, {1, {kLastSample}, Want::sample}});
    else
      model.submit({{static_cast<std::uint32_t>(i % 3 - 1), {kLastSample}, Want::sample}});
    if (++in_flight == deep) take(), --in_flight;
  }
  for (; in_flight > 0; --in_flight) take();
  return tokens;
}

TEST(Parts, TokensPassFromTheLastPartToTheFirst) {
  if (tests_a_gpu()) GTEST_SKIP() << "fast mode's bits differ between a GPU and the CPU";
  for (const SamplingParams& sampling :
       {SamplingParams{.temperature = 0},
        SamplingParams{.temperature = 1, .repeat_penalty = 1.3f, .seed = 5}}) {
    const auto want = generate(1, 1, sampling);
    EXPECT_EQ(generate(2, 1, sampling), want);
    EXPECT_EQ(generate(2, 3, sampling), want);
  }
}

// A head a rank, and its one KV head on every one of them. The micro models are too narrow for four.
TEST(Parts, FourRanksOfARealModel) {
  const auto path = real_model("gemma-3-270m-q4_k_m.gguf");
  if (path.empty()) GTEST_SKIP() << "test.sh fetches the real models";
  if (tests_a_gpu()) GTEST_SKIP() << "a rank needs a device of its own";
  const auto logits = [&](std::uint32_t ranks) {
    TestModel model(path, {.mode = Mode::exact,
                           .limits = {.rows = 4, .outputs = 4, .slots = 1, .context = 64},
                           .threads = 1,
                           .ranks = ranks});
    return model.logits({2, 105, 2364, 107}, 4);
  };
  // Its rows between layers reach thousands: so much is an order of additions worth.
  EXPECT_LE(largest_difference(logits(1), logits(4)), 1e-3);
}

// Two ranks as they are used: prompts, and steps of a row, for which a GPU may have another way of summing.
TEST(Parts, TwoRanksOfARealModel) {
  const auto path = real_model("gemma-3-270m-q4_k_m.gguf");
  if (path.empty()) GTEST_SKIP() << "test.sh fetches the real models";
  const auto logits = [&](std::uint32_t ranks, std::size_t rows) {
    TestModel model(path, {.limits = {.rows = 6, .outputs = 6, .slots = 1, .context = 64}, .ranks = ranks});
    return model.logits({2, 105, 2364, 107, 9259, 106}, rows);
  };
  for (const std::size_t rows : {6, 3, 1}) {
    const auto whole = logits(1, rows), parts = logits(2, rows);
    ASSERT_EQ(whole.size(), parts.size());
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < whole.size(); ++i) {
      error += (whole[i] - parts[i]) * double{whole[i] - parts[i]};
      norm += double{whole[i]} * whole[i];
    }
    EXPECT_LT(std::sqrt(error / norm), 0.02) << rows << " rows";
  }
}

// Every rank has the same rows after every sum, to the bit.
TEST(Parts, RanksHoldTheSameBits) {
  if (tests_a_gpu()) GTEST_SKIP() << "kernels of a GPU and of the CPU differ in their last bits";
  TestModel model(golden("gemma2.gguf"), {.threads = 1, .ranks = 2});
  std::vector<float> seen[2];
  for (std::size_t rank = 0; rank < 2; ++rank)
    model.decoder->executable(rank).set_probe(
        [&, rank](std::size_t op, BufferId, std::uint32_t, std::span<const float> values) {
          if (std::holds_alternative<SumOp>(model.decoder->program(rank).ops[op].body))
            seen[rank].insert(seen[rank].end(), values.begin(), values.end());
        });
  model.logits({1, 2, 3, 4, 5}, 5);
  EXPECT_FALSE(seen[0].empty());
  EXPECT_EQ(seen[0], seen[1]);
}

void check_plan(const char* file, std::uint32_t parts, std::uint32_t ranks) {
  TestModel model(golden(file), {.parts = parts, .ranks = ranks});
  const MemoryPlan& plan = model.decoder->plan();
  const MemoryActual actual = model.decoder->measure();
  bool links = false;
  for (std::size_t d = 0; d < plan.devices.size(); ++d)
    for (std::size_t i = 0; i < plan.devices[d].lines.size(); ++i) {
      const PlanLine& line = plan.devices[d].lines[i];
      links |= line.purpose == Purpose::links && line.bytes > 0;
      if (line.purpose == Purpose::process || line.purpose == Purpose::executables) continue;
      EXPECT_GE(actual.lines[d][i], line.bytes) << purpose_name(line.purpose);
      EXPECT_LE(actual.lines[d][i], line.bytes + (tests_a_gpu() ? 2u << 20 : 0))
          << purpose_name(line.purpose);
    }
  EXPECT_TRUE(links);
}

TEST(Parts, PlanAndRealityAgree) {
  check_plan("llama.gguf", 2, 1);
  check_plan("gemma2.gguf", 1, 2);
  check_plan("gemma2.gguf", 2, 2);
}

TEST(Parts, StagesHoldEachWeightOnce) {
  TestModel model(golden("llama.gguf"), {.parts = 2});
  std::size_t weights = 0;
  for (std::size_t p = 0; p < model.decoder->n_parts(); ++p)
    weights += model.decoder->program(p).weights.size();
  // The rope factors are there twice, every other weight once.
  EXPECT_EQ(weights, TestModel(golden("llama.gguf"), {}).decoder->program().weights.size() + 1);
}

// Greedy tokens are the same: exact sums differ by less than any two logits here do.
TEST(Parts, TokensPassBetweenRanks) {
  const SamplingParams greedy{.temperature = 0};
  const auto want = generate(1, 1, greedy, 1, Mode::exact);
  EXPECT_EQ(generate(1, 1, greedy, 2, Mode::exact), want);
  EXPECT_EQ(generate(1, 2, greedy, 2, Mode::exact), want);
  EXPECT_EQ(generate(2, 3, greedy, 2, Mode::exact), want);
}

// A block that the first part refuses runs nowhere, and the model goes on.
TEST(Parts, ARefusedBatchHurtsNobody) {
  TestModel model(golden("llama.gguf"),
                  {.limits = {.rows = 8, .outputs = 8, .slots = 1, .context = 64}, .parts = 2});
  EXPECT_THROW(model.step({{0, {1, 1 << 30}, Want::logits}}), Error);
  EXPECT_FALSE(model.decoder->failed());
}

// Nobody waits for ever for a part that gave up: not on the way down, and not in the middle of a step.
TEST(Parts, UnloadingEndsTheWait) {
  for (int i = 0; i < 20; ++i) {
    TestModel model(
        golden("gemma2.gguf"),
        {.limits = {.rows = 8, .outputs = 8, .slots = 1, .context = 64}, .parts = 2, .ranks = i % 2 + 1u});
    model.submit({{0, {1, 2, 3}, Want::sample}});
    model.submit({{0, {kLastSample}, Want::sample}});
    model.decoder.reset();
  }
}

TEST(Links, WhoWaitsGoesOnWhenTheyAreAbandoned) {
  const auto cpu = make_cpu_device({.threads = 1});
  Links links(*cpu, {{"a", 4}}, {.rows = 2, .slots = 1, .in_flight = 3});
  const LinkBox& box = links.boxes()[0];
  EXPECT_EQ(box.of_step(4), box.rows + 8);
  box.sent->store(1);
  EXPECT_TRUE(wait_for(*box.sent, 1));
  EXPECT_EQ(box.counts(), 1u);
  links.abandon();
  EXPECT_FALSE(wait_for(*box.sent, 1 << 20));
  EXPECT_FALSE(wait_for(*links.tokens().sampled, 1));
}

// What two ranks write of one sum lies side by side, and that of the next sum elsewhere.
TEST(Links, RanksHaveTheirOwnPlaces) {
  const auto cpu = make_cpu_device({.threads = 1});
  const std::vector<LinkSpec> specs = {{"sums", 4, LinkSpec::Kind::sum, 2, 3},
                                       {"logits", 10, LinkSpec::Kind::logits, 2}};
  Links links(*cpu, specs, {.rows = 2, .outputs = 3, .slots = 1, .in_flight = 2});
  const LinkBox &sums = links.boxes()[0], &logits = links.boxes()[1];
  EXPECT_EQ(sums.number_of(5, 2), 17u);
  EXPECT_EQ(sums.of_writer(17, 0), sums.rows + 16);
  EXPECT_EQ(sums.of_writer(18, 1), sums.rows + 8);
  EXPECT_EQ(sums.counts(), 4u);
  EXPECT_EQ(&sums.sent_by(1, 1), sums.sent + 3);
  EXPECT_EQ(logits.of_step(3), logits.rows + 30);
  EXPECT_EQ(logits.counts(), 6u);
  EXPECT_EQ(sums.words, nullptr);
  links.offer_words();
  EXPECT_NE(sums.words, nullptr);
  EXPECT_EQ(logits.words, nullptr);
  links.abandon();
  EXPECT_FALSE(wait_for(sums.sent_by(1, 1), 1));
}

}  // namespace
}  // namespace steelyard