#include "device/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "device/sample_rules.h"

namespace steelyard::cpu {
namespace {

constexpr float kNever = -std::numeric_limits<float>::infinity();

std::span<const std::int32_t> penalised(const SamplingParams& p, std::span<const std::int32_t> history) {
  if (p.repeat_last_n < 0 || history.size() <= static_cast<std::size_t>(p.repeat_last_n)) return history;
  return history.last(static_cast<std::size_t>(p.repeat_last_n));
}

// Repetition penalty (CTRL, arXiv:1909.05858) once per distinct token; presence and frequency as OpenAI's API
// defines them. A token's first occurrence in the window stands for all of them, so no table is needed.
void apply_penalties(const SamplingParams& p, std::span<const std::int32_t> window, std::span<float> logits,
                     std::span<Candidate> scratch) {
  if (p.repeat_penalty == 1.0f && p.presence_penalty == 0.0f && p.frequency_penalty == 0.0f) return;
  const std::size_t n = window.size();
  for (std::size_t i = 0; i < n; ++i) scratch[i].token = window[i];
  std::sort(scratch.begin(), scratch.begin() + n, [](auto& a, auto& b) { return a.token < b.token; });
  for (std::size_t i = 0; i < n;) {
    std::size_t end = i + 1;
    while (end < n && scratch[end].token == scratch[i].token) ++end;
    const std::int32_t token = scratch[i].token;
    if (token >= 0 && static_cast<std::size_t>(token) < logits.size()) {
      float& x = logits[token];
      x = x > 0 ? x / p.repeat_penalty : x * p.repeat_penalty;
      x -= p.presence_penalty + p.frequency_penalty * static_cast<float>(end - i);
    }
    i = end;
  }
}

void apply_mask(const std::uint32_t* mask, std::span<float> logits) {
  if (!mask) return;
  for (std::size_t i = 0; i < logits.size(); ++i)
    if (!(mask[i / 32] >> (i % 32) & 1)) logits[i] = kNever;
}

bool better(const Candidate& a, const Candidate& b) {
  return a.logit != b.logit ? a.logit > b.logit : a.token < b.token;
}

// The k best of those above `least`, sorted. A heap of k while scanning; whole blocks are turned away by
// their maximum.
std::span<Candidate> top_k(const Kernels& kernels, std::span<const float> logits, std::size_t k, float least,
                           std::span<Candidate> scratch) {
  constexpr std::size_t kBlock = 128;
  std::size_t n = 0;
  for (std::size_t block = 0; block < logits.size(); block += kBlock) {
    const std::size_t end = std::min(block + kBlock, logits.size());
    const float bar = n == k ? scratch[0].logit : least;
    if (!(kernels.max(logits.data() + block, static_cast<std::uint32_t>(end - block)) > bar)) continue;
    for (std::size_t i = block; i < end; ++i) {
      if (!(logits[i] > (n == k ? scratch[0].logit : least))) continue;  // of equals the first stays
      if (n == k) std::pop_heap(scratch.begin(), scratch.begin() + n--, better);
      scratch[n++] = {logits[i], static_cast<std::int32_t>(i)};
      std::push_heap(scratch.begin(), scratch.begin() + n, better);
    }
  }
  std::sort(scratch.begin(), scratch.begin() + n, better);
  return scratch.first(n);
}

double sum_of_exponentials(std::span<const Candidate> c, double temperature) {
  double sum = 0;
  for (const auto& x : c) sum += std::exp((x.logit - c[0].logit) / temperature);
  return sum;
}

// Keeps the candidates whose surprise is nearest the entropy until their mass reaches p. `c` is sorted, and
// stays so.
std::span<Candidate> typical(std::span<Candidate> c, float p) {
  if (p >= 1.0f || c.size() < 2) return c;
  const double log_sum = std::log(sum_of_exponentials(c, 1.0)), top = c[0].logit;
  double entropy = 0;
  for (const auto& x : c) {
    const double lp = x.logit - top - log_sum;
    entropy -= std::exp(lp) * lp;
  }
  const auto distance = [&](const Candidate& x) { return std::abs(-(x.logit - top - log_sum) - entropy); };
  std::sort(c.begin(), c.end(), [&](const Candidate& a, const Candidate& b) {
    return distance(a) != distance(b) ? distance(a) < distance(b) : better(a, b);
  });
  double mass = 0;
  std::size_t n = 0;
  while (n < c.size() && (n == 0 || mass < p)) mass += std::exp(c[n++].logit - top - log_sum);
  std::sort(c.begin(), c.begin() + n, better);
  return c.first(n);
}

// The fewest best candidates whose mass reaches p (nucleus sampling, arXiv:1904.09751).
std::span<Candidate> top_p(std::span<Candidate> c, float p) {
  if (p >= 1.0f || c.size() < 2) return c;
  const double wanted = p * sum_of_exponentials(c, 1.0);
  double mass = 0;
  std::size_t n = 0;
  while (n < c.size() && (n == 0 || mass < wanted)) mass += std::exp(double{c[n++].logit} - c[0].logit);
  return c.first(n);
}

// Candidates at least p times as likely as the best (arXiv:2407.01082).
std::span<Candidate> min_p(std::span<Candidate> c, float p) {
  if (p <= 0.0f || c.empty()) return c;
  const double least = c[0].logit + std::log(std::min(1.0, double{p}));
  std::size_t n = 1;
  while (n < c.size() && c[n].logit >= least) ++n;
  return c.first(n);
}

std::int32_t draw(std::span<const Candidate> c, float temperature, double u) {
  const double wanted = u * sum_of_exponentials(c, temperature);
  double mass = 0;
  for (const auto& x : c) {
    mass += std::exp((x.logit - c[0].logit) / double{temperature});
    if (mass > wanted) return x.token;
  }
  return c.back().token;
}

}  // namespace

std::int32_t sample(const Kernels& kernels, const SamplingParams& p, const SampleInput& in,
                    std::span<Candidate> scratch) {
  apply_penalties(p, penalised(p, in.history), in.logits, scratch);
  apply_mask(in.mask, in.logits);
  const auto vocab = static_cast<std::uint32_t>(in.logits.size());
  const std::uint32_t best = kernels.argmax(in.logits.data(), vocab);
  if (best == vocab) return kNoNumber;
  if (p.temperature <= 0.0f || p.top_k == 1) return static_cast<std::int32_t>(best);
  const std::size_t k = p.top_k > 0 ? std::min<std::size_t>(p.top_k, vocab) : vocab;
  // Without a top-k: what is e^50 times rarer than the best isn't worth sorting.
  const float least = p.top_k > 0 ? kNever : in.logits[best] - 50.0f * std::max(1.0f, p.temperature);
  std::span<Candidate> c = top_k(kernels, in.logits, k, least, scratch);
  if (c.empty()) return static_cast<std::int32_t>(best);
  c = min_p(top_p(typical(c, p.typical_p), p.top_p), p.min_p);
  return draw(c, p.temperature, uniform(p.seed, in.position));
}

}  // namespace steelyard::cpu
