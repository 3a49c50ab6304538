#include "observe/telemetry.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace steelyard {
namespace {

// Polls: a loaded machine may give the thread its turn late.
template <typename Done>
bool comes(Done done) {
  for (int i = 0; i < 10000 && !done(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(2));
  return done();
}

TEST(Telemetry, KeepsTheLastPointsAlone) {
  const Telemetry telemetry(std::chrono::milliseconds(1), 4);
  EXPECT_GE(telemetry.history().size(), 1u);  // the first look is the maker's
  const double first = telemetry.history().front().at;
  ASSERT_TRUE(comes([&] { return telemetry.history().front().at > first; }));
  const auto points = telemetry.history();
  EXPECT_EQ(points.size(), 4u);
  for (std::size_t i = 1; i < points.size(); ++i) EXPECT_GE(points[i].at, points[i - 1].at);
  EXPECT_GT(points.back().resident, 1u << 16);
}

TEST(Telemetry, KnowsTheProcessAndWhatLookingCosts) {
  const Telemetry telemetry;
  const Telemetry::Now now = telemetry.now();
  EXPECT_GT(now.host.resident, 1u << 16);
  EXPECT_GT(now.cost, 0);
  EXPECT_GE(telemetry.host().cores, 1u);
}

TEST(Telemetry, EndsAtOnceWhileItWaits) {
  const auto start = std::chrono::steady_clock::now();
  { const Telemetry telemetry(std::chrono::hours(1)); }
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::minutes(5));
}

}  // namespace
}  // namespace steelyard
