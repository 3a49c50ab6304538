#include "engine/engine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "engine/fake_runner.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

RunnerInfo small_info() {
  return {.limits = {.rows = 16, .outputs = 4, .slots = 4, .context = 96},
          .page_tokens = 4,
          .vocab_size = 200,
          .groups = {{.window = 0, .pages = 96}}};
}

std::vector<TokenId> some_tokens(std::mt19937& random, std::size_t n) {
  std::vector<TokenId> tokens(n);
  for (auto& token : tokens) token = static_cast<TokenId>(1 + random() % 199);
  return tokens;
}

EngineRequest request_of(std::vector<TokenId> prompt, std::int32_t num_predict = -1) {
  EngineRequest request;
  request.prompt = std::move(prompt);
  request.num_predict = num_predict;
  request.random_seed = false;
  return request;
}

std::vector<TokenId> ids(const Generation& generation) {
  return {generation.tokens().begin(), generation.tokens().end()};
}

std::string text_of(const std::vector<TokenId>& tokens) {
  std::string text;
  for (const auto id : tokens) text += FakeText().piece(id);
  return text;
}

template <typename Fn>
std::string error_of(ErrorKind kind, Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  return "no error";
}

TEST(Engine, StreamsTheAnswerOfOneRequest) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  auto generation = engine.submit(request_of({5, 6, 7}, 10));
  std::string piece, streamed;
  while (generation.next(piece)) streamed += piece;
  const Answer answer = generation.wait();
  const auto expected = fake_answer({5, 6, 7}, SamplingParams{}, 10, runner.info());
  EXPECT_EQ(ids(generation), expected);
  EXPECT_EQ(streamed, text_of(expected));
  EXPECT_EQ(answer.prompt_tokens, 3u);
  EXPECT_EQ(answer.generated_tokens, expected.size());
  EXPECT_EQ(answer.reason, expected.back() == kFakeEnd ? DoneReason::stop : DoneReason::length);
  EXPECT_THAT(runner.faults, IsEmpty());
}

// In steps of 16 rows, and what a second turn finds cached counts as read from the start.
TEST(Engine, TellsHowMuchOfThePromptIsRead) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  std::mt19937 random(3);
  const auto prompt = some_tokens(random, 40);
  const auto told = [&](std::vector<TokenId> tokens) {
    std::vector<std::uint32_t> reads;
    EngineRequest request = request_of(std::move(tokens), 1);
    request.on_prompt = [&](std::uint32_t read, std::uint32_t total) {
      EXPECT_EQ(total, 40u);
      reads.push_back(read);
    };
    engine.submit(std::move(request)).wait();
    return reads;
  };
  EXPECT_THAT(told(prompt), testing::ElementsAre(0, 16, 32, 40));
  const auto again = told(prompt);
  EXPECT_GT(again.front(), 32u);
  EXPECT_EQ(again.back(), 40u);
}

TEST(Engine, AnOnlyTokenTookItsStep) {
  FakeRunner runner(small_info());
  runner.step_time = std::chrono::milliseconds(3);
  FakeText text;
  Engine engine(runner, text);
  auto generation = engine.submit(request_of(std::vector<TokenId>(40, 5), 1));  // prefill takes several steps
  const Answer answer = generation.wait();
  ASSERT_EQ(answer.generated_tokens, 1u);
  ASSERT_GT(runner.info().limits.rows, 0u);
  ASSERT_LT(runner.info().limits.rows, 40u);
  EXPECT_GE(answer.generation_ns, 3'000'000);
  EXPECT_LE(answer.generation_ns, answer.prompt_ns - 3'000'000);
  EXPECT_EQ(answer.generated_tokens_per_second(), 0);
}

TEST(Engine, CallbacksEndWithExactlyOneDone) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  auto request = request_of({9, 9, 1}, 12);
  std::string streamed;
  std::atomic<int> done = 0;
  request.on_text = [&](std::string_view piece) { streamed += piece; };
  request.on_done = [&](const Answer& answer) {
    EXPECT_EQ(answer.prompt_tokens, 3u);
    ++done;
  };
  auto generation = engine.submit(std::move(request));
  generation.wait();
  while (done == 0) std::this_thread::yield();
  EXPECT_EQ(streamed, text_of(fake_answer({9, 9, 1}, SamplingParams{}, 12, runner.info())));
  EXPECT_EQ(done, 1);
}

