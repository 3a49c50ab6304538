// The kernels of attention for more than one row on the CPU (emulation/), against a plain one: what they
// compute, which rows each takes, and in a build with a sanitizer how their warps share memory.
#include <gtest/gtest.h>

#include "device/cuda/emulation/attention.h"
// The kernels themselves; their headers find CUDA's, common/ptx.cuh and hopper/gemm/wgmma.cuh in emulation/.
#include "device/cuda/hopper/attention/attention_sm90a.cu"
#include "device/cuda/hopper/attention/prefill_sm90a.cu"

namespace {

using namespace steelyard::cuda;
using namespace steelyard::cuda::hopper;
using emulation::Aligned;
using emulation::normal;
using emulation::Vector;

struct Sequence {
  std::uint32_t position, rows;  // of the first; this step's
};

struct Case {
  const char* name;
  std::uint32_t head_dim, group, kv_heads;
  std::vector<Sequence> sequences;
  std::uint32_t window = 0;
  float softcap = 0;
  bool sinks = false;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class Attention {
 public:
  explicit Attention(const Case& c)
      : c_(c), heads_(c.group * c.kv_heads), pages_(c.kv_heads, c.head_dim, c.sequences.size() * kStride) {
    for (std::uint32_t s = 0; s < c.sequences.size(); s++)
      for (std::uint32_t r = 0; r < c.sequences[s].rows; r++) {
        row_sequence_.push_back(s);
        positions_.push_back(static_cast<std::int32_t>(c.sequences[s].position + r));
      }
    header_ = {rows(), static_cast<std::uint32_t>(c.sequences.size()), 1, kStride, 0, {}};
    for (std::uint32_t i = 0; i < c.sequences.size() * kStride; i++)
      table_.push_back(static_cast<std::int32_t>(c.sequences.size() * kStride - 1 - i));
    q_ = Aligned<float>(rows() * width()), out = Aligned<float>(rows() * width());
    for (std::size_t i = 0; i < rows() * width(); i++) q_[i] = normal(), out[i] = NAN;
    for (std::uint32_t i = 0; i < heads_; i++) sinks_.push_back(normal());
    // What lies behind a sequence's pages, or before its window, isn't there.
    for (std::uint32_t s = 0; s < c.sequences.size(); s++)
      for (std::uint32_t p = 0; p < kStride; p++) {
        const std::uint32_t first = c.sequences[s].position + 1;
        if (p * kPageTokens >= c.sequences[s].position + c.sequences[s].rows ||
            (c.window && first > c.window && (p + 1) * kPageTokens <= first - c.window))
          table_[s * kStride + p] = -1;
      }
  }

  std::uint32_t rows() const { return static_cast<std::uint32_t>(positions_.size()); }
  std::uint32_t tile_rows() const { return kPrefillWarpgroups(c_.head_dim) * (64 / c_.group); }
  std::uint32_t tiles() const { return rows() / tile_rows() + 1; }  // one may be empty
  std::uint32_t threads() const { return kPrefillWarpgroups(c_.head_dim) * 128; }

  void run_prompt() {
    arguments_.prefill_rows = tile_rows();
    run({c_.kv_heads, tiles(), 1}, threads(), kPrefillSharedBytes(c_.head_dim),
        of_width(prefill_64, prefill_128, prefill_256));
  }
  // All rows, or those that the kernel for prompts leaves.
  void run_whole(bool with_prompts) {
    arguments_.prefill_rows = with_prompts ? 0 : tile_rows();
    const std::uint32_t tiles = (rows() + 16 / c_.group - 1) / (16 / c_.group);
    run({(tiles + 3) / 4, c_.kv_heads, 1}, 128, 4 * kPageTokens * (c_.head_dim + 8) * 2,
        of_width(attention_64, attention_128, attention_256));
  }
  // A row's keys dealt out to eight warps. Returns the result as the next product's input.
  Aligned<std::uint8_t> run_split() {
    Aligned<std::uint8_t> halves(kGemvInputBytes(units_of(width()), rows()));
    Aligned<float> partials(rows() * heads_ * 8 * (c_.head_dim + 4));
    arguments_.partials = partials.data(), arguments_.workers = 8;
    arguments_.x16 = halves.data(), arguments_.max_rows = rows();
    run({2, c_.kv_heads, rows()}, 128, 4 * kPageTokens * (c_.head_dim + 8) * 2,
        of_width(attention_split_64, attention_split_128, attention_split_256));
    const auto combine = of_width(attention_combine_64, attention_combine_128, attention_combine_256);
    emulation::launch({heads_, rows(), 1}, c_.head_dim, 0, [&] { combine(arguments_, step_); });
    return halves;
  }

  // Relative error of a head of a row.
  double error(std::uint32_t row, std::uint32_t head) const {
    const std::size_t at = std::size_t{row} * width() + head * c_.head_dim;
    const emulation::Query query{table_.data() + row_sequence_[row] * kStride,
                                 static_cast<std::uint32_t>(positions_[row]),
                                 head / c_.group,
                                 c_.window,
                                 kScale,
                                 c_.softcap,
                                 c_.sinks ? std::exp(sinks_[head]) : 0};
    const Vector want = emulation::attend(pages_, query, q_.data() + at);
    double error = 0, norm = 0;
    for (std::uint32_t d = 0; d < c_.head_dim; d++)
      error += std::pow(out[at + d] - want[d], 2), norm += std::pow(want[d], 2);
    return std::sqrt(error / norm);
  }

  // Whether the row's tile has rows of one sequence.
  bool is_prompt(std::uint32_t row) const {
    const std::uint32_t tokens = tile_rows(), first = row / tokens * tokens;
    return row_sequence_[first] == row_sequence_[std::min(first + tokens, rows()) - 1];
  }

  bool untouched(std::uint32_t row) const { return std::isnan(out[std::size_t{row} * width()]); }

  std::uint32_t heads() const { return heads_; }
  std::uint32_t width() const { return heads_ * c_.head_dim; }
  Aligned<float> out{0};

 private:
  static constexpr std::uint32_t kStride = 8;
  static constexpr float kScale = 0.125f;

  template <typename Kernel>
  Kernel* of_width(Kernel* d64, Kernel* d128, Kernel* d256) const {
    return c_.head_dim == 64 ? d64 : c_.head_dim == 128 ? d128 : d256;
  }
  void run(emulation::Index grid, unsigned threads, std::size_t bytes,
           void (*kernel)(AttentionTileArg, StepView, KvView)) {
    arguments_.q = q_.data(), arguments_.out = out.data();
    arguments_.sinks = c_.sinks ? sinks_.data() : nullptr;
    arguments_.n_heads = heads_, arguments_.group = c_.group, arguments_.window = c_.window;
    arguments_.scale = kScale, arguments_.softcap = c_.softcap;
    step_.header = &header_, step_.positions = positions_.data(), step_.row_sequence = row_sequence_.data();
    step_.block_tables = table_.data();
    emulation::launch(grid, threads, bytes, [&] { kernel(arguments_, step_, pages_.view); });
  }

  const Case c_;
  const std::uint32_t heads_;
  StepHeader header_{};
  AttentionTileArg arguments_{};
  StepView step_{};
  std::vector<std::uint32_t> row_sequence_;
  std::vector<std::int32_t> positions_, table_;
  std::vector<float> sinks_;
  const emulation::Pages pages_;
  Aligned<float> q_{0};
};

class AttentionTest : public ::testing::TestWithParam<Case> {
 protected:
  AttentionTest() : attention(GetParam()) {}
  bool has_threads() const {
    return emulation::has_threads(GetParam().kv_heads * attention.tiles() * attention.threads());
  }
  void expect_right(std::uint32_t row) const {
    for (std::uint32_t head = 0; head < attention.heads(); head++)
      ASSERT_LT(attention.error(row, head), 3e-3) << "row " << row << ", head " << head;
  }
  Attention attention;
};
constexpr const char* kThreadsMissing = "needs more threads than the system gives";

TEST_P(AttentionTest, PromptsAndTheRestAreEveryRow) {
  if (!has_threads()) GTEST_SKIP() << kThreadsMissing;
  attention.run_prompt();
  std::uint32_t prompts = 0;
  for (std::uint32_t row = 0; row < attention.rows(); row++) {
    if (attention.is_prompt(row))
      prompts++, expect_right(row);
    else
      EXPECT_TRUE(attention.untouched(row)) << "row " << row;
  }
  EXPECT_NE(prompts, 0u);
  const std::vector<float> before(attention.out.data(),
                                  attention.out.data() + attention.rows() * attention.width());
  attention.run_whole(false);
  for (std::uint32_t row = 0; row < attention.rows(); row++) {
    expect_right(row);
    if (!attention.is_prompt(row)) continue;
    EXPECT_EQ(std::memcmp(attention.out.data() + row * attention.width(),
                          before.data() + row * attention.width(), attention.width() * sizeof(float)),
              0)
        << "computed again";
  }
}

TEST_P(AttentionTest, AWarpATile) {
  if (!has_threads()) GTEST_SKIP() << kThreadsMissing;
  attention.run_whole(true);
  for (std::uint32_t row = 0; row < attention.rows(); row++) expect_right(row);
}

INSTANTIATE_TEST_SUITE_P(
    Emulated, AttentionTest,
    ::testing::Values(Case{"heads_of_128", 128, 4, 1, {{0, 75}}},
                      Case{"later_part_of_a_prompt", 128, 4, 1, {{330, 40}}},
                      Case{"heads_of_256", 256, 4, 1, {{100, 50}}, 90},
                      Case{"group_of_3_window", 64, 3, 2, {{70, 63}}, 100},
                      Case{"group_of_5_softcap", 64, 5, 1, {{10, 36}}, 0, 5.f},
                      Case{"own_keys_sinks", 64, 1, 1, {{3, 190}}, 0, 0, true},
                      Case{"several_sequences", 128, 16, 1, {{0, 20}, {100, 1}, {40, 15}, {7, 12}}}),
    [](const auto& info) { return std::string(info.param.name); });

class AttentionSplitTest : public ::testing::TestWithParam<Case> {};

TEST_P(AttentionSplitTest, IsAttentionAndTheNextInput) {
  Attention attention(GetParam());
  if (!emulation::has_threads(2 * GetParam().kv_heads * attention.rows() * 128))
    GTEST_SKIP() << kThreadsMissing;
  const Aligned<std::uint8_t> passed = attention.run_split();
  const GemvInput input(passed.data(), units_of(attention.width()), attention.rows());
  for (std::uint32_t row = 0; row < attention.rows(); row++) {
    for (std::uint32_t head = 0; head < attention.heads(); head++)
      ASSERT_LT(attention.error(row, head), 3e-3) << "row " << row << ", head " << head;
    for (std::uint32_t i = 0; i < attention.width(); i++)
      EXPECT_EQ(emulation::half_of(input, row, i),
                static_cast<_Float16>(attention.out[row * attention.width() + i]));
  }
}

INSTANTIATE_TEST_SUITE_P(
    Emulated, AttentionSplitTest,
    ::testing::Values(Case{"heads_of_64_window", 64, 3, 2, {{300, 1}, {20, 1}, {64, 1}}, 100},
                      Case{"heads_of_128_sinks", 128, 4, 1, {{400, 1}, {0, 2}}, 0, 0, true},
                      Case{"heads_of_256_softcap", 256, 2, 1, {{130, 2}}, 0, 5.f}),
    [](const auto& info) { return std::string(info.param.name); });

}  // namespace
