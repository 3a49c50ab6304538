// The step block: everything a launch needs that changes from step to step. Views into memory of the caller
// (decoder/), which stays put until the step's results were read. No ownership; plain data, so a device can
// copy it as it is.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace steelyard {

struct Program;
struct StepLimits;

inline constexpr std::int32_t kLastSample = -1;  // as a row's token: the last token sampled for its slot
inline constexpr std::int32_t kNoNumber = -2;    // as a sample: the row's logits aren't numbers

struct SamplingParams {
  float temperature = 0.8f;  // 0: greedy
  std::int32_t top_k = 40;   // 0: off
  float top_p = 0.9f;        // 1: off
  float min_p = 0.0f;        // 0: off
  float typical_p = 1.0f;    // 1: off (locally typical sampling, arXiv:2202.00666)
  float repeat_penalty = 1.0f;
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  std::int32_t repeat_last_n =
      64;                  // tokens of history that the three penalties see; 0: none, -1: all that is kept
  std::uint64_t seed = 0;  // with the position it fixes the draw: same seed, same text, whatever else runs
};

// What a row's output is wanted for; any of them together.
enum class Want : std::uint8_t { none = 0, sample = 1, logits = 2, hidden = 4 };
constexpr Want operator|(Want a, Want b) {
  return static_cast<Want>(static_cast<std::uint8_t>(a) | static_cast<std::uint8_t>(b));
}
constexpr bool has(Want set, Want one) {
  return (static_cast<std::uint8_t>(set) & static_cast<std::uint8_t>(one)) != 0;
}

struct StepSequence {
  std::uint32_t slot;       // 0 … StepLimits::slots - 1; no two sequences of a step share one
  std::uint32_t first_row;  // its rows are contiguous, positions ascending by one
  std::uint32_t n_rows;
  std::int32_t first_position;
};

struct StepOutput {
  std::uint32_t row;
  std::uint32_t sequence;  // index into StepBlock::sequences
  Want want;
  SamplingParams sampling;
  const std::uint32_t* mask;  // vocabulary bits that may be sampled, ⌈vocab/32⌉ words, or nullptr
};

struct StepBlock {
  std::span<const std::int32_t> tokens;         // [rows] a token id or kLastSample
  std::span<const std::int32_t> positions;      // [rows]
  std::span<const std::uint32_t> row_sequence;  // [rows] index into sequences
  std::span<const StepSequence> sequences;
  std::span<const StepOutput> outputs;  // rows ascending
  // Page ids: table of group g, sequence s starts at block_tables[(g * sequences.size() + s) *
  // pages_per_sequence]; entry p covers positions [p * page_tokens, (p + 1) * page_tokens); -1 where a window
  // has passed.
  std::span<const std::int32_t> block_tables;
  std::uint32_t pages_per_sequence = 0;
  // Ascends from step to step; every part of a model gets the same. From the caller, who alone knows which
  // launches are one step.
  std::uint64_t number = 0;
};

// Entries that a sequence's block table may have: pages for the whole context, and one ahead.
std::uint32_t most_pages(const StepLimits& limits, std::uint32_t page_tokens);

// What the steps that an executable took mean for the next one. One thread.
class TakenSteps {
 public:
  explicit TakenSteps(std::uint32_t slots) : sampled_by_(slots, 0) {}
  void take(const StepBlock& block);  // it was checked and launched
  void reset_slot(std::uint32_t slot);
  std::uint64_t next_number() const { return next_number_; }  // the least that the next step may have
  // A step that was taken samples for the slot, so that kLastSample stands for a token.
  bool has_sample(std::uint32_t slot) const { return sampled_by_[slot] > 0; }
  // How many steps must have sampled before the block's rows have their tokens, as a StepCount says it
  // (link.h); 0: none of them goes on from a sample.
  std::uint64_t samples_needed(const StepBlock& block) const;

 private:
  std::uint64_t next_number_ = 0;
  std::vector<std::uint64_t>
      sampled_by_;  // by slot: one more than the last step that sampled for it; 0: none
};

// Everything a kernel trusts, so that a wrong block is an error and not a crash. pages: by group, how many
// exist. Throws Error(bad_input). Allocates nothing.
void check_block(const StepBlock& block, const Program& program, const StepLimits& limits,
                 std::uint32_t page_tokens, std::span<const std::uint32_t> pages, const TakenSteps& taken);

// Results of one step, valid until the executable's next launch() or wait(). index = that of
// StepBlock::outputs.
struct StepResult {
  std::span<const std::int32_t> tokens;  // -1 where no sample was wanted, or kNoNumber
  std::span<const float> logits;         // [outputs, vocab]; rows that didn't want logits are unspecified
  std::span<const float>
      hidden;  // [outputs, n_embd], the head's input after its norm; empty unless one was wanted
  std::int64_t nanoseconds = 0;  // device time of the step
};

}  // namespace steelyard
