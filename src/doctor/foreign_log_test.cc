#include "doctor/foreign_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <iterator>
#include <string>

#include "doctor/causes.h"
#include "doctor/report.h"

namespace steelyard::doctor {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string log_text(const std::string& name) {
  std::ifstream in(STEELYARD_SOURCE_DIR "/tests/data/logs/" + name);
  EXPECT_TRUE(in) << name;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}
Facts facts(const std::string& name) { return facts_of(read_log(log_text(name))); }

// 64 layers over two cards, nothing but the embedding on the CPU, and slow.
TEST(ForeignLog, TwoGpusInTurnByOllama) {
  const ForeignLog log = read_log(log_text("two_gpus.log"));
  EXPECT_EQ(log.engine, Engine::ollama);
  EXPECT_EQ(log.layers, 65u);
  EXPECT_EQ(log.offloaded, 65u);
  EXPECT_EQ(log.width, 5120u);
  EXPECT_EQ(log.context, 4096u);
  EXPECT_EQ(log.kv_type, "f16");
  EXPECT_EQ(log.weights.at("CUDA0"), 9216ull << 20);
  EXPECT_EQ(log.kv.at("CUDA1"), 496ull << 20);
  EXPECT_NEAR(log.tokens_per_second, 14.03, 0.01);
  EXPECT_NEAR(log.prompt_tokens_per_second, 192.15, 0.1);

  const Facts f = facts_of(log);
  EXPECT_EQ(f.split, Split::stages);
  // Both read at once: 18739 MiB at 2 x 360 GB/s.
  EXPECT_NEAR(1 / limit_seconds(f), 36.6, 0.2);
  const auto findings = find_causes(f);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].cause, Cause::stages_one_stream);
  EXPECT_GT(findings[0].predicted, 1.6 * f.tokens_per_second);
  EXPECT_LT(findings[0].predicted, 2 * f.tokens_per_second);
  EXPECT_THAT(findings[0].change, HasSubstr("--split-mode tensor"));
  EXPECT_EQ(exit_code(findings), 16);
  for (const Finding& x : findings) EXPECT_NE(x.cause, Cause::layers_on_cpu) << "the embedding is no layer";

  const std::string text = to_text(f, findings);
  EXPECT_THAT(text, HasSubstr("you get 14.0 tokens/s; this machine's limit for this file is 36."));
  EXPECT_THAT(text, HasSubstr("a token reads one row of it"));
  EXPECT_THAT(text, Not(HasSubstr("someone")));  // a user's name in a path
  EXPECT_THAT(to_json(f, findings).dump(), Not(HasSubstr("someone")));
}

TEST(ForeignLog, LayersOnTheCpuIn2024) {
  const Facts f = facts("partly_on_cpu_2024.log");
  EXPECT_EQ(f.engine, Engine::llama_cpp);
  EXPECT_EQ(f.layers_on_gpu, 30u);
  ASSERT_EQ(f.devices.size(), 2u);
  EXPECT_EQ(f.devices[0].name, "NVIDIA GeForce RTX 4070 Ti SUPER");
  EXPECT_NEAR(f.devices[0].read_rate, 672e9, 1);
  EXPECT_EQ(f.devices[1].read_weights, static_cast<std::uint64_t>(33854.55 * (1 << 20)));
  const auto findings = find_causes(f);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].cause, Cause::layers_on_cpu);
  EXPECT_THAT(findings[0].evidence, HasSubstr("51 of 81 layers"));
  EXPECT_THAT(findings[0].change, HasSubstr("smaller model or quantisation"));  // 33 GiB lack
  EXPECT_EQ(findings[0].predicted, 0);
  EXPECT_GT(findings[0].share, 0.8);
}

TEST(ForeignLog, OllamasOwnEngineIn2025) {
  const ForeignLog log = read_log(log_text("ollama_engine_2025.log"));
  EXPECT_EQ(log.engine, Engine::ollama);
  EXPECT_EQ(log.offloaded, 9u);
  EXPECT_EQ(log.weights.at("CPU"), static_cast<std::uint64_t>(18.7 * (1ull << 30)));
  EXPECT_EQ(log.cards.at("CUDA0").name, "NVIDIA GeForce RTX 4090");
  EXPECT_EQ(log.truncated, 1u);
  std::string names;
  for (const Finding& x : find_causes(facts_of(log))) names += std::string(info(x.cause).name) + " ";
  EXPECT_THAT(names, HasSubstr("layers_on_cpu"));
  EXPECT_THAT(names, HasSubstr("prompts_cut"));
}

