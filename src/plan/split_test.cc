#include "plan/split.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <random>

namespace steelyard {
namespace {

// Every way to cut; the least round, or 0 when none fits.
double brute_force(const SplitInput& in) {
  double best = 0;
  std::function<void(std::size_t, std::uint32_t, double, double)> cut =
      [&](std::size_t d, std::uint32_t begin, double sum, double longest) {
        if (d == in.until.size()) {
          const Split split{.ends = {}, .sum = sum, .longest = longest};
          if (begin == in.units && (best == 0 || split.round(in) < best)) best = split.round(in);
          return;
        }
        for (std::uint32_t end = begin + 1; end <= in.reach(d, begin); ++end) {
          const double time = in.until[d][end] - in.until[d][begin];
          cut(d + 1, end, sum + time, std::max(longest, time));
        }
      };
  cut(0, 0, 0, 0);
  return best;
}

SplitInput random_input(std::mt19937& random) {
  const auto below = [&](std::uint32_t n) { return static_cast<std::uint32_t>(random() % n); };
  SplitInput in{.units = 3 + below(8), .between = below(3) * 2.0};
  const std::uint32_t devices = 1 + below(3);
  std::vector<std::uint32_t> most(devices);
  for (std::uint32_t d = 0; d < devices; ++d) {
    std::vector<double> until{0};
    const double speed = 1 + below(4);
    for (std::uint32_t u = 0; u < in.units; ++u) until.push_back(until.back() + (1 + below(5)) / speed);
    in.until.push_back(until);
    most[d] = 1 + below(in.units);
  }
  in.reach = [most, units = in.units](std::size_t d, std::uint32_t begin) {
    return std::min(begin + most[d], units);
  };
  in.turns = 1 + below(devices);
  return in;
}

TEST(Split, IsTheBestOfAll) {
  std::mt19937 random(7);
  int fitting = 0;
  for (int i = 0; i < 500; ++i) {
    const SplitInput in = random_input(random);
    const double best = brute_force(in);
    const auto split = best_split(in);
    ASSERT_EQ(split.has_value(), best > 0) << i;
    if (!split) continue;
    ++fitting;
    EXPECT_NEAR(split->round(in), best, 1e-6 * best) << i;
    EXPECT_EQ(split->ends.back(), in.units);
  }
  EXPECT_GT(fitting, 100);
}

TEST(Split, OfEqualSumsTheMostEven) {
  SplitInput in{.units = 6};
  in.until = {{0, 1, 2, 3, 4, 5, 6}, {0, 1, 2, 3, 4, 5, 6}};
  in.reach = [](std::size_t, std::uint32_t) { return 6u; };
  const auto split = best_split(in);
  ASSERT_TRUE(split);
  EXPECT_EQ(split->ends, (std::vector<std::uint32_t>{3, 6}));
}

}  // namespace
}  // namespace steelyard
