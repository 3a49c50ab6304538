#include "store/synth.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <set>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "base/temporary_folder.h"
#include "gguf/gguf.h"
#include "gguf/summary.h"
#include "quant/quant.h"
#include "store/mixture.h"
#include "store/synth_blocks.h"
#include "store/synth_model.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class SynthTest : public ::testing::Test {
 protected:
  GgufFile make(const SynthOptions& options) {
    write_synthetic_model(options, directory_ / "m.gguf");
    return GgufFile::open(directory_ / "m.gguf");
  }
  std::string bytes_of(const SynthOptions& options) {
    write_synthetic_model(options, directory_ / "b.gguf");
    std::ifstream file(directory_ / "b.gguf", std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }

  const TemporaryFolder temporary_{"synth"};
  const fs::path directory_ = temporary_.path();
};

std::vector<float> weights(const GgufFile& file, const std::string& name) {
  const GgufTensor* tensor = file.find_tensor(name);
  EXPECT_NE(tensor, nullptr) << name;
  if (tensor == nullptr) return {};
  std::vector<float> out(tensor->shape.elements());
  dequantize(tensor->type, file.data(*tensor).data(), out.size(), out.data());
  return out;
}

TEST_F(SynthTest, WritesEveryTinyArchitecture) {
  for (const SynthShape& shape : synth_shapes()) {
    if (!shape.name.starts_with("tiny-")) continue;
    const GgufFile file = make({.shape = std::string(shape.name)});
    const std::string arch(shape.architecture);
    EXPECT_EQ(file.metadata().find_string("general.architecture"), arch);
    EXPECT_EQ(file.metadata().find_uint(arch + ".block_count"), shape.layers);
    EXPECT_EQ(file.metadata().find_uint(arch + ".attention.head_count_kv"), shape.kv_heads);
    EXPECT_EQ(file.metadata().find_string("tokenizer.ggml.model"), "none");
    EXPECT_EQ(quantization_name(file), "Q4_K_M");
    EXPECT_EQ(file.find_tensor("output.weight") == nullptr, shape.tied) << shape.name;
    const bool fused = arch == "phi3";
    EXPECT_EQ(file.find_tensor("blk.0.attn_qkv.weight") != nullptr, fused);
    EXPECT_EQ(file.find_tensor("rope_factors_long.weight") != nullptr, fused);
    EXPECT_EQ(file.find_tensor("blk.0.attn_q.bias") != nullptr,
              arch == "qwen2" || arch.starts_with("glm4") || arch == "gpt-oss");
    EXPECT_EQ(file.find_tensor("blk.0.attn_q_norm.weight") != nullptr,
              arch.starts_with("qwen3") || arch == "gemma3");
    EXPECT_EQ(file.find_tensor("blk.0.post_ffw_norm.weight") != nullptr,
              arch.starts_with("gemma") || arch == "glm4");
    EXPECT_EQ(file.find_tensor("blk.1.ffn_gate_exps.weight") != nullptr, shape.experts > 0);
    EXPECT_EQ(file.find_tensor("blk.1.ffn_gate.weight") != nullptr,
              shape.experts == 0 && arch != "phi3" && arch != "glm4");
    EXPECT_EQ(file.find_tensor("blk.0.attn_sinks.weight") != nullptr, arch == "gpt-oss");
    for (const float w : weights(file, "blk.0.attn_norm.weight")) ASSERT_NEAR(w, 1, 0.3);
  }
}

TEST_F(SynthTest, WeightsOfEveryTypeAreSane) {
  for (const char* type : {"f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k",
                           "q4_k", "q5_k", "q6_k", "iq4_nl", "iq4_xs", "mxfp4"}) {
    const GgufFile file = make({.shape = "tiny-llama", .type = type});
    const std::string name = "blk.1.ffn_down.weight";
    EXPECT_EQ(file.find_tensor(name)->type, find_dtype(type)->type);
    double sum = 0, squares = 0;
    const std::vector<float> w = weights(file, name);
    for (const float v : w) {
      ASSERT_TRUE(std::isfinite(v)) << type;
      sum += v;
      squares += static_cast<double>(v) * v;
    }
    const double n = static_cast<double>(w.size()), deviation = std::sqrt(squares / n);
    // Wanted: 1/√512; MXFP4's powers of two may miss it by √2.
    EXPECT_NEAR(deviation * std::sqrt(512), 1, std::string(type) == "mxfp4" ? 0.45 : 0.1) << type;
    EXPECT_NEAR(sum / n / deviation, 0, 0.05) << type;
  }
}

