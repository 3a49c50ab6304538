// A model in parts: the same answers as on one device, whatever is in flight; and what happens when a part
// fails.
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "decoder/testing.h"
#include "device/device.h"
#include "device/link.h"
#include "device/step.h"
#include "plan/plan.h"
#include "program/program.h"

namespace steelyard {
namespace {

using namespace testing;

// Micro models have two layers at least; three parts where there are as many.
std::vector<float> logits_in_parts(const char* file, std::uint32_t parts, Mode mode, std::size_t rows) {
  TestModel model(golden(file), {.mode = mode, .threads = 1, .parts = parts});
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
INSTANTIATE_TEST_SUITE_P(Architectures, InParts,
                         ::testing::Values("llama.gguf", "qwen2.gguf", "qwen3.gguf", "phi3.gguf",
                                           "gemma2.gguf", "gemma3.gguf"),
                         [](const auto& info) {
                           const std::string name = info.param;
                           return name.substr(0, name.find('.'));
                         });

// Tokens of two sequences, `deep` steps in flight; each step's samples are the next one's input, elsewhere.
std::vector<std::int32_t> generate(std::uint32_t parts, std::uint32_t deep, const SamplingParams& sampling) {
  TestModel model(
      golden("gemma3.gguf"),
      {.limits = {.rows = 32, .outputs = 8, .slots = 2, .context = 128}, .threads = 1, .parts = parts});
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

TEST(Parts, PlanAndRealityAgree) {
  TestModel model(golden("llama.gguf"), {.parts = 2});
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
  std::size_t weights = 0;
  for (std::size_t p = 0; p < model.decoder->n_parts(); ++p)
    weights += model.decoder->program(p).weights.size();
  // The rope factors are there twice, every other weight once.
  EXPECT_EQ(weights, TestModel(golden("llama.gguf"), {}).decoder->program().weights.size() + 1);
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
    TestModel model(golden("llama.gguf"),
                    {.limits = {.rows = 8, .outputs = 8, .slots = 1, .context = 64}, .parts = 2});
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
  links.abandon();
  EXPECT_FALSE(wait_for(*box.sent, 1 << 20));
  EXPECT_FALSE(wait_for(*links.tokens().sampled, 1));
}

}  // namespace
}  // namespace steelyard
