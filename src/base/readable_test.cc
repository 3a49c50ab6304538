#include "base/readable.h"

#include <gtest/gtest.h>

namespace steelyard {
namespace {

TEST(Readable, KeepsTextAndEscapesTheRest) {
  EXPECT_EQ(readable("plain caf\xc3\xa9 \xe2\x96\x81 \xf0\x9f\x98\x80"),
            "plain caf\xc3\xa9 \xe2\x96\x81 \xf0\x9f\x98\x80");
  EXPECT_EQ(readable("a\nb\x1b[2J\x7f"), "a\\nb\\x1b[2J\\x7f");
  EXPECT_EQ(readable(std::string_view("\x00\xff\xc3", 3)), "\\x00\\xff\\xc3");
  EXPECT_EQ(readable("\xed\xa0\x80"), "\\xed\\xa0\\x80");                 // a surrogate
  EXPECT_EQ(readable("\xc2\x9b[2J \xe2\x80\xae"), "\\u009b[2J \\u202e");  // C1 controls, a turn of direction
  EXPECT_EQ(readable("abcdef", 3), "abc…");
  EXPECT_EQ(readable("ab\xc3\xa9", 3), "ab…");  // never half a character
  EXPECT_EQ(readable(""), "");
}

}  // namespace
}  // namespace steelyard
