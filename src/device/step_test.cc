#include "device/step.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/error.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;

constexpr std::uint32_t kPage = 4;

// A block that is right: slot 2 with positions 6 to 8, then slot 0 with position 9. Pages hold 4 tokens; the
// second group keeps a window of 3.
struct Blocks {
  Blocks() {
    program.vocab_size = 50;
    program.groups = {{"full", 0}, {"window 3", 3}};
  }
  StepBlock block() const {
    return {tokens, positions, row_sequence, sequences, outputs, tables, pages_per_sequence, number};
  }
  void check() const { check_block(block(), program, limits, kPage, pages, taken); }
  std::string refusal() const {
    try {
      check();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      return e.what();
    }
    return "accepted";
  }

  Program program;
  StepLimits limits{.rows = 4, .outputs = 3, .slots = 3, .context = 16};
  std::vector<std::uint32_t> pages = {5, 4};
  TakenSteps taken{3};
  std::vector<std::int32_t> tokens = {1, 2, 3, 49}, positions = {6, 7, 8, 9};
  std::vector<std::uint32_t> row_sequence = {0, 0, 0, 1};
  std::vector<StepSequence> sequences = {{2, 0, 3, 6}, {0, 3, 1, 9}};
  std::vector<StepOutput> outputs = {{2, 0, Want::sample, {}, nullptr}, {3, 1, Want::logits, {}, nullptr}};
  std::vector<std::int32_t> tables = {4,  0, 1, 2,  3, 2,   // full: slot 2, slot 0
                                      -1, 0, 1, -1, 2, 3};  // window: both have left the first page behind
  std::uint32_t pages_per_sequence = 3;
  std::uint64_t number = 0;
};

TEST(CheckBlock, TakesABlockThatIsRight) { EXPECT_EQ(Blocks().refusal(), "accepted"); }

struct Broken {
  const char* name;
  std::function<void(Blocks&)> how;
  const char* says;
};
class CheckBlock : public ::testing::TestWithParam<Broken> {};

TEST_P(CheckBlock, NamesTheRule) {
  Blocks b;
  GetParam().how(b);
  EXPECT_THAT(b.refusal(), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Rules, CheckBlock,
    ::testing::Values(
        Broken{"no_tokens", [](Blocks& b) { b.tokens.clear(); }, "no tokens"},
        Broken{"too_many_tokens", [](Blocks& b) { b.limits.rows = 3; }, "3 sequences and 3 tokens at most"},
        Broken{"too_many_sequences", [](Blocks& b) { b.limits.slots = 1; },
               "1 sequences and 4 tokens at most"},
        Broken{"too_many_outputs", [](Blocks& b) { b.limits.outputs = 1; }, "1 outputs at most"},
        Broken{"short_positions", [](Blocks& b) { b.positions.pop_back(); }, "arrays of different lengths"},
        Broken{"short_row_sequence", [](Blocks& b) { b.row_sequence.pop_back(); },
               "arrays of different lengths"},
        Broken{"short_tables", [](Blocks& b) { b.tables.pop_back(); }, "tables of the wrong size"},
        Broken{"long_tables",
               [](Blocks& b) {
                 b.pages_per_sequence = 6;  // 16 tokens are 4 pages, and one ahead
                 b.tables.assign(24, 0);
               },
               "tables of the wrong size"},
        Broken{"unknown_slot", [](Blocks& b) { b.sequences[1].slot = 3; }, "slot 3, but there are 3"},
        Broken{"slot_twice", [](Blocks& b) { b.sequences[1].slot = 2; }, "two sequences in slot 2"},
        Broken{"gap", [](Blocks& b) { b.sequences[1].first_row = 2; }, "sequence out of place"},
        Broken{"empty_sequence", [](Blocks& b) { b.sequences[1].n_rows = 0; }, "sequence out of place"},
        Broken{"past_the_rows", [](Blocks& b) { b.sequences[1].n_rows = 2; }, "sequence out of place"},
        Broken{"rows_left", [](Blocks& b) { b.sequences[0].n_rows = 2, b.sequences[1].first_row = 2; },
               "rows that aren't their sequence's"},
        Broken{"no_sequence",
               [](Blocks& b) {
                 b.sequences.pop_back(), b.outputs.pop_back();
                 b.tables = {4, 0, 1, -1, 0, 1};
               },
               "rows without a sequence"},
        Broken{"past_the_context", [](Blocks& b) { b.limits.context = 9; }, "9 tokens at most (--context)"},
        Broken{"negative_position", [](Blocks& b) { b.sequences[0].first_position = -1; }, "tokens at most"},
        Broken{"wrong_position", [](Blocks& b) { b.positions[1] = 6; }, "rows that aren't their sequence's"},
        Broken{"wrong_row_sequence", [](Blocks& b) { b.row_sequence[1] = 1; },
               "rows that aren't their sequence's"},
        Broken{"negative_token", [](Blocks& b) { b.tokens[3] = -2; },
               "token -2, but the vocabulary ends at 49"},
        Broken{"large_token", [](Blocks& b) { b.tokens[0] = 50; }, "token 50, but the vocabulary ends at 49"},
        Broken{"no_last_sample", [](Blocks& b) { b.tokens[3] = kLastSample; }, "slot 0 has no last sample"},
        Broken{"late_last_sample", [](Blocks& b) { b.tokens[1] = kLastSample; }, "only the first row"},
        Broken{"lacking_page", [](Blocks& b) { b.tables[2] = -1; }, "lacks page 2 of slot 2 in group full"},
        Broken{"unknown_page", [](Blocks& b) { b.tables[0] = 5; }, "lacks page 0 of slot 2 in group full"},
        Broken{"page_in_the_window", [](Blocks& b) { b.tables[10] = -1; },
               "lacks page 1 of slot 0 in group window 3"},
        Broken{"unknown_page_of_the_window", [](Blocks& b) { b.tables[11] = 4; }, "lacks page 2 of slot 0"},
        Broken{"short_stride",
               [](Blocks& b) {
                 b.pages_per_sequence = 2;
                 b.tables.assign(8, 0);
               },
               "lacks page 2 of slot 2"},
        Broken{"unknown_row", [](Blocks& b) { b.outputs[1].row = 4; }, "unknown row"},
        Broken{"row_of_another", [](Blocks& b) { b.outputs[1].sequence = 0; }, "unknown row"},
        Broken{"unordered_outputs", [](Blocks& b) { std::swap(b.outputs[0], b.outputs[1]); }, "don't ascend"},
        Broken{"number_again",
               [](Blocks& b) {
                 b.number = 7;
                 b.taken.take(b.block());
               },
               "step 7 is given after step 7"}),
    [](const auto& info) { return info.param.name; });

TEST(TakenSteps, KnowWhichSlotsHaveASample) {
  Blocks b;
  b.taken.take(b.block());
  EXPECT_TRUE(b.taken.has_sample(2));
  EXPECT_FALSE(b.taken.has_sample(0));  // it wanted logits
  b.number = 5;                         // numbers may be left out
  b.tokens[0] = kLastSample;
  EXPECT_EQ(b.refusal(), "accepted");
  b.taken.reset_slot(2);
  EXPECT_THAT(b.refusal(), HasSubstr("slot 2 has no last sample"));
}

TEST(Wants, AreSets) {
  constexpr Want both = Want::sample | Want::hidden;
  EXPECT_TRUE(has(both, Want::sample) && has(both, Want::hidden));
  EXPECT_FALSE(has(both, Want::logits) || has(Want::none, Want::sample));
}

}  // namespace
}  // namespace steelyard