TEST_F(SynthTest, IsDeterministicBySeed) {
  const std::string once = bytes_of({.shape = "tiny-gemma3"});
  EXPECT_TRUE(once == bytes_of({.shape = "tiny-gemma3", .threads = 1}));
  const std::string other = bytes_of({.shape = "tiny-gemma3", .seed = 8});
  EXPECT_EQ(once.size(), other.size());
  EXPECT_FALSE(once == other);
}

TEST_F(SynthTest, WritesAVocabularyWhenAsked) {
  const GgufFile file = make({.shape = "tiny-llama", .vocabulary = true});
  const GgufMetadata& m = file.metadata();
  EXPECT_EQ(m.find_string("tokenizer.ggml.model"), "gpt2");
  const auto tokens = m.require_array("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 1024u);
  EXPECT_EQ(tokens.string_at('A'), "A");
  EXPECT_EQ(tokens.string_at(' '), "\xc4\xa0");  // Ġ, as byte-level BPE writes a space
  EXPECT_EQ(tokens.string_at('\n'), "\xc4\x8a");
  EXPECT_EQ(tokens.string_at(0xad), "\xc5\x83");  // the last letter, U+0143
  EXPECT_EQ(tokens.string_at(258), "<|im_end|>");
  EXPECT_TRUE(m.find_string("tokenizer.chat_template")->starts_with("{% for message in messages %}"));
  const GgufFile plain = make({.shape = "tiny-llama", .vocabulary = true, .chat_template = false});
  EXPECT_FALSE(plain.metadata().find_string("tokenizer.chat_template"));
  EXPECT_EQ(m.require_array("tokenizer.ggml.token_type").size(), 1024u);
  const auto strings = tokens.strings();
  EXPECT_EQ(std::set<std::string_view>(strings.begin(), strings.end()).size(), 1024u);
}

TEST_F(SynthTest, ReportsProgressAndRefusesUnknownNames) {
  std::uint64_t last = 0, all = 0;
  make({.shape = "tiny-qwen2", .progress = [&](std::uint64_t done, std::uint64_t total) {
          EXPECT_GT(done, last);
          last = done;
          all = total;
        }});
  EXPECT_EQ(last, all);
  const auto failure = [&](const SynthOptions& options) {
    try {
      write_synthetic_model(options, directory_ / "x.gguf");
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  EXPECT_THAT(failure({.shape = "llama9"}), HasSubstr("no shape 'llama9'; known are llama3.1-70b, "));
  EXPECT_THAT(failure({.shape = "tiny-llama", .type = "q7_z"}),
              HasSubstr("no weight type 'q7_z'; known are"));
  EXPECT_FALSE(fs::exists(directory_ / "x.gguf"));
}

TEST(Synth, ShapesHaveTheirPublishedSizes) {
  const auto parameters = [](const char* name) {
    double n = 0;
    for (const SynthTensor& t : synth_tensors(find_synth_shape(name), parse_mixture("f16"))) {
      double elements = 1;
      for (const std::uint64_t size : t.dims) elements *= static_cast<double>(size);
      n += elements;
    }
    return n;
  };
  // Counts as the models' publishers give them.
  EXPECT_NEAR(parameters("llama3.1-70b"), 70.6e9, 0.1e9);
  EXPECT_NEAR(parameters("llama3.1-8b"), 8.03e9, 0.01e9);
  EXPECT_NEAR(parameters("llama3.2-3b"), 3.21e9, 0.01e9);
  EXPECT_NEAR(parameters("llama3.2-1b"), 1.236e9, 0.002e9);
  EXPECT_NEAR(parameters("mistral-7b"), 7.25e9, 0.01e9);
  EXPECT_NEAR(parameters("smollm2-135m"), 134.5e6, 0.1e6);
  EXPECT_NEAR(parameters("qwen2.5-32b"), 32.8e9, 0.1e9);
  EXPECT_NEAR(parameters("qwen2.5-7b"), 7.62e9, 0.01e9);
  EXPECT_NEAR(parameters("qwen2.5-0.5b"), 494e6, 1e6);
  EXPECT_NEAR(parameters("qwen3-8b"), 8.19e9, 0.01e9);
  EXPECT_NEAR(parameters("qwen3-0.6b"), 596e6, 1e6);
  EXPECT_NEAR(parameters("gemma3-270m"), 268.1e6, 0.1e6);
  EXPECT_NEAR(parameters("gemma3-1b"), 1.0e9, 0.001e9);
  EXPECT_NEAR(parameters("gemma2-2b"), 2.614e9, 0.002e9);
  EXPECT_NEAR(parameters("phi3-mini"), 3.82e9, 0.01e9);
  EXPECT_NEAR(parameters("qwen3-30b-a3b"), 30.5e9, 0.1e9);
  EXPECT_NEAR(parameters("gpt-oss-20b"), 20.9e9, 0.1e9);
  EXPECT_NEAR(parameters("mixtral-8x7b"), 46.7e9, 0.1e9);
  EXPECT_NEAR(parameters("granite3.3-8b"), 8.17e9, 0.01e9);
  EXPECT_NEAR(parameters("granite3.1-moe-3b"), 3.3e9, 0.05e9);
  EXPECT_NEAR(parameters("smollm3-3b"), 3.08e9, 0.01e9);
  EXPECT_NEAR(parameters("ministral3-8b"), 8.49e9, 0.05e9);
  EXPECT_NEAR(parameters("glm4.5-air"), 106.9e9, 0.5e9);
  EXPECT_NEAR(parameters("glm4-9b"), 9.40e9, 0.02e9);
}

TEST(Mixture, GivesTheTypesOfARealFile) {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  const fs::path base = cache != nullptr ? fs::path(cache) : fs::path(home != nullptr ? home : "") / ".cache";
  const fs::path path = base / "steelyard/models/gemma-3-270m-q4_k_m.gguf";
  if (!fs::exists(path)) GTEST_SKIP() << path << " has not been fetched";
  const GgufFile real = GgufFile::open(path);
  const std::vector<SynthTensor> ours =
      synth_tensors(find_synth_shape("gemma3-270m"), parse_mixture("Q4_K_M"));
  ASSERT_EQ(ours.size(), real.tensors().size());
  for (const SynthTensor& t : ours) {
    const GgufTensor* theirs = real.find_tensor(t.name);
    ASSERT_NE(theirs, nullptr) << t.name;
    EXPECT_EQ(dtype_info(t.type).name, dtype_info(theirs->type).name) << t.name;
    EXPECT_EQ(t.bytes(), theirs->bytes) << t.name;
  }
}

TEST(Mixture, FollowsTheRules) {
  const Mixture m = parse_mixture("Q4_k_M");
  const auto type = [&](std::string_view name, std::uint32_t layer, std::uint32_t layers,
                        std::uint64_t columns = 1024, bool tied = false) {
    return tensor_type(m, {name, layer, layers, columns, true, tied});
  };
  EXPECT_EQ(type("output.weight", 0, 32), DType::Q6_K);
  EXPECT_EQ(type("token_embd.weight", 0, 32), DType::Q4_K);
  EXPECT_EQ(type("token_embd.weight", 0, 32, 1024, true), DType::Q6_K);
  EXPECT_EQ(type("blk.0.attn_q.weight", 0, 32), DType::Q4_K);
  // 32 layers: 0–3 and 28–31 get more, between them 6, 9, 12 …
  for (std::uint32_t i = 0; i < 32; ++i) {
    const bool more = i < 4 || i >= 28 || i % 3 == 0;
    EXPECT_EQ(type("blk.0.attn_v.weight", i, 32), more ? DType::Q6_K : DType::Q4_K) << i;
    EXPECT_EQ(type("blk.0.attn_qkv.weight", i, 32), more ? DType::Q6_K : DType::Q4_K) << i;
    EXPECT_EQ(type("blk.0.ffn_down.weight", i, 32), more ? DType::Q6_K : DType::Q4_K) << i;
  }
  EXPECT_EQ(type("blk.0.attn_v.weight", 10, 80), DType::Q5_K);
  EXPECT_EQ(type("blk.0.ffn_down.weight", 10, 80), DType::Q4_K);
  // Columns that 256 doesn't divide, then columns that 32 doesn't divide either.
  EXPECT_EQ(type("blk.0.attn_q.weight", 0, 32, 576), DType::Q5_0);
  EXPECT_EQ(type("output.weight", 0, 32, 576), DType::Q8_0);
  EXPECT_EQ(type("blk.0.attn_q.weight", 0, 32, 100), DType::F16);
  EXPECT_EQ(tensor_type(parse_mixture("q5_k"), {"a", 0, 1, 96}), DType::Q5_1);
  EXPECT_EQ(tensor_type(parse_mixture("q2_k"), {"a", 0, 1, 96}), DType::IQ4_NL);
  EXPECT_EQ(tensor_type(parse_mixture("q8_0"), {"a", 0, 1, 40}), DType::F16);
  EXPECT_EQ(tensor_type(m, {"blk.0.attn_norm.weight", 0, 32, 1024, false}), DType::F32);
}

}  // namespace
}  // namespace steelyard
