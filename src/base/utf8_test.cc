#include "base/utf8.h"

#include <gtest/gtest.h>

namespace steelyard {
namespace {

std::size_t valid_length(std::string_view text) {
  const Utf8Char c = decode_utf8(text);
  return c.valid ? c.length : 0;
}

TEST(Utf8, OneCharacter) {
  EXPECT_EQ(valid_length("a"), 1u);
  EXPECT_EQ(valid_length("\xc3\xa9"), 2u);
  EXPECT_EQ(valid_length("\xf4\x8f\xbf\xbf"), 4u);
  EXPECT_EQ(valid_length("\xc0\x80"), 0u);          // overlong
  EXPECT_EQ(valid_length("\xe0\x80\x80"), 0u);      // overlong
  EXPECT_EQ(valid_length("\xf4\x90\x80\x80"), 0u);  // beyond U+10FFFF
  EXPECT_EQ(valid_length("\xe2\x96"), 0u);          // cut off
  EXPECT_EQ(valid_length("\x80"), 0u);
}

}  // namespace
}  // namespace steelyard
