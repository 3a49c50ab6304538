#include "observe/ceilings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/dtype.h"
#include "base/error.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "program/cost.h"
#include "program/program.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

Ceilings measured(double read, double products, double load = 0.1) {
  return {.device = "A CPU",
          .threads = 2,
          .conditions = "avx512 on 2 threads",
          .read_bytes_per_second = read,
          .cached_reads = {{64 << 20, 4 * read}, {256 << 20, 2 * read}},
          .multiply_per_second = {{DType::Q8_0, products}, {DType::F32, products / 4}},
          .measured_at = "2026-03-01T12:00:00Z",
          .load = load,
          .spread = 0.02,
          .raised_at = ""};
}

// One product of so many Q8_0 weights.
Program product(std::uint32_t rows, std::uint32_t cols) {
  Program p;
  p.weights = {{"head", WeightRole::head, -1, DType::Q8_0, rows, cols}};
  HeadOp head{};
  head.weight = 0;
  p.ops.push_back({.layer = -1, .body = head});
  return p;
}

class Kept : public ::testing::Test {
 protected:
  void SetUp() override {
    directory_ = fs::temp_directory_path() / ("ceilings-test-" + std::to_string(::getpid()));
    fs::create_directories(directory_);
  }
  void TearDown() override { fs::remove_all(directory_); }
  fs::path directory_;
};

TEST_F(Kept, ComesBackAsItWas) {
  Ceilings c = measured(1e10, 2e11, 3.5);
  c.raised_at = "2026-03-02T00:00:00Z";
  const fs::path path = directory_ / "a" / "ceilings.json";
  EXPECT_FALSE(load_ceilings(path));
  save_ceilings(c, path);
  const auto back = load_ceilings(path);
  ASSERT_TRUE(back);
  EXPECT_EQ(back->conditions, c.conditions);
  EXPECT_EQ(back->read_bytes_per_second, 1e10);
  EXPECT_EQ(back->cached_reads, c.cached_reads);
  EXPECT_EQ(back->multiply_per_second, c.multiply_per_second);
  EXPECT_EQ(back->load, 3.5);
  EXPECT_EQ(back->raised_at, c.raised_at);
  std::ofstream(path) << "{\"device\": 3}";
  EXPECT_THROW(load_ceilings(path), Error);
}

TEST(Ceilings, OtherConditionsAreOtherFiles) {
  const DeviceInfo device{.id = "CPU", .name = "A CPU", .threads = 2, .kernels = "avx2"};
  DeviceInfo other = device;
  other.kernels = "avx512";
  EXPECT_NE(ceilings_path(device), ceilings_path(other));
  other = device;
  other.threads = 1;
  EXPECT_NE(ceilings_path(device), ceilings_path(other));
  EXPECT_EQ(ceilings_path(device), ceilings_path(device));
  EXPECT_THAT(ceilings_conditions(device), ::testing::HasSubstr("cores "));
}

TEST(Ceilings, TheBestOfEachFigureStays) {
  const Ceilings busy = measured(1e10, 9e11, 6), quiet = measured(3e10, 5e11);
  for (const Ceilings& best : {best_of(busy, quiet), best_of(quiet, busy)}) {
    EXPECT_EQ(best.read_bytes_per_second, 3e10);
    EXPECT_EQ(best.cached_reads.at(64 << 20), 12e10);
    EXPECT_EQ(best.multiply_per_second.at(DType::Q8_0), 9e11);
    EXPECT_FALSE(measured_while_busy(best, 2));
  }
}

TEST(Ceilings, ABusyMachineIsNoticed) {
  EXPECT_FALSE(measured_while_busy(measured(1e10, 1e11, 0.3), 2));
  EXPECT_TRUE(measured_while_busy(measured(1e10, 1e11, 2.1), 2));
  Ceilings uneven = measured(1e10, 1e11);
  uneven.spread = 0.8;
  EXPECT_TRUE(measured_while_busy(uneven, 2));
  EXPECT_THAT(measured_text(uneven, 2), ::testing::HasSubstr("busy (load 0.1, repeats differ by 80 %)"));
  EXPECT_THAT(measured_text(uneven, 2), ::testing::HasSubstr(" ago"));
}

TEST(Ceilings, WhatACacheHoldsIsReadAtItsRate) {
  const Ceilings c = measured(1e10, 1e30);
  const StepShape shape{.rows = 1, .outputs = 1, .context = 1, .state_reads = 0};
  const auto rate_of = [&](std::uint32_t rows) {
    const Program p = product(rows, 1024);
    const double bytes = rows * 1088.0;  // 34 bytes for 32 weights
    return bytes / step_limit(p, shape, c).read_seconds;
  };
  EXPECT_NEAR(rate_of(1 << 12), 4e10, 1e9);  // 4 MiB: as the smallest that was measured
  EXPECT_NEAR(rate_of(80'000), 4e10, 1e9);   // 83 MiB
  EXPECT_NEAR(rate_of(300'000), 2e10, 1e9);  // 311 MiB
  EXPECT_NEAR(rate_of(600'000), 1e10, 1e8);  // 622 MiB: no cache
}

TEST(Ceilings, StagesAddUpAndRanksWaitForTheSlowest) {
  const Ceilings fast = measured(4e10, 1e30), slow = measured(1e10, 1e30), unknown;
  const Program large = product(1'200'000, 1024), small = product(600'000, 1024);
  Program first = large, second = large;
  first.ranks = second.ranks = 2, second.rank = 1;
  const StepShape shape{.rows = 1, .outputs = 1, .context = 1, .state_reads = 0};
  const double one = step_limit(small, shape, slow).seconds();
  const LimitPart parts[] = {{&small, &slow}, {&first, &fast}, {&second, &slow}};
  const StageLimits limits = stage_limits(parts, shape);
  EXPECT_NEAR(limits.all, 3 * one, 1e-9);
  EXPECT_NEAR(limits.longest, 2 * one, 1e-9);
  const LimitPart with_unknown[] = {{&small, &slow}, {&large, &unknown}};
  EXPECT_EQ(stage_limits(with_unknown, shape).all, 0);
}

TEST(Ceilings, ARunThatBeatsALimitRaisesIt) {
  Ceilings c = measured(1e10, 1e30);
  const Program p = product(600'000, 1024);
  const StepShape shape{.rows = 1, .outputs = 1, .context = 1, .state_reads = 0};
  const StepLimit limit = step_limit(p, shape, c);
  raise_ceilings(c, limit, 3.06);
  EXPECT_DOUBLE_EQ(c.read_bytes_per_second, 3.06e10);
  EXPECT_EQ(c.multiply_per_second.at(DType::Q8_0), 1e30);
  EXPECT_FALSE(c.raised_at.empty());
  // The same run is at the limit now.
  EXPECT_NEAR(achieved_over_limit(p, shape, limit.seconds() / 3.06, c), 1, 1e-9);
  Ceilings same = measured(1e10, 1e30);
  raise_ceilings(same, limit, 0.9);
  EXPECT_EQ(same.read_bytes_per_second, 1e10);
  EXPECT_TRUE(same.raised_at.empty());
}

}  // namespace
}  // namespace steelyard
