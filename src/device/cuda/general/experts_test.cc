// The experts' kernels on the CPU (emulation/): routing against hand-made answers, and the two ways of
// multiplying against each other and a plain computation.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <random>
#include <vector>

#include "device/cuda/emulation/emulation.h"
// The kernels themselves.
#include "device/cuda/general/experts.cu"

namespace {

using ::testing::ElementsAre;

struct Routed {
  std::vector<std::uint32_t> chosen;
  std::vector<float> weights;
};
Routed route(RouteArg a, const std::vector<float>& scores, std::uint32_t rows, const float* bias = nullptr) {
  Routed r{std::vector<std::uint32_t>(rows * a.n_used), std::vector<float>(rows * a.n_used)};
  a.n_experts = static_cast<std::uint32_t>(scores.size() / rows);
  a.scores = scores.data(), a.choice_bias = bias, a.chosen = r.chosen.data(), a.weights = r.weights.data();
  const StepHeader header{rows, 1, 0, 0, 0, {}};
  emulation::launch({rows + 1, 1, 1}, 32, 0, [&] { general_route(a, {&header, 0}); });  // a row too many
  return r;
}
RouteArg routing(std::int32_t scoring, std::uint32_t n_used) {
  RouteArg a{};
  a.scoring = scoring, a.n_used = n_used, a.n_groups = a.n_groups_used = 1, a.scale = 1;
  return a;
}
const float kLn2 = std::log(2.0f);

TEST(Route, SoftmaxBeforeTheChoiceAndAfter) {
  const std::vector<float> logits = {0, 2 * kLn2, kLn2, 0, 0, 0, 0, 3 * kLn2};
  const Routed before = route(routing(kScoringSoftmax, 2), logits, 2);
  EXPECT_THAT(before.chosen, ElementsAre(1u, 2u, 3u, 0u));
  EXPECT_NEAR(before.weights[0], 0.5f, 1e-6f);
  EXPECT_NEAR(before.weights[2], 8.0f / 11, 1e-6f);
  const Routed after = route(routing(kScoringChosen, 2), logits, 2);
  EXPECT_NEAR(after.weights[0], 2.0f / 3, 1e-6f);
  RouteArg scaled = routing(kScoringSoftmax, 2);
  scaled.renormalise = 1, scaled.scale = 3;
  EXPECT_NEAR(route(scaled, logits, 2).weights[1], 1.0f, 1e-6f);
}

TEST(Route, GroupsAndABiasOfTheChoice) {
  RouteArg a = routing(kScoringChosen, 2);
  a.n_groups = 2, a.n_groups_used = 1;
  EXPECT_THAT(route(a, {5, -4, 2, 3}, 1).chosen, ElementsAre(3u, 2u));
  EXPECT_THAT(route(a, {5, 1, 2, 3}, 1).chosen, ElementsAre(0u, 1u));
  const float bias[] = {0, 1, 0};
  const Routed biased = route(routing(kScoringSigmoid, 1), {2, 0, 1}, 1, bias);
  EXPECT_THAT(biased.chosen, ElementsAre(1u));
  EXPECT_NEAR(biased.weights[0], 0.5f, 1e-6f);
}

TEST(Route, NumbersThatAreNoneChooseEachExpertOnce) {
  const Routed r = route(routing(kScoringSoftmax, 40), std::vector<float>(40, NAN), 1);
  for (std::uint32_t i = 0; i < 40; ++i) EXPECT_EQ(r.chosen[i], i);
}

// Three rows of 48 values, experts of 72: neither is a multiple of a tile.
struct Mixture {
  static constexpr std::uint32_t kRows = 3, kUsed = 2, kExperts = 3, kWidth = 48, kInner = 72;
  explicit Mixture(std::int32_t activation) {
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    for (auto* v : {&gate, &up, &down, &biases, &x, &residual})
      for (float& value : *v) value = normal(random) * (v == &x ? 1.0f : 0.3f);
    const auto matrix = [](const std::vector<float>& w, std::uint32_t rows, std::uint32_t cols) {
      return MatrixArg{reinterpret_cast<const std::uint8_t*>(w.data()), 0, rows, cols, cols * 4, 0};
    };
    a.gate = matrix(gate, kExperts * kInner, kWidth), a.up = matrix(up, kExperts * kInner, kWidth);
    a.down = matrix(down, kExperts * kWidth, kInner);
    a.gate_bias = biases.data(), a.up_bias = a.gate_bias + kExperts * kInner;
    a.down_bias = a.up_bias + kExperts * kInner;
    a.x = x.data(), a.chosen = chosen.data(), a.weights = weights.data();
    a.inner = inner.data(), a.branch = branch.data(), a.order = order.data();
    a.first_entry = first.data(), a.first_tile = tiles.data();
    a.residual = residual.data(), a.out = out.data();
    a.n_experts = kExperts, a.n_used = kUsed, a.n_ff = kInner, a.width = kWidth, a.activation = activation;
  }
  // One after another: a thread for each of a grid's would be too many.
  static void each_block(unsigned columns, unsigned rows, const std::function<void()>& kernel) {
    for (unsigned y = 0; y < rows; ++y)
      for (unsigned x = 0; x < columns; ++x)
        emulation::launch({1, 1, 1}, 256, kExpertsTileBytes, [&, x, y] {
          blockIdx = {x, y, 0};
          kernel();
        });
  }
  std::vector<float> few() {
    const RowsArg rows{&header, 0};
    each_block(kInner / 8, kRows * kUsed, [&] { general_experts_gate_up(a, rows); });
    each_block(kWidth / 8, kRows, [&] { general_experts_down(a, rows); });
    return out;
  }
  std::vector<float> many() {
    const RowsArg rows{&header, 0};
    each_block(1, 1, [&] { general_experts_list(a, rows); });
    each_block(2, 4, [&] { general_experts_gate_up_tile(a); });
    each_block(1, 4, [&] { general_experts_down_tile(a); });
    each_block(1, kRows, [&] { general_experts_add(a, rows); });
    return out;
  }
  double plain(std::uint32_t row, std::uint32_t o) const {
    double sum = residual[row * kWidth + o];
    for (std::uint32_t i = 0; i < kUsed; ++i) {
      const std::uint32_t e = chosen[row * kUsed + i];
      double y = a.down_bias[e * kWidth + o];
      for (std::uint32_t j = 0; j < kInner; ++j) {
        double g = a.gate_bias[e * kInner + j], u = a.up_bias[e * kInner + j];
        for (std::uint32_t c = 0; c < kWidth; ++c) {
          g += double{gate[(e * kInner + j) * kWidth + c]} * x[row * kWidth + c];
          u += double{up[(e * kInner + j) * kWidth + c]} * x[row * kWidth + c];
        }
        const double clamped = std::min(g, 7.0);
        const double act = a.activation == 2 ? clamped / (1 + std::exp(-1.702 * clamped)) *
                                                   (std::min(std::max(u, -7.0), 7.0) + 1)
                                             : g / (1 + std::exp(-g)) * u;
        y += act * down[(e * kWidth + o) * kInner + j];
      }
      sum += weights[row * kUsed + i] * y;
    }
    return sum;
  }

