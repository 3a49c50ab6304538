// Two ranks that trade sums and logits, each a launch of its own, on the CPU (emulation/).
#include <gtest/gtest.h>

#include <cmath>
#include <thread>
#include <vector>

#include "device/cuda/emulation/emulation.h"
// The kernels themselves.
#include "device/cuda/general/exchange.cu"

namespace {

constexpr std::uint32_t kRows = 2, kWidth = 700, kMostRows = 3, kUses = 2;

// One box that both ranks read and write, as in page-locked memory; or a box for each, which both write.
struct Boxes {
  explicit Boxes(std::uint32_t n, std::uint32_t turn_floats) : rows(n), sent(n) {
    for (auto& r : rows) r.assign(2 * turn_floats, NAN);
    for (auto& s : sent) s.assign(2 * kMostRows, 0);
  }
  ExchangeArg of_rank(std::uint32_t rank, std::uint32_t turn_floats, std::uint32_t writer_floats,
                      const std::uint32_t* abort) {
    ExchangeArg e{};
    e.readers = static_cast<std::uint32_t>(rows.size());
    for (std::uint32_t i = 0; i < e.readers; i++) e.to[i] = {rows[i].data(), sent[i].data()};
    e.mine = e.to[rank % e.readers];
    e.abort = abort, e.turn_floats = turn_floats, e.writer_floats = writer_floats;
    e.writers = 2, e.rank = rank, e.turns = 2, e.most_rows = kMostRows, e.chunks = 1, e.uses = kUses;
    return e;
  }
  std::vector<std::vector<float>> rows;
  std::vector<std::vector<std::uint64_t>> sent;
};

struct Rank {
  std::vector<float> partial, out;
};

float partial_of(std::uint32_t rank, std::uint32_t step, std::uint32_t turn, std::uint32_t i) {
  return std::sin(static_cast<float>(i + 1) * (rank + 1.5f)) + static_cast<float>(step * 10 + turn);
}

void run_sums(Rank& r, ExchangeArg e, std::uint32_t steps, const float* bias, const float* norm,
              const std::vector<float>& residual) {
  for (std::uint32_t step = 0; step < steps; step++)
    for (e.turn = 0; e.turn < kUses; e.turn++) {
      const StepHeader header{kRows, 1, 0, 0, step, step, 0, 0};
      for (std::uint32_t i = 0; i < r.partial.size(); i++) r.partial[i] = partial_of(e.rank, step, e.turn, i);
      const RowsArg rows{&header, 0};
      emulation::launch({kRows, 1, 1}, kExchangeThreads, 0,
                        [&] { general_give(e, r.partial.data(), kWidth, 0, kWidth, rows); });
      emulation::launch({kRows, 1, 1}, kExchangeThreads, 0, [&] {
        general_sum(e, r.partial.data(), bias, norm, 1e-5f, residual.data(), kWidth, r.out.data(), rows);
      });
    }
}

TEST(Exchange, BothRanksHaveTheSum) {
  std::vector<float> bias(kWidth), norm(kWidth), residual(kRows * kWidth);
  for (std::uint32_t i = 0; i < kWidth; i++) bias[i] = 0.25f * (i % 7), norm[i] = 1 + 0.01f * (i % 5);
  for (std::uint32_t i = 0; i < residual.size(); i++) residual[i] = static_cast<float>(i % 11);
  const std::uint32_t abort = 0, writer = kMostRows * kWidth;
  for (const std::uint32_t boxes : {1, 2}) {
    Boxes box(boxes, 2 * writer);
    Rank ranks[2];
    for (Rank& r : ranks) r.partial.resize(kRows * kWidth), r.out.resize(kRows * kWidth);
    {
      std::thread other([&] {
        run_sums(ranks[1], box.of_rank(1, 2 * writer, writer, &abort), 2, bias.data(), norm.data(), residual);
      });
      run_sums(ranks[0], box.of_rank(0, 2 * writer, writer, &abort), 2, bias.data(), norm.data(), residual);
      other.join();
    }
    EXPECT_EQ(ranks[0].out, ranks[1].out);
    for (std::uint32_t row = 0; row < kRows; row++) {
      double squares = 0;
      const auto sum = [&](std::uint32_t i) {
        const std::uint32_t at = row * kWidth + i;
        return double{partial_of(0, 1, 1, at)} + partial_of(1, 1, 1, at) + bias[i];
      };
      for (std::uint32_t i = 0; i < kWidth; i++) squares += sum(i) * sum(i);
      for (std::uint32_t i = 0; i < kWidth; i += 37)
        EXPECT_NEAR(ranks[0].out[row * kWidth + i],
                    residual[row * kWidth + i] + sum(i) / std::sqrt(squares / kWidth + 1e-5) * norm[i], 1e-4);
    }
  }
}

TEST(Exchange, LogitsGoToTheirColumns) {
  constexpr std::uint32_t kFirst = 40, kAll = 100;  // of the ranks 40 and 60
  const std::uint32_t abort = 0;
  Boxes box(1, kMostRows * kAll);
  const StepHeader header{5, 1, kRows, 0, 0, 0, 0, 0};
  const RowsArg rows{&header, 1};
  std::vector<float> low(kRows * kFirst, 1), high(kRows * (kAll - kFirst), 2), all(kRows * kAll);
  ExchangeArg e = box.of_rank(0, kMostRows * kAll, 0, &abort),
              f = box.of_rank(1, kMostRows * kAll, 0, &abort);
  e.uses = f.uses = 1;
  emulation::launch({kRows, 1, 1}, kExchangeThreads, 0,
                    [&] { general_give(e, low.data(), kFirst, 0, kAll, rows); });
  emulation::launch({kRows, 1, 1}, kExchangeThreads, 0,
                    [&] { general_give(f, high.data(), kAll - kFirst, kFirst, kAll, rows); });
  emulation::launch({kRows, 1, 1}, kExchangeThreads, 0, [&] { general_take(f, kAll, all.data(), rows); });
  for (std::uint32_t i = 0; i < all.size(); i++) EXPECT_EQ(all[i], i % kAll < kFirst ? 1 : 2);
}

// The other rank never gives its part: the flag ends the wait.
TEST(Exchange, AnAbortEndsTheWait) {
  const std::uint32_t abort = 1, writer = kMostRows * kWidth;
  Boxes box(1, 2 * writer);
  const StepHeader header{1, 1, 0, 0, 0, 0, 0, 0};
  std::vector<float> partial(kWidth, 1), out(kWidth);
  const ExchangeArg e = box.of_rank(0, 2 * writer, writer, &abort);
  emulation::launch({1, 1, 1}, kExchangeThreads, 0, [&] {
    general_sum(e, partial.data(), nullptr, nullptr, 0, nullptr, kWidth, out.data(), {&header, 0});
  });
}

}  // namespace
