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

TEST(Readable, ShowsWhatTurnsTheWritingRound) {
  EXPECT_EQ(readable("a\xc2\x9b"
                     "31mb"),
            "a\\u009b31mb");  // C1's own CSI
  EXPECT_EQ(readable("a\xe2\x80\xae"
                     "b"),
            "a\\u202eb");                                               // right-to-left override
  EXPECT_EQ(readable("\xe2\x81\xa6x\xe2\x81\xa9"), "\\u2066x\\u2069");  // isolates
  EXPECT_EQ(readable("\xd7\xa9\xd7\x9c"), "\xd7\xa9\xd7\x9c");          // Hebrew itself stays
}

TEST(Visible, KeepsLinesAndEscapesControls) {
  EXPECT_EQ(visible("a\n\tb \xf0\x9f\x98\x80"), "a\n\tb \xf0\x9f\x98\x80");
  EXPECT_EQ(visible("\x1b]0;title\x07\r"), "\\x1b]0;title\\x07\\x0d");
  EXPECT_EQ(visible("\xc2\x9b"
                    "2J\x9b\xe2\x80\xae"),
            "\\u009b2J\\x9b\\u202e");
  EXPECT_EQ(visible(std::string(100'000, 'x')).size(), 100'000u);  // nothing is cut
}

}  // namespace
}  // namespace steelyard