TEST(Engine, StopStringsNeverLeak) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    const auto prompt = some_tokens(random, 5);
    const auto whole = text_of(fake_answer(prompt, SamplingParams{}, 30, runner.info()));
    if (whole.size() < 8) continue;
    const std::string stop = whole.substr(4, 3);
    auto request = request_of(prompt, 30);
    request.stop = {"", stop};
    auto generation = engine.submit(std::move(request));
    std::string piece, streamed;
    while (generation.next(piece)) streamed += piece;
    EXPECT_EQ(streamed, whole.substr(0, whole.find(stop)));
    EXPECT_EQ(generation.wait().reason, DoneReason::stop);
    EXPECT_EQ(generation.wait().stop_string, stop);
  }
  EXPECT_THAT(runner.faults, IsEmpty());
}

TEST(Engine, ReusesTheHistoryOfAChat) {
  for (const std::uint32_t depth : {1u, 2u, 3u}) {
    auto info = small_info();
    info.depth = depth;
    FakeRunner runner(info);
    FakeText text;
    Engine engine(runner, text);
    std::vector<TokenId> history{3, 4, 5, 6, 7, 8};
    for (int turn = 0; turn < 5; ++turn) {
      auto generation = engine.submit(request_of(history, 6));
      const Answer answer = generation.wait();
      EXPECT_EQ(ids(generation), fake_answer(history, SamplingParams{}, 6, info));
      // Everything but the last sampled token, whose state was never wanted, is there already.
      if (turn > 0) {
        EXPECT_EQ(answer.cached_tokens, history.size() - 3);
      }
      const auto tokens = generation.tokens();
      history.insert(history.end(), tokens.begin(), tokens.end());
      history.insert(history.end(), {11, 12});
    }
    EXPECT_THAT(runner.faults, IsEmpty());
  }
}

TEST(Engine, ARegeneratedAnswerCopiesThePartialPage) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  const std::vector<TokenId> prompt{3, 4, 5, 6, 7, 8, 9};
  engine.submit(request_of(prompt, 9)).wait();
  auto again = request_of(prompt, 9);
  again.sampling.seed = 5;
  const auto sampling = again.sampling;
  auto generation = engine.submit(std::move(again));
  EXPECT_EQ(generation.wait().cached_tokens, 6u) << "all but the last token, whose logits are wanted";
  EXPECT_EQ(ids(generation), fake_answer(prompt, sampling, 9, runner.info()));
  EXPECT_THAT(runner.faults, IsEmpty());
}

TEST(Engine, PenaltiesSeeTheSameHistoryWithAndWithoutReuse) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  std::mt19937 random(8);
  const auto prompt = some_tokens(random, 30);
  for (const int last_n : {0, 5, 64, -1}) {
    for (int round = 0; round < 2; ++round) {
      auto request = request_of(prompt, 10);
      request.sampling.repeat_penalty = 1.1f;
      request.sampling.repeat_last_n = last_n;
      const auto sampling = request.sampling;
      auto generation = engine.submit(std::move(request));
      generation.wait();
      EXPECT_EQ(ids(generation), fake_answer(prompt, sampling, 10, runner.info())) << last_n;
    }
  }
}

TEST(Engine, StopsWhenTheContextIsFull) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  std::mt19937 random(4);
  for (int round = 0; round < 20; ++round) {
    const auto prompt = some_tokens(random, 60 + random() % 36);
    auto generation = engine.submit(request_of(prompt));
    const Answer answer = generation.wait();
    const auto expected = fake_answer(prompt, SamplingParams{}, 1000, runner.info());
    EXPECT_EQ(ids(generation), expected);
    if (expected.back() != kFakeEnd) {
      EXPECT_EQ(answer.reason, DoneReason::length);
      EXPECT_EQ(answer.prompt_tokens + answer.generated_tokens, 96u);
    }
  }
}

