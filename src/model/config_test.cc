#include "model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>

#include "base/error.h"
#include "model/forward.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;

std::vector<std::byte> golden_bytes(const std::string& name) {
  std::ifstream in(std::string(STEELYARD_SOURCE_DIR) + "/tests/data/models/" + name, std::ios::binary);
  std::vector<char> chars((std::istreambuf_iterator<char>(in)), {});
  std::vector<std::byte> bytes(chars.size());
  std::memcpy(bytes.data(), chars.data(), chars.size());
  return bytes;
}

// Replaces a string of the file by one of the same length.
std::vector<std::byte> with(std::vector<std::byte> bytes, std::string_view from, std::string_view to) {
  EXPECT_EQ(from.size(), to.size());
  const auto* begin = reinterpret_cast<const char*>(bytes.data());
  const std::string_view all(begin, bytes.size());
  std::size_t at = all.find(from), found = 0;
  for (; at != std::string_view::npos; at = all.find(from, at + 1), ++found)
    std::memcpy(bytes.data() + at, to.data(), to.size());
  EXPECT_GT(found, 0u);
  return bytes;
}

std::string refusal(const std::vector<std::byte>& bytes) {
  try {
    const GgufFile file = GgufFile::parse(bytes);
    const ModelConfig config = read_config(file);
    write_forward(file, config, {});
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(Config, ReadsGemma3) {
  const auto bytes = golden_bytes("gemma3.gguf");
  const GgufFile file = GgufFile::parse(bytes);
  const ModelConfig c = read_config(file);
  EXPECT_EQ(c.architecture, "gemma3");
  EXPECT_TRUE(c.qk_norm && c.post_norms && c.tied_embedding);
  EXPECT_FLOAT_EQ(c.embedding_scale, std::sqrt(static_cast<float>(c.n_embd)));
  ASSERT_EQ(c.layers.size(), 8u);
  for (std::size_t i = 0; i < 8; ++i) EXPECT_EQ(c.layers[i].window != 0, i != 5) << i;
  ASSERT_EQ(c.ropes.size(), 2u);
  EXPECT_FLOAT_EQ(c.ropes[0].freq_scale, 1.0f / 8);
  EXPECT_FLOAT_EQ(c.ropes[1].base, 10000.0f);
  EXPECT_FLOAT_EQ(c.ropes[1].freq_scale, 1.0f);
}

TEST(Config, NamesWhatItRefuses) {
  const auto llama = golden_bytes("llama.gguf");
  EXPECT_EQ(refusal(llama), "");
  EXPECT_THAT(refusal(with(llama, "llama", "lamax")), HasSubstr("\"lamax\""));
  EXPECT_THAT(refusal(with(llama, "block_count", "block_xount")), HasSubstr("llama.block_count"));
  EXPECT_THAT(refusal(with(llama, "blk.1.ffn_down", "blk.1.ffn_gown")), HasSubstr("blk.1.ffn_down.weight"));
  EXPECT_THAT(refusal(with(llama, "token_embd", "taken_embd")), HasSubstr("token_embd.weight"));
}

TEST(Forward, Phi3ChoosesItsFactorsByTheContext) {
  const auto bytes = golden_bytes("phi3.gguf");
  const GgufFile file = GgufFile::parse(bytes);
  const ModelConfig c = read_config(file);
  const auto factors = [&](std::uint32_t context) {
    const Forward f = write_forward(file, c, {.context = context});
    return f.program.weights[f.program.ropes[0].factors].name;
  };
  EXPECT_EQ(factors(c.rope_original_context), "rope_factors_short.weight");
  EXPECT_EQ(factors(c.rope_original_context + 1), "rope_factors_long.weight");
}

TEST(Forward, SlicesFusedTensors) {
  const auto bytes = golden_bytes("phi3.gguf");
  const GgufFile file = GgufFile::parse(bytes);
  const ModelConfig c = read_config(file);
  const Forward f = write_forward(file, c, {});
  std::uint64_t qkv_bytes = 0;
  for (std::size_t i = 0; i < f.sources.size(); ++i)
    if (f.sources[i].tensor->name == "blk.0.attn_qkv.weight")
      qkv_bytes += weight_bytes(file, f.program.weights[i], f.sources[i]).size();
  EXPECT_EQ(qkv_bytes, file.find_tensor("blk.0.attn_qkv.weight")->bytes);
}

TEST(Forward, AWindowBeyondTheContextIsFullAttention) {
  const auto bytes = golden_bytes("gemma3.gguf");
  const GgufFile file = GgufFile::parse(bytes);
  const ModelConfig c = read_config(file);
  EXPECT_EQ(write_forward(file, c, {.context = 256}).program.groups.size(), 2u);
  EXPECT_EQ(write_forward(file, c, {.context = 8}).program.groups.size(), 1u);
}

}  // namespace
}  // namespace steelyard
