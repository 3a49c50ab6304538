// The step block: everything a launch needs that changes from step to step. Views into memory of the caller
// (decoder/), which stays put until the step's results were read. No ownership; plain data, so a device can
// copy it as it is.
#pragma once

#include <cstdint>
#include <span>

namespace steelyard {

inline constexpr std::int32_t kLastSample = -1;  // as a row's token: the last token sampled for its slot

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

enum class Want : std::uint8_t { sample = 1, logits = 2, hidden = 4 };

struct StepSequence {
  std::uint32_t slot;       // 0 … StepLimits::slots - 1; no two sequences of a step share one
  std::uint32_t first_row;  // its rows are contiguous, positions ascending by one
  std::uint32_t n_rows;
  std::int32_t first_position;
};

struct StepOutput {
  std::uint32_t row;
  std::uint32_t sequence;  // index into StepBlock::sequences
  std::uint8_t want;       // bits of Want
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
};

// Results of one step, valid until the executable's next wait, logits and hidden until its next launch. index
// = that of StepBlock::outputs.
struct StepResult {
  std::span<const std::int32_t> tokens;  // -1 where no sample was wanted
  std::span<const float> logits;         // [outputs, vocab]; rows that didn't want logits are unspecified
  std::span<const float>
      hidden;  // [outputs, n_embd], the head's input after its norm; empty unless one was wanted
  std::int64_t nanoseconds = 0;  // device time of the step
};

}  // namespace steelyard