  const StepHeader header{kRows, 1, 0, 0, 0, {}};
  std::vector<float> gate = std::vector<float>(kExperts * kInner * kWidth), up = gate, down = gate;
  std::vector<float> biases = std::vector<float>(kExperts * (2 * kInner + kWidth));
  std::vector<float> x = std::vector<float>(kRows * kWidth), residual = x, out = x;
  // Expert 1 has one entry, expert 2 three, in no order.
  std::vector<std::uint32_t> chosen = {2, 0, 1, 2, 0, 2};
  std::vector<float> weights = {0.5f, 0.25f, 1, 2, -1, 3};
  std::vector<float> inner = std::vector<float>(kRows * kUsed * kInner), branch = inner;
  std::vector<std::uint32_t> order = std::vector<std::uint32_t>(kRows * kUsed), first = order, tiles = order;
  ExpertsArg a{};
};

TEST(Experts, FewAndManyRowsAreThePlainComputation) {
  Mixture m(2);
  const std::vector<float> many = m.many();
  EXPECT_THAT(std::vector<std::uint32_t>(m.first.begin(), m.first.begin() + 4), ElementsAre(0u, 2u, 3u, 6u));
  EXPECT_THAT(std::vector<std::uint32_t>(m.tiles.begin(), m.tiles.begin() + 4), ElementsAre(0u, 1u, 2u, 3u));
  const std::vector<float> few = m.few();
  for (std::uint32_t row = 0; row < Mixture::kRows; ++row)
    for (std::uint32_t o = 0; o < Mixture::kWidth; ++o) {
      const double want = m.plain(row, o);
      EXPECT_NEAR(few[row * Mixture::kWidth + o], want, 1e-4 * (1 + std::abs(want))) << row << ", " << o;
      EXPECT_NEAR(many[row * Mixture::kWidth + o], want, 2e-2 * (1 + std::abs(want))) << row << ", " << o;
    }
}

template <int T>
void compare_eights(std::uint32_t block, std::uint32_t block_bytes) {
  std::mt19937 random(T);
  const std::uint32_t cols = 2 * block;
  std::vector<std::uint8_t> bytes(2 * block_bytes + 16);
  // Rows may begin at any address that suits the block's halves; blocks of type 39 have none.
  for (int at = 0; at < 8; at += T == 39 ? 1 : 2) {
    for (auto& b : bytes) b = static_cast<std::uint8_t>(random());
    for (std::uint32_t b = 0; b < 2 && T != 39; ++b)  // scales of a usual size
      for (const std::uint32_t half : {0u, 2u, block_bytes - 2})
        if ((T == 14) == (half == block_bytes - 2) && (half != 2 || T == 12 || T == 13))
          bytes[at + b * block_bytes + half + 1] = 0x2c;
    const MatrixArg w{bytes.data() + at, T, 1, cols, 2 * block_bytes, 0};
    for (std::uint32_t group = 0; group < cols / 32; ++group) {
      float want[32], got[32];
      load32(w, 0, group, want);
      for (std::uint32_t k = 0; k < 4; ++k) load8<T>(w.data, group * 4 + k, got + 8 * k);
      for (int i = 0; i < 32; ++i) EXPECT_EQ(got[i], want[i]) << T << ", group " << group << ", " << i;
    }
  }
}

TEST(Experts, EightWeightsAreThoseOfTheBlock) {
  compare_eights<2>(32, 18);
  compare_eights<8>(32, 34);
  compare_eights<12>(256, 144);
  compare_eights<13>(256, 176);
  compare_eights<14>(256, 210);
  compare_eights<39>(32, 17);
}

}  // namespace