TEST(Engine, RefusesWhatCanNotWork) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  const auto refused = [&](EngineRequest request) {
    return error_of(ErrorKind::bad_input, [&] { engine.submit(std::move(request)); });
  };
  EXPECT_THAT(refused(request_of(std::vector<TokenId>(96, 1))),
              HasSubstr("96 tokens, but the context holds 96"));
  auto request = request_of(std::vector<TokenId>(20, 1));
  request.context = 16;
  EXPECT_THAT(refused(std::move(request)), HasSubstr("20 tokens, but the context holds 16"));
  request = request_of({1});
  request.context = 97;
  EXPECT_THAT(refused(std::move(request)), ::testing::AllOf(HasSubstr("97"), HasSubstr("96")));
  EXPECT_THAT(refused(request_of({})), HasSubstr("no tokens"));
  EXPECT_THAT(refused(request_of({1, 200})), HasSubstr("token 200"));
  EXPECT_THAT(refused(request_of({-1})), HasSubstr("token -1"));
  request = request_of({1});
  request.sampling.top_p = 1.5f;
  EXPECT_THAT(refused(std::move(request)), HasSubstr("top_p is 1.5"));
  request = request_of({1});
  request.sampling.temperature = std::nanf("");
  EXPECT_THAT(refused(std::move(request)), HasSubstr("temperature"));
}

TEST(Engine, PredictsNothingWhenAskedTo) {
  FakeRunner runner(small_info());
  FakeText text;
  Engine engine(runner, text);
  auto generation = engine.submit(request_of({1, 2}, 0));
  EXPECT_EQ(generation.wait().reason, DoneReason::length);
  EXPECT_EQ(generation.wait().generated_tokens, 0u);
}

TEST(Engine, AFullQueueRefuses) {
  FakeRunner runner(small_info());
  runner.step_time = std::chrono::milliseconds(3);
  FakeText text;
  Engine engine(runner, text, {.max_queue = 2});
  std::vector<Generation> running;
  std::string message;
  for (int i = 0; i < 12 && message.empty(); ++i) {
    try {
      running.push_back(engine.submit(request_of({1 + i, 2, 3}, 80)));
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::busy);
      message = e.what();
    }
  }
  EXPECT_THAT(message, HasSubstr("2 requests are waiting"));
  for (auto& generation : running) generation.cancel();
  for (auto& generation : running) generation.wait();
}

TEST(Engine, CancelEndsWaitingAndRunningRequests) {
  auto info = small_info();
  info.limits.slots = 1;
  FakeRunner runner(info);
  runner.step_time = std::chrono::milliseconds(1);
  FakeText text;
  Engine engine(runner, text);
  auto running = engine.submit(request_of({21, 2, 3}));
  auto waiting = engine.submit(request_of({22, 2, 3}));
  auto last = engine.submit(request_of({23, 2, 3}, 4));
  waiting.cancel();
  EXPECT_EQ(waiting.wait().reason, DoneReason::cancelled);
  running.cancel();
  running.wait();
  last.wait();
  EXPECT_EQ(ids(last), fake_answer({23, 2, 3}, SamplingParams{}, 4, info));
  last.cancel();
  EXPECT_THAT(runner.faults, IsEmpty());
}

TEST(Engine, DestroyingTheEngineEndsEverything) {
  FakeRunner runner(small_info());
  runner.step_time = std::chrono::milliseconds(1);
  FakeText text;
  std::vector<Generation> generations;
  {
    Engine engine(runner, text);
    for (int i = 0; i < 10; ++i) generations.push_back(engine.submit(request_of({30 + i, 2, 3})));
  }
  for (auto& generation : generations) {
    EXPECT_TRUE(generation.done());
    generation.wait();
    generation.cancel();  // after the engine: harmless
  }
}

