#include "base/readable.h"

#include <gtest/gtest.h>

namespace steelyard {
namespace {

TEST(Readable, KeepsTextAndEscapesTheRest) {
  EXPECT_EQ(readable("plain caf\xc3\xa9 \xe2\x96\x81 \xf0\x9f\x98\x80"),
            "plain caf\xc3\xa9 \xe2\x96\x81 \xf0\x9f\x98\x80");
  EXPECT_EQ(readable("a\nb\x1b[2J\x7f"), "a\\nb\\x1b[2J\\x7f");
  EXPECT_EQ(readable(std::string_view("\x00\xff\xc3", 3)), "\\x00\\xff\\xc3");
  EXPECT_EQ(readable("\xed\xa0\x80"), "\\xed\\xa0\\x80");  // a surrogate
  EXPECT_EQ(readable("abcdef", 3), "abc…");
  EXPECT_EQ(readable("ab\xc3\xa9", 3), "ab…");  // never half a character
  EXPECT_EQ(readable(""), "");
}

TEST(Readable, Utf8Length) {
  EXPECT_EQ(utf8_length(""), 0u);
  EXPECT_EQ(utf8_length("a"), 1u);
  EXPECT_EQ(utf8_length("\xc3\xa9"), 2u);
  EXPECT_EQ(utf8_length("\xc0\x80"), 0u);          // overlong
  EXPECT_EQ(utf8_length("\xe0\x80\x80"), 0u);      // overlong
  EXPECT_EQ(utf8_length("\xf4\x90\x80\x80"), 0u);  // beyond U+10FFFF
  EXPECT_EQ(utf8_length("\xf4\x8f\xbf\xbf"), 4u);
  EXPECT_EQ(utf8_length("\xe2\x96"), 0u);  // cut off
  EXPECT_EQ(utf8_length("\x80"), 0u);
}

}  // namespace
}  // namespace steelyard
