#include "engine/page_pool.h"

#include <gtest/gtest.h>

#include <numeric>
#include <random>
#include <set>

namespace steelyard {
namespace {

using Tokens = std::vector<std::int32_t>;

TEST(PagePool, HandsOutEachPageOnce) {
  PagePool pool(5, 4);
  std::set<std::int32_t> pages;
  for (int i = 0; i < 5; ++i) pages.insert(pool.allocate());
  EXPECT_EQ(pages, (std::set<std::int32_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(pool.allocate(), -1);
  pool.release(3);
  EXPECT_EQ(pool.available(), 1u);
  EXPECT_EQ(pool.allocate(), 3);
}

TEST(PagePool, FindsPublishedPagesAfterTheirParentOnly) {
  PagePool pool(4, 4);
  const Tokens first{1, 2, 3, 4}, second{5, 6, 7, 8};
  const auto a = pool.allocate(), b = pool.allocate();
  EXPECT_EQ(pool.publish(a, {}, first), a);
  const PrefixKey key = pool.next_key({}, first);
  EXPECT_EQ(pool.publish(b, key, second), b);
  EXPECT_EQ(pool.find({}, first).page, a);
  EXPECT_EQ(pool.find(key, second).page, b);
  EXPECT_EQ(pool.find({}, second).tokens, 0u);
  EXPECT_EQ(pool.find(key, first).tokens, 0u);
  EXPECT_FALSE(key == pool.next_key({}, second));
  EXPECT_FALSE(key == pool.next_key(key, first));
}

TEST(PagePool, MatchesTheBeginningOfAPage) {
  PagePool pool(4, 4);
  const auto a = pool.allocate(), b = pool.allocate();
  pool.publish(a, {}, Tokens{1, 2, 3, 4});
  pool.publish(b, {}, Tokens{1, 9});
  auto match = pool.find({}, Tokens{1, 2, 7});
  EXPECT_EQ(match.page, a);
  EXPECT_EQ(match.tokens, 2u);
  EXPECT_EQ(match.filled, 4u);
  match = pool.find({}, Tokens{1, 9, 3, 3});
  EXPECT_EQ(match.page, b);
  EXPECT_EQ(match.tokens, 2u);
}

TEST(PagePool, KnownContentsAreNotPublishedTwice) {
  PagePool pool(3, 2);
  const auto a = pool.allocate(), b = pool.allocate();
  EXPECT_EQ(pool.publish(a, {}, Tokens{1, 2}), a);
  EXPECT_EQ(pool.publish(b, {}, Tokens{1, 2}), a);
  EXPECT_FALSE(pool.published(b));
  pool.release(b);
  EXPECT_EQ(pool.use().free, 2u);
}

TEST(PagePool, TakesTheLongestUnusedCachedPageLast) {
  PagePool pool(3, 1);
  std::vector<std::int32_t> pages;
  for (int i = 0; i < 3; ++i) {
    pages.push_back(pool.allocate());
    pool.publish(pages.back(), {}, Tokens{i});
  }
  pool.release(pages[1]);
  pool.release(pages[0]);
  pool.release(pages[2]);
  EXPECT_EQ(pool.use().cached, 3u);
  pool.hold(pages[0]);  // used again: now the newest
  pool.release(pages[0]);
  EXPECT_EQ(pool.allocate(), pages[1]);
  EXPECT_EQ(pool.find({}, Tokens{1}).tokens, 0u) << "its contents are forgotten";
  EXPECT_EQ(pool.allocate(), pages[2]);
  EXPECT_EQ(pool.find({}, Tokens{0}).page, pages[0]);
  EXPECT_EQ(pool.allocate(), pages[0]);
  EXPECT_EQ(pool.allocate(), -1);
}

TEST(PagePool, WithdrawnPagesAreUnknown) {
  PagePool pool(2, 2);
  const auto a = pool.allocate();
  pool.publish(a, {}, Tokens{1});
  pool.withdraw(a);
  EXPECT_EQ(pool.find({}, Tokens{1}).tokens, 0u);
  pool.release(a);
  EXPECT_EQ(pool.use().free, 2u);
}

// Against a model that keeps plain sets: counts add up after every random operation.
TEST(PagePool, CountsAddUpInRandomUse) {
  std::mt19937 random(1);
  PagePool pool(17, 4);
  std::vector<std::int32_t> held;
  std::uint64_t filled = 0;
  std::map<std::int32_t, std::pair<int, std::uint32_t>> model;  // page → references, tokens
  for (int step = 0; step < 20000; ++step) {
    const auto choice = random() % 4;
    if (choice == 0) {
      const auto page = pool.allocate();
      ASSERT_EQ(page < 0, model.size() == 17);
      if (page < 0) continue;
      ASSERT_FALSE(model.contains(page));
      model[page] = {1, 0};
      held.push_back(page);
    } else if (choice == 1 && !held.empty()) {
      const auto i = random() % held.size();
      pool.release(held[i]);
      if (--model[held[i]].first == 0) model.erase(held[i]);
      held.erase(held.begin() + static_cast<std::ptrdiff_t>(i));
    } else if (choice == 2 && !held.empty()) {
      const auto page = held[random() % held.size()];
      if (pool.published(page) || pool.shared(page)) continue;
      Tokens tokens(1 + random() % 4);
      for (auto& token : tokens) token = static_cast<std::int32_t>(random() % 3);
      if (pool.publish(page, {}, tokens) == page)
        model[page].second = static_cast<std::uint32_t>(tokens.size());
    } else if (choice == 3) {
      const auto match = pool.find({}, Tokens{static_cast<std::int32_t>(random() % 3), 1, 2, 0});
      if (match.tokens == 0) continue;
      pool.hold(match.page);
      held.push_back(match.page);
      auto& entry = model[match.page];
      ++entry.first;
      entry.second = match.filled;
    }
    filled = 0;
    std::uint32_t shared = 0;
    for (const auto& [page, entry] : model) {
      filled += entry.second;
      shared += entry.first > 1;
    }
    const PoolUse use = pool.use();
    ASSERT_EQ(use.held, model.size());
    ASSERT_EQ(use.held + use.cached + use.free, 17u);
    ASSERT_EQ(use.filled_tokens, filled);
    ASSERT_EQ(use.shared, shared);
  }
}

}  // namespace
}  // namespace steelyard