TEST(Engine, AFailedStepFailsItsRequestsAndTheEngineLivesOn) {
  for (const std::uint32_t depth : {1u, 2u, 3u})
    for (const bool in_submit : {false, true}) {
      auto info = small_info();
      info.depth = depth;
      FakeRunner runner(info);
      (in_submit ? runner.fail_submit : runner.fail_step) = 1;
      FakeText text;
      Engine engine(runner, text);
      auto failed = engine.submit(request_of({1, 2, 3}, 90));
      EXPECT_EQ(failed.wait().reason, DoneReason::error);
      EXPECT_THAT(failed.wait().error, HasSubstr("fake"));
      auto fine = engine.submit(request_of({1, 2, 3}, 9));
      fine.wait();
      EXPECT_EQ(ids(fine), fake_answer({1, 2, 3}, SamplingParams{}, 9, info));
      EXPECT_EQ(engine.stats().failed, 1u);
    }
}

TEST(Engine, KeepsAsManyStepsInFlightAsTheDeviceAllows) {
  for (const std::uint32_t depth : {1u, 2u, 3u}) {
    auto info = small_info();
    info.depth = depth;
    FakeRunner runner(info);
    FakeText text;
    Engine engine(runner, text);
    auto generation = engine.submit(request_of({1, 2, 3}, 20));
    generation.wait();
    EXPECT_EQ(ids(generation), fake_answer({1, 2, 3}, SamplingParams{}, 20, info));
    EXPECT_EQ(runner.most_in_flight, depth);
    EXPECT_THAT(runner.faults, IsEmpty());
  }
}

// So that each stage has sequences of its own to work on, while the others' tokens are on their way.
TEST(Engine, StagesGetAShareOfTheSequencesAStep) {
  RunnerInfo info = small_info();
  info.stages = 2, info.depth = 3;
  FakeRunner runner(info);
  FakeText text;
  Engine engine(runner, text);
  std::vector<Generation> running;
  for (TokenId i = 0; i < 4; ++i) running.push_back(engine.submit(request_of({5, 6, 7 + i}, 20)));
  for (TokenId i = 0; i < 4; ++i) {
    running[i].wait();
    EXPECT_EQ(ids(running[i]), fake_answer({5, 6, 7 + i}, SamplingParams{}, 20, info));
  }
  std::uint32_t most = 0;
  for (const StepRecord& step : engine.recent_steps(1000)) most = std::max(most, step.decode_rows);
  EXPECT_EQ(most, 2u);
  EXPECT_EQ(runner.most_in_flight, 3u);
  EXPECT_THAT(runner.faults, IsEmpty());
}

TEST(Engine, LogitsThatAreNoNumbersEndTheirRequestWithASentence) {
  for (const std::uint32_t depth : {1u, 2u, 3u}) {
    auto info = small_info();
    info.depth = depth;
    FakeRunner runner(info);
    runner.no_number_after = 13;
    FakeText text;
    Engine engine(runner, text);
    auto bad = engine.submit(request_of({11, 12, 13}, 20));
    auto good = engine.submit(request_of({1, 2, 3}, 20));
    EXPECT_EQ(bad.wait().reason, DoneReason::error);
    EXPECT_THAT(bad.wait().error, HasSubstr("the model's output is no number"));
    EXPECT_EQ(good.wait().reason == DoneReason::error, false);
    EXPECT_EQ(ids(good), fake_answer({1, 2, 3}, SamplingParams{}, 20, info));
    EXPECT_THAT(runner.faults, IsEmpty());
  }
}

TEST(Engine, AFailureWhileTwoStepsAreInFlightFailsThoseInvolvedOnce) {
  for (std::uint64_t step = 2; step < 8; ++step)
    for (const bool in_submit : {false, true}) {
      auto info = small_info();
      info.depth = 2;
      FakeRunner runner(info);
      (in_submit ? runner.fail_submit : runner.fail_step) = step;
      FakeText text;
      Engine engine(runner, text);
      auto failed = engine.submit(request_of({1, 2, 3, 5}, 60));
      EXPECT_EQ(failed.wait().reason, DoneReason::error);
      auto fine = engine.submit(request_of({1, 2, 3}, 9));
      EXPECT_NE(fine.wait().reason, DoneReason::error);
      EXPECT_EQ(ids(fine), fake_answer({1, 2, 3}, SamplingParams{}, 9, info));
      EXPECT_EQ(engine.stats().failed, 1u);
      // The step behind a failed one reads what that one never wrote; nobody sees its samples.
      if (in_submit) {
        EXPECT_THAT(runner.faults, IsEmpty());
      }
    }
}

