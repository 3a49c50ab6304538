#include "engine/loaded_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <latch>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "device/devices.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

using ::testing::SizeIs;

std::unique_ptr<LoadedModel> load(const std::string& name, Devices& devices, std::uint32_t threads = 2) {
  const auto path = std::filesystem::path(STEELYARD_SOURCE_DIR) / "tests/data/models" / (name + ".gguf");
  return std::make_unique<LoadedModel>(prepare_model(
      path, {.device = "cpu", .threads = threads, .context = 128, .slots = 2, .batch = 16}, devices));
}

// The engine's thread calls `on_start` before the first step.
Generation begin(const LoadedModel& model, TokenId first, std::function<void()> on_start = {}) {
  EngineRequest request;
  request.prompt.assign(40, first);
  request.random_seed = false;
  request.num_predict = 60;
  if (on_start)
    request.on_prompt = [on_start](std::uint32_t read, std::uint32_t) {
      if (read == 0) on_start();
    };
  return model.engine().submit(std::move(request));
}

std::vector<TokenId> tokens_of(Generation generation) {
  EXPECT_EQ(generation.wait().error, "");
  return {generation.tokens().begin(), generation.tokens().end()};
}

std::vector<TokenId> answer_alone(const std::string& name, TokenId first) {
  Devices devices;
  return tokens_of(begin(*load(name, devices), first));
}

TEST(LoadedModels, OfTheCpuShareItsThreadsAndQueue) {
  Devices devices;
  const auto llama = load("llama", devices), qwen = load("qwen3", devices);
  EXPECT_EQ(&llama->device(), &qwen->device());
  EXPECT_NE(&llama->device(), &load("llama", devices, 1)->device());  // another number of threads
  EXPECT_EQ(devices.cpu({}), devices.cpu({.threads = devices.cpu({})->info().threads}));
}

TEST(LoadedModels, AnswerAsAloneWhileTheirStepsInterleave) {
  Devices devices;
  const auto llama = load("llama", devices), qwen = load("qwen3", devices);
  std::latch both(2);  // neither engine begins before the other
  const auto meet = [&] { both.arrive_and_wait(); };
  const Generation answers[] = {begin(*llama, 1, meet), begin(*llama, 7), begin(*qwen, 1, meet),
                                begin(*qwen, 7)};
  EXPECT_THAT(tokens_of(answers[0]), SizeIs(60));
  EXPECT_EQ(tokens_of(answers[0]), answer_alone("llama", 1));
  EXPECT_EQ(tokens_of(answers[1]), answer_alone("llama", 7));
  EXPECT_EQ(tokens_of(answers[2]), answer_alone("qwen3", 1));
  EXPECT_EQ(tokens_of(answers[3]), answer_alone("qwen3", 7));
}

TEST(LoadedModels, OneGoesWhileTheOtherAnswers) {
  Devices devices;
  auto llama = load("llama", devices);
  const auto qwen = load("qwen3", devices);
  const Generation cut = begin(*llama, 1), kept = begin(*qwen, 7);
  llama.reset();
  EXPECT_EQ(tokens_of(kept), answer_alone("qwen3", 7));
}

}  // namespace
}  // namespace steelyard
