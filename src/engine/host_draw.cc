#include "engine/host_draw.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "text/vocabulary.h"

namespace steelyard {

TokenId HostDraw::draw(std::span<const float> logits, const SamplingParams& params,
                       std::span<const TokenBias> biases, std::span<const TokenId> history,
                       const std::uint32_t* mask) {
  if (!kernels_) kernels_ = &cpu::kernels(cpu::choose_isa());
  logits_.assign(logits.begin(), logits.end());
  if (scratch_.size() < logits.size() + history.size())
    scratch_.resize(logits.size() + history.size() + 4096);
  for (const TokenBias& b : biases) logits_[static_cast<std::size_t>(b.token)] += b.add;
  return cpu::sample(*kernels_, params,
                     {.logits = logits_,
                      .history = history,
                      .position = static_cast<std::int32_t>(history.size()),
                      .mask = mask},
                     scratch_);
}

TokenChances chances_of(std::span<const float> logits, TokenId token, std::uint32_t n_top) {
  const float best = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float x : logits) sum += std::exp(x - best);
  const double log_sum = best + std::log(sum);
  const auto chance = [&](TokenId id) {
    return TokenChance{id, static_cast<float>(logits[static_cast<std::size_t>(id)] - log_sum)};
  };
  TokenChances c{.drawn = chance(token)};
  const std::uint32_t most = std::min<std::uint32_t>(n_top, kMostChances);
  for (std::size_t i = 0; i < logits.size() && most > 0; ++i) {
    if (c.n_top == most && !(logits[i] > logits[c.top[most - 1].token])) continue;
    std::uint32_t at = c.n_top < most ? c.n_top++ : most - 1;
    for (; at > 0 && logits[i] > logits[c.top[at - 1].token]; --at) c.top[at] = c.top[at - 1];
    c.top[at].token = static_cast<TokenId>(i);
  }
  for (std::uint32_t i = 0; i < c.n_top; ++i) c.top[i] = chance(c.top[i].token);
  return c;
}

}  // namespace steelyard
