#include "app/word_wrap.h"

#include <gtest/gtest.h>

#include "app/terminal.h"

namespace steelyard {
namespace {

// Fed in parts of `part` bytes of ASCII, or at once.
std::string wrap(std::string_view text, std::uint32_t columns, std::size_t part = 1000) {
  std::string out;
  WordWrap wrap([&](std::string_view t) { out += t; }, [&] { return columns; });
  for (std::size_t at = 0; at < text.size(); at += part) wrap.add(text.substr(at, part));
  wrap.finish();
  return out;
}

TEST(WordWrap, BreaksBetweenWords) {
  for (const std::size_t part : {1u, 2u, 7u, 1000u}) {
    EXPECT_EQ(wrap("the quick brown fox jumps", 10, part), "the quick\nbrown fox\njumps");
    EXPECT_EQ(wrap("0123456789 abc", 10, part), "0123456789\nabc");  // a word that just fits
    EXPECT_EQ(wrap("a  b", 10, part), "a  b");
  }
}

TEST(WordWrap, KeepsLinesIndentsAndTheEnd) {
  EXPECT_EQ(wrap("one\n\n    two\n", 10), "one\n\n    two\n");
  EXPECT_EQ(wrap("  - a list item", 10), "  - a list\nitem");
  EXPECT_EQ(wrap("ends ", 10), "ends ");
  EXPECT_EQ(wrap("", 10), "");
}

TEST(WordWrap, CutsWhatIsLongerThanALine) {
  EXPECT_EQ(wrap("see 0123456789012345 there", 10), "see\n0123456789\n012345\nthere");
}

TEST(WordWrap, WideCharactersPartAnywhere) {
  EXPECT_EQ(wrap("模型模型模", 6), "模型模\n型模");
  EXPECT_EQ(wrap("ab模型", 5), "ab模\n型");
}

TEST(WordWrap, HoldsOnlyTheLastWordBack) {
  std::string out;
  WordWrap wrap([&](std::string_view t) { out += t; }, [] { return 80u; });
  wrap.add("one tw");
  EXPECT_EQ(out, "one");
  wrap.add("o three");
  EXPECT_EQ(out, "one two");
  wrap.finish();
  EXPECT_EQ(out, "one two three");
}

TEST(Terminal, CountsColumns) {
  EXPECT_EQ(columns_of("abc"), 3u);
  EXPECT_EQ(columns_of("模型.gguf"), 9u);
  EXPECT_EQ(columns_of("caf\x65\xcc\x81"), 4u);  // a combining accent
  EXPECT_EQ(cut_to_columns("abcdef", 6), "abcdef");
  EXPECT_EQ(cut_to_columns("abcdef", 5), "abcd…");
  EXPECT_EQ(cut_to_columns("模型模型", 6), "模型…");
  EXPECT_EQ(cut_to_columns("abc", 0), "");
}

}  // namespace
}  // namespace steelyard