TEST(Engine, ReportsAchievedOverLimitWhenItIsKnown) {
  FakeRunner runner(small_info());
  runner.step_time = std::chrono::milliseconds(1);
  FakeText text;
  Engine engine(runner, text, {.step_limit = [](const StepShape&) { return 1e-4; }});
  std::mt19937 random(1);
  auto generation = engine.submit(request_of(some_tokens(random, 40), 6));
  const Answer& answer = generation.wait();
  EXPECT_GT(answer.prompt_achieved, 0);
  EXPECT_LT(answer.prompt_achieved, 0.1001);
  const auto steps = engine.recent_steps(100);
  ASSERT_GE(steps.size(), 3u);
  EXPECT_EQ(steps[0].prefill_rows, 16u);
  EXPECT_EQ(steps[2].prefill_rows, 8u);
  EXPECT_EQ(engine.stats().steps.prefill_rows, 40u);
}

TEST(Engine, ABeatenLimitIsSaidAndNeverMoreThanAll) {
  FakeRunner runner(small_info());
  runner.step_time = std::chrono::milliseconds(10);
  FakeText text;
  std::atomic<int> raised = 0;
  std::atomic<double> factor = 0;
  Engine engine(runner, text,
                {.step_limit = [](const StepShape&) { return 1.0; },
                 .limit_beaten = [&](const StepShape&, double by) { ++raised, factor = by; }});
  std::mt19937 random(1);
  auto generation = engine.submit(request_of(some_tokens(random, 40), 6));
  const Answer& answer = generation.wait();
  EXPECT_EQ(answer.prompt_achieved, 1);
  EXPECT_EQ(answer.generation_achieved, 1);
  EXPECT_GT(answer.prompt_beat, 2);
  EXPECT_EQ(answer.prompt_read, 40u);
}

TEST(Engine, ACancelledPromptCountsTheTokensThatWereRead) {
  FakeRunner runner(small_info());
  runner.step_time = std::chrono::milliseconds(50);
  FakeText text;
  Engine engine(runner, text);
  std::mt19937 random(1);
  auto generation = engine.submit(request_of(some_tokens(random, 60), 6));
  while (engine.stats().steps.steps == 0) std::this_thread::yield();
  generation.cancel();
  const Answer& answer = generation.wait();
  EXPECT_EQ(answer.prompt_tokens, 60u);
  EXPECT_GE(answer.prompt_read, 16u);
  EXPECT_EQ(answer.prompt_read, engine.stats().steps.prefill_rows);
}

// ---- random schedules ----

struct Shape {
  RunnerInfo info;
  bool reuse;
};

Shape random_shape(std::mt19937& random) {
  const auto pick = [&](std::uint32_t low, std::uint32_t high) {
    return low + static_cast<std::uint32_t>(random() % (high - low + 1));
  };
  RunnerInfo info;
  info.page_tokens = std::vector<std::uint32_t>{1, 3, 4, 8, 16}[random() % 5];
  info.limits.context = pick(24, 100);
  info.limits.slots = pick(1, 6);
  info.limits.rows = pick(1, 40);
  info.limits.outputs = pick(1, info.limits.slots + 1);
  info.vocab_size = pick(3, 256);
  info.depth = pick(1, 3);
  const std::uint32_t whole = (info.limits.context + info.page_tokens - 1) / info.page_tokens;
  const auto kinds = random() % 4;  // full, window, both, two windows
  const auto full = [&] { return RunnerGroup{0, pick(whole + 1, whole * info.limits.slots + 2)}; };
  const auto window = [&] {
    const std::uint32_t tokens = pick(1, 40);
    const std::uint32_t least = (tokens + info.page_tokens - 1) / info.page_tokens + 2;
    return RunnerGroup{tokens, pick(least, least * (info.limits.slots + 2))};
  };
  if (kinds == 0 || kinds == 2) info.groups.push_back(full());
  if (kinds != 0) info.groups.push_back(window());
  if (kinds == 3) info.groups.push_back(window());
  return {info, random() % 5 != 0};
}

