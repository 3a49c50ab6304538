#include "device/page_tables.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

namespace steelyard {
namespace {

using ::testing::ElementsAre;

TEST(PageTables, SequencesTakePagesInTurn) {
  const std::uint32_t pages[] = {3, 2};
  const PageTables tables(pages, 2, 3);
  EXPECT_THAT(tables.of(0)[0], ElementsAre(0, 2, 4));
  EXPECT_THAT(tables.of(1)[0], ElementsAre(1, 3, 5));
  EXPECT_THAT(tables.of(0)[1], ElementsAre(0, 2, 0));  // two pages in a ring
  EXPECT_THAT(tables.of(1)[1], ElementsAre(1, 3, 1));
}

TEST(PageTables, AShuffleGivesEveryPageToOneSequence) {
  const std::uint32_t pages[] = {50};
  const PageTables tables(pages, 2, 50, 7);
  std::set<std::int32_t> all;
  for (const std::uint32_t slot : {0u, 1u}) all.insert(tables.of(slot)[0].begin(), tables.of(slot)[0].end());
  EXPECT_EQ(all.size(), 100u);
  EXPECT_EQ(*all.rbegin(), 99);
  EXPECT_NE(tables.of(0)[0][1], 2);
}

}  // namespace
}  // namespace steelyard
