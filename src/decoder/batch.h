// What the engine asks of one step: chunks of sequences. Views only, and submit() copies what it needs: but
// for masks, the memory is the engine's again when it returns.
#pragma once

#include <cstdint>
#include <span>

#include "device/step.h"

namespace steelyard {

// Some consecutive tokens of one sequence: a prefill chunk, or one decode token.
struct Chunk {
  std::uint32_t slot;           // the sequence's slot; at most one chunk a slot and step
  std::int32_t first_position;  // of tokens[0]; everything before it is already in the state
  std::span<const std::int32_t>
      tokens;  // ids, or {kLastSample}: the token that the previous step sampled for this slot
  // By group: the sequence's page ids (entry p: positions p·page_tokens …), long enough for the chunk's last
  // position.
  std::span<const std::span<const std::int32_t>> block_tables;
  // Results: `want` (any of Want) for the last `n_outputs` tokens of the chunk; 0: none (a prompt's inner
  // chunk).
  std::uint32_t n_outputs = 0;
  Want want = Want::none;
  SamplingParams sampling;
  const std::uint32_t* mask = nullptr;  // see StepOutput; stays until the step's wait() returned
};

// Outputs are numbered in the order of the chunks, inside a chunk by position.
struct Batch {
  std::span<const Chunk> chunks;
};

}  // namespace steelyard