TEST(ForeignLog, LlamaServerIn2026) {
  const Facts f = facts("server_2026.log");
  EXPECT_EQ(f.split, Split::one);
  EXPECT_EQ(f.streams, 4u);
  EXPECT_EQ(f.flash_attention, true);
  EXPECT_NEAR(f.tokens_per_second, 42, 0.1);
  const auto findings = find_causes(f);
  ASSERT_EQ(findings.size(), 2u);
  EXPECT_EQ(findings[0].cause, Cause::prefix_not_reused);
  EXPECT_EQ(findings[1].cause, Cause::large_weights);
  EXPECT_FALSE(findings[1].price.empty());
}

TEST(ForeignLog, NoGpuAtAll) {
  const Facts f = facts("cpu_only.log");
  EXPECT_THAT(f.no_gpu, HasSubstr("no usable GPU found"));
  EXPECT_NEAR(f.tokens_per_second, 8, 0.01);
  EXPECT_EQ(f.devices.at(0).read_weights, static_cast<std::uint64_t>(4685.30 * (1 << 20)));
  // Layers on a GPU were asked for, so there is one.
  const auto findings = find_causes(f);
  ASSERT_FALSE(findings.empty());
  EXPECT_EQ(findings[0].cause, Cause::build_without_gpu);
  // Where nobody asks, nobody says that a card is there.
  EXPECT_TRUE(find_causes(facts_of(read_log("msg=\"no compatible GPUs were discovered\"\n"))).empty());
}

TEST(ForeignLog, TheLastLoadCountsAndReloadsAreSeen) {
  std::string text;
  for (int i = 0; i < 4; ++i)
    text +=
        "llama_model_loader: loaded meta data with 2 key-value pairs and 3 tensors from m.gguf (version GGUF "
        "V3)\n"
        "load_tensors: offloaded 1" +
        std::to_string(i) +
        "/20 layers to GPU\n"
        "load_tensors:        CUDA0 model buffer size =  100.00 MiB\n"
        "eval time =    1000.00 ms /    10 tokens (    1 ms per token,    10 tokens per second)\n";
  const ForeignLog log = read_log(text);
  EXPECT_EQ(log.loads, 4u);
  EXPECT_EQ(log.offloaded, 13u);
  const auto findings = find_causes(facts_of(log));
  EXPECT_EQ(std::ranges::count(findings, Cause::reloads, &Finding::cause), 1);
}

// Logs are foreign bytes: no shape of a line may do harm.
TEST(ForeignLog, LinesThatMakeNoSense) {
  for (const char* line : {"",
                           "offloaded /",
                           "offloaded 99999999999999999999/1 layers to GPU",
                           "offloaded 5/3 layers to GPU",
                           " buffer size =",
                           "x: buffer size = 1e300 MiB",
                           "CUDA0 model buffer size = -5 MiB",
                           "CUDA0 model buffer size = nan MiB",
                           "eval time =",
                           "eval time = 0 ms / 0 tokens",
                           "eval time = 5 ms",
                           "prompt eval time = 1 ms / x",
                           "Device : , compute capability",
                           "Device 0, compute capability: ",
                           "using device free",
                           "using device A (B - C free",
                           "msg=\"model weights\" device=\"",
                           "msg=\"",
                           "msg=\"inference compute\" total=",
                           "K (",
                           "type_k = '",
                           "flash_attn",
                           "split_mode",
                           "model size       = (",
                           "K (f16 V ("}) {
    const Facts f = facts_of(read_log(line));
    EXPECT_NO_THROW(to_text(f, find_causes(f))) << line;
    EXPECT_LE(f.layers_on_gpu, f.layers);
  }
  EXPECT_FALSE(read_log("nothing of the kind\n").understood());
}

}  // namespace
}  // namespace steelyard::doctor
