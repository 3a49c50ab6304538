// The kernel that resolves a step's tokens, on the CPU (emulation/).
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "device/cuda/emulation/emulation.h"
// The kernel itself.
#include "device/cuda/general/tokens.cu"

namespace {

using ::testing::ElementsAre;

TEST(Tokens, LastSamplesAreResolvedAndTheHistoryIsKept) {
  constexpr std::uint32_t kContext = 8;
  // Slot 2: two given tokens at 3 and 4; slot 0: on from its last sample, at 5; then a row that the step
  // hasn't.
  std::vector<std::int32_t> tokens = {11, 12, -1, 99}, positions = {3, 4, 5, 7}, last = {40, 41, 42},
                            history(3 * kContext, 0);
  const std::vector<std::uint32_t> row_sequence = {0, 0, 1, 1};
  const std::vector<DeviceSequence> sequences = {{2, 0, 2, 3}, {0, 2, 1, 5}};
  const StepHeader header{3, 2, 0, 0, 0, {}};
  StepView step{};
  step.header = &header, step.positions = positions.data(), step.row_sequence = row_sequence.data();
  step.sequences = sequences.data(), step.tokens = tokens.data();
  emulation::launch({2, 1, 1}, 256, 0,  // a block more than the rows need
                    [&] {
                      general_tokens(step, {tokens.data(), history.data(), last.data(), kContext});
                    });
  EXPECT_THAT(tokens, ElementsAre(11, 12, 40, 99));
  EXPECT_THAT(last, ElementsAre(40, 41, 42));
  std::vector<std::int32_t> want(3 * kContext, 0);
  want[2 * kContext + 3] = 11, want[2 * kContext + 4] = 12, want[5] = 40;
  EXPECT_EQ(history, want);
}

// More rows than a block has threads.
TEST(Tokens, EveryRowOfALongStepIsKept) {
  constexpr std::uint32_t kRows = 300;
  std::vector<std::int32_t> tokens(kRows), positions(kRows), history(kRows, -1), last = {7};
  for (std::uint32_t i = 0; i < kRows; i++) tokens[i] = static_cast<std::int32_t>(i * 3), positions[i] = i;
  const std::vector<std::uint32_t> row_sequence(kRows, 0);
  const DeviceSequence sequence{0, 0, kRows, 0};
  const StepHeader header{kRows, 1, 0, 0, 0, {}};
  StepView step{};
  step.header = &header, step.positions = positions.data(), step.row_sequence = row_sequence.data();
  step.sequences = &sequence, step.tokens = tokens.data();
  emulation::launch({2, 1, 1}, 256, 0, [&] {
    general_tokens(step, {tokens.data(), history.data(), last.data(), kRows});
  });
  EXPECT_EQ(history, tokens);
}

}  // namespace