std::vector<TokenId> random_prompt(std::mt19937& random, const RunnerInfo& info,
                                   const std::vector<std::vector<TokenId>>& known) {
  const std::size_t most = info.limits.context - 1;
  std::vector<TokenId> prompt;
  if (!known.empty() && random() % 3 > 0) {  // a beginning of something seen before
    prompt = known[random() % known.size()];
    if (random() % 2 == 0) prompt.resize(1 + random() % prompt.size());
  }
  const std::size_t more = prompt.empty() ? 1 + random() % most : random() % 6;
  for (std::size_t i = 0; i < more; ++i)
    prompt.push_back(static_cast<TokenId>(1 + random() % (info.vocab_size - 1)));
  if (prompt.size() > most) prompt.resize(most);
  return prompt;
}

// What the engine says once it has seen that nothing runs any more.
EngineStats idle_stats(const Engine& engine) {
  EngineStats stats = engine.stats();
  for (int i = 0; i < 10000 && (stats.active != 0 || stats.waiting != 0); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
    stats = engine.stats();
  }
  return stats;
}

// Every request's answer is what it gives alone: whatever runs beside it, however it is chunked, preempted,
// moved to other slots, or begun from cached pages.
void run_schedule(std::uint32_t seed) {
  std::mt19937 random(seed);
  const Shape shape = random_shape(random);
  FakeRunner runner(shape.info);
  FakeText text;
  std::vector<std::vector<TokenId>> known;
  {
    Engine engine(runner, text, {.reuse_prefixes = shape.reuse});
    struct Sent {
      Generation generation;
      std::vector<TokenId> prompt;
      SamplingParams sampling;
      std::uint32_t most;
      bool cancelled;
    };
    for (int wave = 0; wave < 3; ++wave) {
      std::vector<Sent> sent;
      const std::size_t n = 1 + random() % 10;
      for (std::size_t i = 0; i < n; ++i) {
        auto request = request_of(random_prompt(random, shape.info, known));
        request.num_predict = random() % 3 == 0 ? -1 : static_cast<std::int32_t>(1 + random() % 40);
        request.sampling.seed = random() % 4;
        if (random() % 4 == 0) {
          request.sampling.repeat_penalty = 1.2f;
          request.sampling.repeat_last_n = static_cast<std::int32_t>(random() % 20) - 1;
        }
        Sent one{{}, request.prompt, request.sampling, 0, random() % 8 == 0};
        one.most = request.num_predict < 0 ? 1000u : static_cast<std::uint32_t>(request.num_predict);
        if (random() % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));
        one.generation = engine.submit(std::move(request));
        sent.push_back(std::move(one));
        if (sent.back().cancelled && random() % 2 == 0) sent.back().generation.cancel();
      }
      for (auto& one : sent) {
        if (one.cancelled) one.generation.cancel();
        const Answer answer = one.generation.wait();
        const auto got = ids(one.generation);
        auto expected = fake_answer(one.prompt, one.sampling, one.most, shape.info);
        if (answer.reason == DoneReason::cancelled && one.cancelled) expected.resize(got.size());
        ASSERT_NE(answer.reason, DoneReason::error) << "seed " << seed << ": " << answer.error;
        ASSERT_EQ(got, expected) << "seed " << seed << " prompt " << one.prompt.size() << " cached "
                                 << answer.cached_tokens << " preemptions " << answer.preemptions;
        known.push_back(one.prompt);
        known.back().insert(known.back().end(), got.begin(), got.end());
      }
      const EngineStats stats = idle_stats(engine);
      ASSERT_EQ(stats.pools.size(), shape.info.groups.size());
      for (const PoolUse& pool : stats.pools) ASSERT_EQ(pool.held, 0u) << "seed " << seed;
    }
  }
  ASSERT_THAT(runner.faults, IsEmpty()) << "seed " << seed;
}

TEST(EngineProperty, EveryAnswerIsWhatItGivesAlone) {
  for (std::uint32_t seed = 1; seed <= 400; ++seed) {
    run_schedule(seed);
    if (HasFatalFailure()) return;
  }
}

}  // namespace
}  // namespace steelyard
