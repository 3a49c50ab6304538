// Every op on the CPU, or on the GPU that STEELYARD_TEST_DEVICE names ("cuda0"), against the slow reference,
// over types, shapes and modes.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <string>

#include "base/dtype.h"
#include "base/error.h"
#include "device/device.h"
#include "device/testing/harness.h"
#include "device/testing/test_device.h"
#include "program/program.h"
#include "program/testing.h"
#include "program/uses.h"

namespace steelyard {
namespace {

using namespace testing;

std::vector<std::int32_t> random_tokens(std::mt19937& random, std::uint32_t n, std::uint32_t vocab) {
  std::vector<std::int32_t> tokens(n);
  for (auto& t : tokens) t = static_cast<std::int32_t>(random() % vocab);
  return tokens;
}

// Rows of logits as a step returned them.
std::vector<std::vector<float>> logits_rows(const Harness& harness, std::uint32_t vocab) {
  const auto all = harness.last().logits;
  std::vector<std::vector<float>> rows;
  for (std::size_t i = 0; i + vocab <= all.size(); i += vocab)
    rows.emplace_back(all.begin() + i, all.begin() + i + vocab);
  return rows;
}

// A matrix without some of its rows.
template <typename T>
std::vector<T> without(const std::vector<T>& rows, const std::vector<bool>& left_out) {
  std::vector<T> kept;
  for (std::size_t i = 0; i < rows.size(); ++i)
    if (!left_out.at(i)) kept.push_back(rows[i]);
  return kept;
}

// Runs mixed steps (prefill chunks and single tokens of three sequences) and compares every buffer that every
// op wrote, and the logits of a second executable that nobody watches: it may run other kernels. Where
// rounding chooses the experts of a row, that row isn't compared (of one layer, so that no other row sees
// it).
void compare_with_reference(Device& device, const Shape& shape, DType type, DType kv_type, Mode mode,
                            double tolerance) {
  const Program model = tiny_program(shape, type, kv_type);
  const RandomWeights weights = random_weights(model, 11);
  const StepLimits limits{.rows = 80, .outputs = 80, .slots = 3, .context = 300};
  Harness harness(device, model, weights, limits, mode);
  Harness unwatched(device, model, weights, limits, mode);
  if (const std::string report = unwatched.executable().report(); !report.empty())
    std::printf("[   runs   ] %s\n", report.c_str());  // the output tells which kernels were tested
  Reference reference(model, weights.floats);
  std::mt19937 random(5);
  std::size_t undecided = 0, all = 0;
  const std::vector<std::vector<std::pair<std::uint32_t, std::uint32_t>>> steps = {{{0, 70}},
                                                                                   {{0, 1}, {1, 33}, {2, 5}},
                                                                                   {{1, 1}},
                                                                                   {{2, 40}, {0, 40}},
                                                                                   {{0, 1}, {1, 1}, {2, 1}},
                                                                                   {{0, 75}},
                                                                                   {{1, 12}},
                                                                                   {{2, 19}, {1, 1}},
                                                                                   {{0, 1}},
                                                                                   {{2, 5}},
                                                                                   {{1, 3}, {0, 1}},
                                                                                   {{0, 74}},
                                                                                   {{0, 1}},
                                                                                   {{2, 1}}};
  for (const auto& step : steps) {
    std::vector<Feed> feeds;
    for (const auto& [sequence, n] : step) feeds.push_back({sequence, random_tokens(random, n, shape.vocab)});
    const auto got = harness.step(feeds);
    std::vector<std::map<BufferId, Matrix>> want(model.ops.size());
    std::vector<bool> left_out;
    for (const auto& feed : feeds) {
      const auto part = reference.feed(feed.sequence, feed.tokens);
      left_out.insert(left_out.end(), reference.undecided().begin(), reference.undecided().end());
      for (std::size_t i = 0; i < part.size(); ++i)
        for (const auto& [id, rows] : part[i])
          want[i][id].insert(want[i][id].end(), rows.begin(), rows.end());
    }
    if (mode == Mode::exact) left_out.assign(left_out.size(), false);
    undecided += std::count(left_out.begin(), left_out.end(), true), all += left_out.size();
    for (std::size_t i = 0; i < want.size(); ++i)
      for (const auto& [id, rows] : got[i])
        EXPECT_LT(relative_error(without(rows, left_out), without(want[i].at(id), left_out)), tolerance)
            << dtype_info(type).name << ", step of " << step.size() << " sequences, op "
            << op_name(model.ops[i]) << ", buffer " << model.buffers[id].name;
    unwatched.step_unwatched(feeds);
    const auto head = std::find_if(model.ops.begin(), model.ops.end(),
                                   [](const Op& op) { return role(op) == OpRole::logits; });
    EXPECT_LT(relative_error(without(logits_rows(unwatched, shape.vocab), left_out),
                             without(want[head - model.ops.begin()].begin()->second, left_out)),
              tolerance)
        << dtype_info(type).name << ", unwatched step of " << step.size() << " sequences";
  }
  EXPECT_LT(undecided, all / 2) << "too few rows were compared";
}

// Float activations and sums: what is left is float rounding.
constexpr double kExact = 2e-5;
// One-byte activations in blocks of 32: half a step of max/127 each, through six products one after another.
constexpr double kFast = 3e-2;

class OpTypes : public ::testing::TestWithParam<DType> {};

TEST_P(OpTypes, ExactModeAgreesWithTheReference) {
  Shape shape;
  if (dtype_info(GetParam()).block == 256)
    shape.width = 256, shape.head_dim = 64, shape.n_rot = 64, shape.n_ff = 512;
  compare_with_reference(*make_test_device(), shape, GetParam(), DType::F32, Mode::exact, kExact);
}
TEST_P(OpTypes, FastModeStaysNearTheReference) {
  Shape shape;  // columns that the GPU's fast layouts take: multiples of 64, or of 256
  if (dtype_info(GetParam()).block == 256)
    shape.width = 256, shape.head_dim = 128, shape.n_rot = 128, shape.n_ff = 512;
  else
    shape.width = 128, shape.n_ff = 320, shape.head_dim = shape.n_rot = 64;
  compare_with_reference(*make_test_device(), shape, GetParam(), DType::F16, Mode::fast, kFast);
}
// Experts of every type. Their widths are those of blocks of every type.
constexpr Shape kExpertsOfAType = {.width = 256,
                                   .head_dim = 64,
                                   .n_ff = 256,
                                   .n_rot = 64,
                                   .routing = {.n_experts = 8, .n_used = 2, .renormalise = true}};
TEST_P(OpTypes, ExpertsAgreeWithTheReferenceInExactMode) {
  compare_with_reference(*make_test_device(), kExpertsOfAType, GetParam(), DType::F32, Mode::exact, kExact);
}
TEST_P(OpTypes, ExpertsStayNearTheReferenceInFastMode) {
  compare_with_reference(*make_test_device(), kExpertsOfAType, GetParam(), DType::F16, Mode::fast, kFast);
}
INSTANTIATE_TEST_SUITE_P(AllTypes, OpTypes, ::testing::ValuesIn(dtypes().begin(), dtypes().end()),
                         [](const auto& info) { return std::string(dtype_info(info.param).name); });

struct NamedShape {
  const char* name;
  Shape shape;
};
class OpShapes : public ::testing::TestWithParam<NamedShape> {};

TEST_P(OpShapes, ExactModeAgreesWithTheReference) {
  compare_with_reference(*make_test_device(), GetParam().shape, DType::Q8_0, DType::F32, Mode::exact, kExact);
}
TEST_P(OpShapes, FastModeStaysNearTheReference) {
  Shape shape = GetParam().shape;  // with widths that the GPU's fast kernels take
  shape.width = 128, shape.n_ff = 320;
  if (shape.head_dim == 32) shape.head_dim = shape.n_rot = 64;
  compare_with_reference(*make_test_device(), shape, DType::Q8_0, DType::F16, Mode::fast, kFast);
}
TEST_P(OpShapes, EightBitStateStaysNearTheReference) {
  compare_with_reference(*make_test_device(), GetParam().shape, DType::Q8_0, DType::Q8_0, Mode::fast, kFast);
}
INSTANTIATE_TEST_SUITE_P(
    Features, OpShapes,
    ::testing::Values(
        NamedShape{"llama", {.pairs = RopeSpec::Pairs::adjacent}},
        NamedShape{"factors", {.pairs = RopeSpec::Pairs::adjacent, .rope_factors = true}},
        NamedShape{"qwen2", {.qkv_bias = true, .out_bias = true}},
        NamedShape{"granite", {.qkv_bias = true, .out_bias = true, .ffn_bias = true}},
        NamedShape{"qwen3", {.head_norms = true}},
        NamedShape{"gemma2",
                   {.post_norms = true,
                    .tied = true,
                    .window = 48,
                    .softcap = 5,
                    .final_softcap = 3,
                    .logit_scale = 0.5f,
                    .activation = Activation::gelu_tanh}},
        NamedShape{"gemma3",
                   {.n_heads = 4,
                    .n_kv_heads = 1,
                    .head_norms = true,
                    .post_norms = true,
                    .tied = true,
                    .window = 20,
                    .activation = Activation::gelu_tanh}},
        NamedShape{"sinks", {.sinks = true, .window = 33}},
        NamedShape{"mixture", {.routing = {.n_experts = 4, .n_used = 2}}},
        NamedShape{"gpt_oss",
                   {.qkv_bias = true,
                    .out_bias = true,
                    .sinks = true,
                    .window = 33,
                    .activation = Activation::clamped_swiglu,
                    .routing = {.n_experts = 40,  // more than a warp has lanes
                                .n_used = 4,
                                .scoring = Scoring::softmax_of_chosen},
                    .router_bias = true,
                    .expert_bias = true}},
        NamedShape{"deepseek",
                   {.routing = {.n_experts = 16,
                                .n_used = 3,
                                .scoring = Scoring::sigmoid,
                                .n_groups = 4,
                                .n_groups_used = 2,
                                .renormalise = true,
                                .scale = 2.5f},
                    .choice_bias = true,
                    .shared_expert = true}},
        NamedShape{"one_expert",
                   {.activation = Activation::gelu_tanh,
                    .routing = {.n_experts = 3, .n_used = 1, .renormalise = true}}},
        NamedShape{"all_experts", {.layers = 2, .routing = {.n_experts = 2, .n_used = 2, .scale = 0.5f}}},
        NamedShape{"partial_rotation", {.head_dim = 64, .n_rot = 32, .q_growth = 0.3f, .ramp = true}},
        NamedShape{"many_heads", {.n_heads = 9, .n_kv_heads = 3}},
        NamedShape{"one_group", {.n_heads = 6, .n_kv_heads = 6}},
        NamedShape{"wide_heads", {.n_heads = 2, .n_kv_heads = 1, .head_dim = 256, .n_rot = 256}}),
    [](const auto& info) { return std::string(info.param.name); });

// Which rows and columns differ most plainly.
std::string differing(const std::vector<std::vector<float>>& got, const Matrix& want) {
  std::size_t count = 0, top = want.size(), bottom = 0, left = ~std::size_t{0}, right = 0;
  for (std::size_t r = 0; r < want.size(); ++r)
    for (std::size_t c = 0; c < want[r].size(); ++c)
      if (!(std::abs(got[r][c] - want[r][c]) < 0.1 + 0.1 * std::abs(want[r][c]))) {
        ++count, top = std::min(top, r), bottom = std::max(bottom, r);
        left = std::min(left, c), right = std::max(right, c);
      }
  if (count == 0) return {};
  return "; " + std::to_string(count) + " values, rows " + std::to_string(top) + " to " +
         std::to_string(bottom) + ", columns " + std::to_string(left) + " to " + std::to_string(right);
}

// Sizes at which a GPU's kernels run in tiles, rounds and clusters, against the same device's exact mode. The
// CPU, which is slow at exact mode, takes fewer rows.
TEST_P(OpTypes, FastModeStaysNearExactModeAtScale) {
  const DType type = GetParam();
  const bool gpu = tests_a_gpu();
  const Shape shape{.width = 512,
                    .n_heads = 8,
                    .n_kv_heads = 2,
                    .head_dim = 64,
                    .n_ff = gpu ? 6144u : 768u,
                    .vocab = 2000,
                    .n_rot = 64};
  const Program model = tiny_program(shape, type, DType::F16);
  const RandomWeights weights = random_weights(model, 21);
  const std::uint32_t rows = gpu ? 1100 : 70;
  const StepLimits limits{.rows = rows, .outputs = rows, .slots = 2, .context = 2 * rows + 200};
  const auto device = make_test_device();
  Harness fast(*device, model, weights, limits, Mode::fast),
      exact(*device, model, weights, limits, Mode::exact);
  std::mt19937 random(6);
  for (const std::uint32_t n : {rows, 8u, 12u, 24u, 48u, rows / 2}) {
    const std::vector<Feed> feeds = {{0, random_tokens(random, n - n / 3, shape.vocab)},
                                     {1, random_tokens(random, n / 3, shape.vocab)}};
    const auto got = fast.step(feeds), want = exact.step(feeds);
    for (std::size_t op = 0; op < want.size(); ++op)
      for (const auto& [id, rows_of] : want[op]) {
        Matrix values;
        for (const auto& row : rows_of) values.emplace_back(row.begin(), row.end());
        EXPECT_LT(relative_error(got[op].at(id), values), kFast)
            << n << " rows, op " << op_name(model.ops[op]) << ", buffer " << model.buffers[id].name
            << differing(got[op].at(id), values);
      }
  }
}

// Logits of every position, computed under one schedule.
std::vector<std::vector<float>> logits_of(Device& device, Mode mode, const std::vector<std::int32_t>& tokens,
                                          const std::vector<std::uint32_t>& chunks, bool company,
                                          std::uint64_t page_seed, const Routing& routing = {}) {
  const Shape shape{.width = 256,
                    .n_heads = 4,
                    .n_kv_heads = 2,
                    .head_dim = 64,
                    .n_ff = 512,
                    .vocab = 75,
                    .n_rot = 64,
                    .routing = routing};
  const Program model = tiny_program(shape, DType::Q4_K, mode == Mode::exact ? DType::F32 : DType::F16);
  const RandomWeights weights = random_weights(model, 3);
  const StepLimits limits{.rows = 128, .outputs = 128, .slots = 4, .context = 400};
  Harness harness(device, model, weights, limits, mode, page_seed);
  std::mt19937 random(page_seed);
  std::vector<std::vector<float>> out;
  std::size_t at = 0;
  for (const std::uint32_t n : chunks) {
    std::vector<Feed> feeds;
    if (company) feeds.push_back({2, random_tokens(random, 1 + random() % 20, shape.vocab)});
    const std::size_t first = company ? feeds[0].tokens.size() : 0;
    feeds.push_back({1, {tokens.begin() + at, tokens.begin() + at + n}});
    if (company) feeds.push_back({0, random_tokens(random, 1, shape.vocab)});
    harness.step(feeds);
    const auto all = harness.last().logits;
    for (std::size_t i = first; i < first + n; ++i)
      out.emplace_back(all.begin() + i * shape.vocab, all.begin() + (i + 1) * shape.vocab);
    at += n;
  }
  return out;
}

TEST(Invariance, SameBitsAloneInCompanyAndInAnyChunks) {
  std::mt19937 random(9);
  const auto tokens = random_tokens(random, 200, 75);
  const std::vector<std::uint32_t> whole = {100, 100}, ones(200, 1), mixed = {1, 2, 33, 64, 31, 7, 50, 12};
  const auto one = make_test_device(1), two = make_test_device(2);
  for (const Mode mode : {Mode::invariant, Mode::exact}) {
    const auto want = logits_of(*two, mode, tokens, whole, false, 1);
    EXPECT_EQ(logits_of(*two, mode, tokens, ones, false, 2), want);
    EXPECT_EQ(logits_of(*two, mode, tokens, mixed, true, 3), want);
    EXPECT_EQ(logits_of(*one, mode, tokens, mixed, false, 4), want);
  }
}

TEST(Invariance, ExpertsGiveTheSameBitsInAnyCompany) {
  std::mt19937 random(9);
  const auto tokens = random_tokens(random, 100, 75);
  const Routing routing = {.n_experts = 8, .n_used = 2, .renormalise = true};
  const auto one = make_test_device(1), two = make_test_device(2);
  for (const Mode mode : {Mode::invariant, Mode::exact}) {
    const auto want = logits_of(*two, mode, tokens, {100}, false, 1, routing);
    EXPECT_EQ(logits_of(*two, mode, tokens, std::vector<std::uint32_t>(100, 1), false, 2, routing), want);
    EXPECT_EQ(logits_of(*one, mode, tokens, {1, 2, 33, 64}, true, 3, routing), want);
  }
}

// A last part of a model, which embeds nothing: its logits are all 0, so that greedy sampling takes the first
// token that the penalty for those of the history leaves.
TEST(Executable, APartWithoutAnEmbeddingKnowsItsTokens) {
  Program model = tiny_program({}, DType::F32, DType::F32);
  std::erase_if(model.ops,
                [](const Op& op) { return role(op) == OpRole::input || role(op) == OpRole::layer; });
  const RandomWeights weights = random_weights(model, 1);
  const auto device = make_test_device();
  Harness harness(*device, model, weights, {.rows = 8, .outputs = 8, .slots = 2, .context = 64}, Mode::fast);
  std::int32_t token = 0;
  for (std::int32_t position = 0; position < 3; ++position, token = kLastSample) {
    const std::vector<std::uint32_t> row_sequence = {0};
    const std::vector<std::int32_t> tokens = {token}, positions = {position}, tables = {0};
    const std::vector<StepSequence> sequences = {{1, 0, 1, position}};
    const std::vector<StepOutput> outputs = {
        {0, 0, Want::sample, {.temperature = 0, .presence_penalty = 1, .repeat_last_n = -1}, nullptr}};
    harness.executable().launch({tokens, positions, row_sequence, sequences, outputs, tables, 1,
                                 static_cast<std::uint64_t>(position)});
    EXPECT_EQ(harness.executable().wait().tokens[0], position + 1);
  }
}

TEST(Executable, RefusesBlocksThatBreakItsLimits) {
  const Program model = tiny_program({}, DType::F32, DType::F32);
  const RandomWeights weights = random_weights(model, 1);
  const auto device = make_test_device();
  Harness harness(*device, model, weights, {.rows = 8, .outputs = 8, .slots = 2, .context = 64}, Mode::fast);
  EXPECT_THROW(harness.step({{0, std::vector<std::int32_t>(9, 1)}}), Error);
  EXPECT_THROW(harness.step({{1, {kLastSample}}}), Error);
}

}  // namespace
}  // namespace steelyard
