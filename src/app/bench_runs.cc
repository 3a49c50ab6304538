#include "app/bench_runs.h"

#include <algorithm>
#include <chrono>
#include <random>
#include <span>

#include "decoder/batch.h"
#include "device/step.h"

namespace steelyard {

BenchRuns::BenchRuns(DirectModel& model) : model_(model) {
  std::mt19937 random(7);
  std::uniform_int_distribution<std::int32_t> id(0,
                                                 static_cast<std::int32_t>(model.program().vocab_size) - 1);
  tokens_.resize(model.limits().context);
  for (auto& t : tokens_) t = id(random);
}

std::vector<double> BenchRuns::rates(const BenchCase& c, std::uint32_t repeat) {
  for (std::uint32_t s = 0; s < c.streams; ++s) prefill(s, 0, c.depth);
  once(c);  // warms caches and the threads up
  std::vector<double> rates;
  for (std::uint32_t i = 0; i < repeat; ++i) {
    const auto start = std::chrono::steady_clock::now();
    once(c);
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    rates.push_back(c.tokens * c.streams / seconds);
  }
  std::sort(rates.begin(), rates.end());
  return rates;
}

void BenchRuns::once(const BenchCase& c) {
  if (c.kind == BenchCase::Kind::generate)
    generate(c);
  else
    for (std::uint32_t s = 0; s < c.streams; ++s) prefill(s, c.depth, c.tokens);
  model_.finish();
}

void BenchRuns::prefill(std::uint32_t slot, std::uint32_t first, std::uint32_t count) {
  for (std::uint32_t at = 0; at < count; at += model_.limits().rows) {
    const std::uint32_t n = std::min(model_.limits().rows, count - at);
    Chunk chunk = model_.chunk(slot, first + at, std::span(tokens_).subspan(first + at, n));
    if (at + n == count) {
      chunk.n_outputs = 1;
      chunk.want = Want::sample;
    }
    model_.push({&chunk, 1});
  }
}

// Each step's tokens are the samples of the step before, as in a conversation. A model in stages gets the
// streams in as many groups in turn, as the engine does it.
void BenchRuns::generate(const BenchCase& c) {
  std::vector<Chunk> chunks;
  for (std::uint32_t s = 0; s < c.streams; ++s) {
    chunks.push_back(model_.chunk(s, c.depth, std::span(tokens_).subspan(s % tokens_.size(), 1)));
    chunks.back().n_outputs = 1;
    chunks.back().want = Want::sample;
  }
  static constexpr std::int32_t kLast[] = {kLastSample};
  const std::size_t groups = std::min<std::size_t>(model_.stages(), chunks.size());
  for (std::uint32_t t = 0; t < c.tokens; ++t)
    for (std::size_t g = 0; g < groups; ++g) {
      const std::size_t begin = chunks.size() * g / groups, end = chunks.size() * (g + 1) / groups;
      const std::span<Chunk> group = std::span(chunks).subspan(begin, end - begin);
      model_.push(group);
      for (Chunk& chunk : group) {
        ++chunk.first_position;
        chunk.tokens = kLast;
      }
    }
}

}  // namespace steelyard
