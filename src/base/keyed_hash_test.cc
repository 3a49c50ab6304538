#include "base/keyed_hash.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace steelyard {
namespace {

TEST(KeyedHash, EqualBytesHaveEqualHashes) {
  const KeyedHash hash, other;
  for (std::size_t size = 0; size < 70; ++size) {
    const std::string text(size, 'x');
    EXPECT_EQ(hash(text), other(std::string(text)));
  }
  EXPECT_EQ(hash(std::uint64_t{7}), other(std::uint64_t{7}));
}

// In the low bits, which tables use.
TEST(KeyedHash, SimilarInputsSpread) {
  const KeyedHash hash;
  std::set<std::uint64_t> of_texts, of_words;
  for (std::uint64_t i = 0; i < 1000; ++i) {
    of_texts.insert(hash(std::string(i, '\0')) & 0xFFFFF);
    of_words.insert(hash(i << 40) & 0xFFFFF);
  }
  EXPECT_GT(of_texts.size(), 950u);
  EXPECT_GT(of_words.size(), 950u);
}

}  // namespace
}  // namespace steelyard
