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

}  // namespace
}  // namespace steelyard
