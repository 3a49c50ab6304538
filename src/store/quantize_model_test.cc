#include "store/quantize_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <map>

#include "base/dtype.h"
#include "base/error.h"
#include "base/temporary_folder.h"
#include "gguf/writer.h"
#include "quant/quant.h"
#include "store/synth.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class QuantizeModel : public ::testing::Test {
 protected:
  GgufFile synth(const std::string& type, const std::string& shape = "tiny-llama") {
    const fs::path path = folder_ / (shape + "-" + type + ".gguf");
    write_synthetic_model({.shape = shape, .type = type, .vocabulary = true}, path);
    return GgufFile::open(path);
  }
  GgufFile quantized(const GgufFile& file, const QuantizeOptions& options) {
    const fs::path path = folder_ / "out.gguf";
    write_quantized(file, choose_types(file, options), options, path);
    return GgufFile::open(path);
  }
  std::string refused(const GgufFile& file, const QuantizeOptions& options) {
    try {
      quantized(file, options);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  }

  const TemporaryFolder temporary_{"quantize"};
  const fs::path folder_ = temporary_.path();
};

std::vector<float> floats(const GgufFile& file, const GgufTensor& t) {
  std::vector<float> out(t.shape.elements());
  dequantize(t.type, file.data(t).data(), out.size(), out.data());
  return out;
}

// Every block type, in one thread and in three: the same bytes as the tensor quantised at once, everything
// else kept.
TEST_F(QuantizeModel, WritesEveryTypeAndKeepsTheRest) {
  const GgufFile file = synth("f32");
  for (const DType type : {DType::F16, DType::Q8_0, DType::Q5_1, DType::Q4_K, DType::IQ4_XS})
    for (const unsigned threads : {1u, 3u}) {
      SCOPED_TRACE(dtype_info(type).name);
      const GgufFile out = quantized(file, {.mixture = {type, Mixture::Size::uniform}, .threads = threads});
      ASSERT_EQ(out.tensors().size(), file.tensors().size());
      EXPECT_EQ(out.metadata().entries().size(),
                file.metadata().entries().size() + 1);  // the version of the blocks
      EXPECT_EQ(out.metadata().require_uint("general.file_type"),
                mixture_file_type({type, Mixture::Size::uniform}));
      for (const GgufTensor& t : out.tensors()) {
        const GgufTensor& from = *file.find_tensor(t.name);
        EXPECT_EQ(t.shape, from.shape);
        const bool matrix = t.shape.n_dims == 2 && t.name.find("norm") == std::string::npos;
        EXPECT_EQ(t.type, matrix ? fitting_type(type, t.shape.columns()) : from.type) << t.name;
        std::vector<std::byte> want(t.bytes);
        quantize(t.type, floats(file, from).data(), t.shape.elements(), want.data());
        EXPECT_TRUE(std::ranges::equal(out.data(t), want)) << t.name;
      }
    }
}

TEST_F(QuantizeModel, RulesComeFirstThenOutputAndEmbedding) {
  const GgufFile file = synth("f16");
  const QuantizeOptions options{.mixture = parse_mixture("q4_0"),
                                .rules = {parse_type_rule("attn_[qk]\\.=q8_0"), parse_type_rule("attn=q5_0"),
                                          parse_type_rule("attn_norm=f32")},
                                .output = DType::F16,
                                .embedding = DType::Q5_1};
  std::map<std::string, DType> types;
  for (const TensorChange& c : choose_types(file, options)) types[c.tensor->name] = c.to;
  EXPECT_EQ(types.at("blk.0.attn_q.weight"), DType::Q8_0);
  EXPECT_EQ(types.at("blk.0.attn_v.weight"), DType::Q5_0);
  EXPECT_EQ(types.at("blk.0.ffn_up.weight"), DType::Q4_0);
  const bool tied = !types.contains("output.weight");
  EXPECT_EQ(types.at("token_embd.weight"), tied ? DType::F16 : DType::Q5_1);
  for (const char* wrong : {"", "=q8_0", "attn", "attn=q9", "(=q8_0"})
    EXPECT_THROW(parse_type_rule(wrong), Error);
}

TEST_F(QuantizeModel, WhatHasLostSomethingIsNotQuantisedAgainUnasked) {
  const GgufFile file = synth("q4_0");
  QuantizeOptions options{.mixture = parse_mixture("q8_0")};
  EXPECT_THAT(refused(file, options), HasSubstr("--allow-requantize"));
  EXPECT_FALSE(fs::exists(folder_ / "out.gguf"));
  options.requantize = true;
  EXPECT_EQ(refused(file, options), "");
  EXPECT_EQ(refused(synth("q8_0"), {.mixture = parse_mixture("q4_0")}), "");  // near enough to what it was
  EXPECT_EQ(refused(file, {.mixture = parse_mixture("q4_0")}), "");           // as it is
}

