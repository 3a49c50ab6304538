// Draws a token from one row of logits. Order: penalties, mask, top-k, typical, top-p, min-p, temperature,
// draw. Deterministic: the draw depends on seed and position only. Thread-safe on disjoint scratch; nothing
// is allocated.
#pragma once

#include <cstdint>
#include <span>

#include "device/cpu/kernels.h"
#include "device/step.h"

namespace steelyard::cpu {

struct Candidate {
  float logit;
  std::int32_t token;
};

struct SampleInput {
  std::span<float> logits;                // [vocab]; changed by the penalties
  std::span<const std::int32_t> history;  // tokens so far, the newest last
  std::int32_t position;                  // of the token to draw
  const std::uint32_t* mask = nullptr;    // StepOutput::mask
};

// kNoNumber where a logit is NaN or +infinity. scratch: at least as many entries as logits and history have.
std::int32_t sample(const Kernels& kernels, const SamplingParams& params, const SampleInput& input,
                    std::span<Candidate> scratch);

}  // namespace steelyard::cpu
