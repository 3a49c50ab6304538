// Draws tokens from logits that a step has brought to the host: for requests that want more than the device's
// sampler can say or do, log-probabilities and biases. By the CPU's own sampler, so that the same request
// gives the same text. One thread; memory is taken at first use.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "device/cpu/kernels.h"
#include "device/cpu/sampler.h"
#include "device/step.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard {

class HostDraw {
 public:
  // `history`: the tokens so far; the drawn one comes after them. kNoNumber where a logit is none.
  TokenId draw(std::span<const float> logits, const SamplingParams& params, std::span<const TokenBias> biases,
               std::span<const TokenId> history, const std::uint32_t* mask = nullptr);

 private:
  const cpu::Kernels* kernels_ = nullptr;  // chosen at first use
  std::vector<float> logits_;
  std::vector<cpu::Candidate> scratch_;
};

// How likely the model itself, before any option, found `token`, and the `n_top` most likely ones (at most
// kMostChances; likeliest first).
TokenChances chances_of(std::span<const float> logits, TokenId token, std::uint32_t n_top);

}  // namespace steelyard
