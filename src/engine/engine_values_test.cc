// Requests that want numbers beside text: log-probabilities, biases, embeddings.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>
#include <vector>

#include "base/error.h"
#include "decoder/step_runner.h"
#include "device/step.h"
#include "engine/engine.h"
#include "engine/fake_runner.h"
#include "engine/host_draw.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

using ::testing::IsEmpty;

RunnerInfo small_info(std::uint32_t depth = 1) {
  return {.limits = {.rows = 16, .outputs = 4, .slots = 4, .context = 96},
          .page_tokens = 4,
          .vocab_size = 200,
          .groups = {{.window = 0, .pages = 96}},
          .depth = depth};
}

EngineRequest request_of(std::vector<TokenId> prompt, std::int32_t num_predict = -1) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.num_predict = num_predict;
  request.random_seed = false;
  request.sampling.temperature = 0;
  return request;
}

TEST(EngineValues, ChancesComeWithEveryTokenAndDoNotChangeTheText) {
  for (const std::uint32_t depth : {1u, 2u, 3u}) {
    FakeRunner runner(small_info(depth));
    FakeText text;
    Engine engine(runner, text);
    std::vector<TokenChances> told;
    EngineRequest request = request_of({5, 6, 7}, 10);
    request.logprobs = 3;
    request.on_chances = [&](const TokenChances& c) { told.push_back(c); };
    Generation beside = engine.submit(request_of({9, 9, 9, 4}, 30));
    Generation generation = engine.submit(std::move(request));
    generation.wait();
    beside.wait();
    const auto expected = fake_answer({5, 6, 7}, SamplingParams{.temperature = 0}, 10, runner.info());
    const std::vector<TokenId> got(generation.tokens().begin(), generation.tokens().end());
    EXPECT_EQ(got, expected);
    const std::vector<TokenId> other(beside.tokens().begin(), beside.tokens().end());
    EXPECT_EQ(other, fake_answer({9, 9, 9, 4}, SamplingParams{.temperature = 0}, 30, runner.info()));
    ASSERT_EQ(told.size(), expected.size() - (expected.back() == kFakeEnd));
    for (std::size_t i = 0; i < told.size(); ++i) {
      EXPECT_EQ(told[i].drawn.token, expected[i]);
      EXPECT_NEAR(told[i].drawn.logprob, 0, 1e-6);
      ASSERT_EQ(told[i].n_top, 3u);
      EXPECT_EQ(told[i].top[0].token, expected[i]);
      EXPECT_NEAR(told[i].top[1].logprob, -50, 1e-3);
    }
    EXPECT_THAT(runner.faults, IsEmpty());
  }
}

TEST(EngineValues, ABiasForbidsAndForcesTokens) {
  FakeRunner runner(small_info(2));
  FakeText text;
  Engine engine(runner, text);
  EngineRequest forced = request_of({5, 6, 7}, 4);
  forced.biases = {{42, 100}};
  Generation g = engine.submit(std::move(forced));
  g.wait();
  EXPECT_EQ(std::vector<TokenId>(g.tokens().begin(), g.tokens().end()), std::vector<TokenId>(4, 42));
  EngineRequest wrong = request_of({5}, 1);
  wrong.biases = {{200, 1}};
  EXPECT_THROW(engine.submit(std::move(wrong)), Error);
}

// The fake's hidden state is the row's position.
TEST(EngineValues, EmbeddingsAreTheLastStateOrTheMeanWhateverElseRuns) {
  for (const std::uint32_t depth : {1u, 2u}) {
    FakeRunner runner(small_info(depth));
    FakeText text;
    Engine engine(runner, text);
    std::vector<std::pair<Generation, float>> embeddings;
    std::vector<Generation> answers;
    for (std::uint32_t n = 1; n < 60; n += 6) {
      std::vector<TokenId> prompt(n);
      std::iota(prompt.begin(), prompt.end(), 1);
      for (const Pooling pooling : {Pooling::last, Pooling::mean}) {
        EngineRequest request = request_of(prompt);
        request.pooling = pooling;
        const auto last = static_cast<float>(n - 1);
        embeddings.emplace_back(engine.submit(std::move(request)),
                                pooling == Pooling::last ? last : last / 2);
      }
      answers.push_back(engine.submit(request_of(prompt, 20)));
    }
    for (auto& [generation, expected] : embeddings) {
      EXPECT_EQ(generation.wait().reason, DoneReason::stop);
      ASSERT_EQ(generation.embedding().size(), 2u);
      EXPECT_FLOAT_EQ(generation.embedding()[0], expected);
      EXPECT_TRUE(generation.tokens().empty());
    }
    for (Generation& g : answers) g.wait();
    EXPECT_THAT(runner.faults, IsEmpty());
  }
}

TEST(HostDraw, TellsTheLikeliestInOrder) {
  const std::vector<float> logits = {1, 4, -2, 4, 3};
  const TokenChances c = chances_of(logits, 2, 3);
  ASSERT_EQ(c.n_top, 3u);
  EXPECT_EQ(c.top[0].token, 1);  // of equals the first
  EXPECT_EQ(c.top[1].token, 3);
  EXPECT_EQ(c.top[2].token, 4);
  double sum = 0;
  for (TokenId id = 0; id < 5; ++id) sum += std::exp(chances_of(logits, id, 0).drawn.logprob);
  EXPECT_NEAR(sum, 1, 1e-6);
  EXPECT_EQ(chances_of(logits, 0, 20).n_top, 5u);
}

}  // namespace
}  // namespace steelyard