TEST_F(QuantizeModel, DamagedAndInterruptedWritesLeaveNothing) {
  const fs::path path = folder_ / "nan.gguf";
  {
    GgufWriter writer(path);
    writer.add_string("general.architecture", "llama");
    const std::uint64_t dims[] = {64, 2};
    writer.add_tensor("blk.0.ffn_up.weight", dims, DType::F32);
    std::vector<float> values(128, 1.0f);
    values[70] = std::nanf("");
    writer.write(std::as_bytes(std::span(values)));
    writer.finish();
  }
  EXPECT_THAT(refused(GgufFile::open(path), {.mixture = parse_mixture("q8_0")}),
              HasSubstr("no finite numbers"));
  QuantizeOptions stopped{.mixture = parse_mixture("q8_0")};
  stopped.progress = [](std::uint64_t, std::uint64_t) { throw_error(ErrorKind::cancelled, "stopped"); };
  EXPECT_EQ(refused(synth("f16"), stopped), "stopped");
  EXPECT_FALSE(fs::exists(folder_ / "out.gguf"));
}

TEST(Mixture, TheUsualOnes) {
  const auto type = [](const char* name, std::string_view tensor, std::uint32_t layer,
                       std::uint32_t group = 1, std::uint32_t experts = 0) {
    return tensor_type(usual_mixture(parse_mixture(name)), {.name = tensor,
                                                            .layer = layer,
                                                            .layers = 32,
                                                            .columns = 1024,
                                                            .heads_per_kv_head = group,
                                                            .experts = experts});
  };
  EXPECT_EQ(type("q4_0", "output.weight", 0), DType::Q6_K);
  EXPECT_EQ(type("q8_0", "output.weight", 0), DType::Q8_0);
  EXPECT_EQ(type("f16", "output.weight", 0), DType::F16);
  EXPECT_EQ(type("q4_k", "blk.0.ffn_down.weight", 0), DType::Q6_K);  // q4_k_m
  EXPECT_EQ(type("q4_k_s", "blk.3.ffn_down.weight", 3), DType::Q5_K);
  EXPECT_EQ(type("q4_k_s", "blk.4.ffn_down.weight", 4), DType::Q4_K);
  EXPECT_EQ(type("q4_k_s", "blk.3.attn_v.weight", 3), DType::Q5_K);
  EXPECT_EQ(type("q5_k_m", "blk.9.attn_v.weight", 9), DType::Q6_K);
  EXPECT_EQ(type("q5_k_s", "blk.9.attn_v.weight", 9), DType::Q5_K);
  EXPECT_EQ(type("q3_k_m", "blk.1.attn_v.weight", 1), DType::Q5_K);
  EXPECT_EQ(type("q3_k_m", "blk.2.attn_v.weight", 2), DType::Q4_K);
  EXPECT_EQ(type("q3_k_m", "blk.1.ffn_down.weight", 1), DType::Q5_K);
  EXPECT_EQ(type("q3_k_m", "blk.9.attn_output.weight", 9), DType::Q4_K);
  EXPECT_EQ(type("q3_k_l", "blk.9.attn_output.weight", 9), DType::Q5_K);
  EXPECT_EQ(type("q2_k", "blk.9.attn_v.weight", 9), DType::Q3_K);
  EXPECT_EQ(type("q2_k", "blk.9.attn_v.weight", 9, 4), DType::Q4_K);
  EXPECT_EQ(type("q2_k", "blk.9.ffn_down.weight", 9), DType::Q3_K);
  EXPECT_EQ(type("q2_k", "blk.9.ffn_up.weight", 9), DType::Q2_K);
  EXPECT_EQ(type("iq4_xs", "blk.3.ffn_down.weight", 3), DType::Q5_K);
  EXPECT_EQ(type("q4_k_m", "blk.9.attn_k.weight", 9, 4, 8), DType::Q8_0);
  EXPECT_EQ(type("q4_k_m", "blk.9.attn_output.weight", 9, 4, 8), DType::Q5_K);
  EXPECT_EQ(mixture_file_type(usual_mixture(parse_mixture("q4_k"))), 15u);
  EXPECT_EQ(mixture_file_type(usual_mixture(parse_mixture("q2_k"))), 10u);
  EXPECT_EQ(mixture_file_type(usual_mixture(parse_mixture("q5_0"))), 8u);
}

}  // namespace
}  // namespace steelyard
