#include "engine/eviction.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "engine/errors.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::chrono::steady_clock::time_point at(int second) {
  return std::chrono::steady_clock::time_point(std::chrono::seconds(second));
}

TEST(Eviction, TheLeastRecentlyUsedGoesAndNoMoreThanNeeded) {
  const EvictionCandidate models[] = {{.device = "CPU", .bytes = 30, .last_use = at(3)},
                                      {.device = "CPU", .bytes = 30, .last_use = at(1)},
                                      {.device = "CPU", .bytes = 30, .last_use = at(2)}};
  EXPECT_THAT(choose_evictions(models, {"CPU", 40, 10}).go, ElementsAre(1));
  EXPECT_THAT(choose_evictions(models, {"CPU", 41, 10}).go, ElementsAre(1, 2));
  EXPECT_THAT(choose_evictions(models, {"CPU", 10, 10}).go, IsEmpty());
  EXPECT_TRUE(choose_evictions(models, {"CPU", 100, 10}).enough);
  EXPECT_FALSE(choose_evictions(models, {"CPU", 101, 10}).enough);
}

TEST(Eviction, OwnThenIdleThenBusyThenThoseKeptForEver) {
  const EvictionCandidate models[] = {{.bytes = 1, .forever = true, .last_use = at(0)},
                                      {.bytes = 1, .busy = true, .last_use = at(1)},
                                      {.bytes = 1, .last_use = at(8)},
                                      {.bytes = 1, .own = true, .busy = true, .last_use = at(9)}};
  EXPECT_THAT(choose_evictions(models, {"", 4, 0}).go, ElementsAre(3, 2, 1, 0));
}

TEST(Eviction, OnlyTheDeviceThatLacksMemoryGetsRoom) {
  const EvictionCandidate models[] = {{.device = "CUDA0", .bytes = 50}, {.device = "CPU", .bytes = 50}};
  EXPECT_THAT(choose_evictions(models, {"CPU", 20, 0}).go, ElementsAre(1));
  EXPECT_FALSE(choose_evictions(models, {"CPU", 60, 0}).enough);
}

TEST(Eviction, AnErrorWithoutNumbersMakesOneGo) {
  const EvictionCandidate models[] = {{.device = "CUDA0", .last_use = at(2)},
                                      {.device = "CPU", .last_use = at(1)}};
  EXPECT_THAT(choose_evictions(models, lack_of(Error(ErrorKind::no_memory, "refused"))).go, ElementsAre(1));
  const Lack lack = lack_of(NoRoom("it needs more", "CUDA0", 7, 5));
  EXPECT_EQ(lack.device, "CUDA0");
  EXPECT_EQ(lack.needed, 7u);
  EXPECT_EQ(lack.available, 5u);
}

// Of a model on several devices what lies where room is lacking; page-locked memory of a GPU's model is no
// reason to let it go for the CPU's sake.
TEST(Eviction, AModelCountsWithWhatItHoldsOfTheDeviceThatLacks) {
  const MemoryPlan plan{.devices = {{"CUDA0", {{Purpose::weights, 30, ""}, {Purpose::state, 2, ""}}},
                                    {"CUDA1", {{Purpose::weights, 50, ""}, {Purpose::reserve, 9, ""}}},
                                    {"CPU", {{Purpose::staging, 7, ""}}}}};
  EXPECT_EQ(eviction_candidate(plan, {"CUDA1", 1, 0}).device, "CUDA1");
  EXPECT_EQ(eviction_candidate(plan, {"CUDA1", 1, 0}).bytes, 50u);
  EXPECT_EQ(eviction_candidate(plan, {"", 1, 0}).bytes, 32u);
  EXPECT_EQ(eviction_candidate(plan, {"CPU", 1, 0}).bytes, 0u);
  EXPECT_EQ(eviction_candidate(plan, {"CPU", 1, 0}).device, "");
}

}  // namespace
}  // namespace steelyard
