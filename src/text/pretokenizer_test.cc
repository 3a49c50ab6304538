#include "text/pretokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <iterator>
#include <random>
#include <string>
#include <utility>
#include <vector>

namespace steelyard {
namespace {

using ::testing::ElementsAre;

std::vector<std::string> pieces_by(const Pretokenizer& pretokenizer, const std::string& text) {
  std::vector<std::size_t> ends;
  pretokenizer.split(text, ends);
  std::vector<std::string> pieces;
  std::size_t begin = 0;
  for (const std::size_t end : ends) {
    pieces.push_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

std::vector<std::string> pieces_by(const char* name, const std::string& text) {
  return pieces_by(Pretokenizer(*find_pretokenizer(name)), text);
}

// By the publishers' expressions, which count thousands from the right.
TEST(Pretokenizer, ThousandsAreCountedFromTheRight) {
  EXPECT_THAT(pieces_by("tiny_aya", "1234567"), ElementsAre("1", "234", "567"));
  EXPECT_THAT(pieces_by("tiny_aya", "123456"), ElementsAre("123", "456"));
  EXPECT_THAT(pieces_by("tiny_aya", "a12345 6"), ElementsAre("a", "12", "345", " ", "6"));
  EXPECT_THAT(pieces_by("afmoe", "x1234\u00bd"), ElementsAre("x", "12", "34\u00bd"));
  EXPECT_THAT(pieces_by("superbpe", "1234567"), ElementsAre("1", "234", "567"));
  EXPECT_THAT(pieces_by("superbpe", "\u00bd1234"), ElementsAre("\u00bd1", "234"));
  EXPECT_THAT(pieces_by("superbpe", "a123b"), ElementsAre("a", "123", "b"));
}

TEST(Pretokenizer, ThousandsAreCutAsByThePublishersExpressions) {
  using Cut = PretokenizerPattern::Cut;
  std::mt19937 random(3);
  for (const auto& [name, expression] : {std::pair("tiny_aya", "\\d{1,3}(?=(?:\\d{3})*\\b)"),
                                         std::pair("afmoe", "\\p{N}{1,3}(?=(?:\\p{N}{3})*(?:\\P{N}|$))")}) {
    PretokenizerSpec spec = *find_pretokenizer(name);
    const Pretokenizer fast(spec);
    for (PretokenizerPattern& pattern : spec.patterns)
      if (pattern.cut == Cut::thousands) pattern = expression;
    const Pretokenizer published(spec);
    for (int round = 0; round < 3000; ++round) {
      static constexpr const char* kParts[] = {"1", "22", "333", "\u0663", "\u00bd",
                                               "a", "_",  " ",   ".",      "\n"};
      std::string text;
      for (std::size_t n = random() % 16; n > 0; --n) text += kParts[random() % std::size(kParts)];
      EXPECT_EQ(pieces_by(fast, text), pieces_by(published, text)) << name << ": " << text;
    }
  }
}

// Once quadratic: minutes.
TEST(Pretokenizer, LongRunsOfDigitsTakeLinearTime) {
  for (const char* name : {"tiny_aya", "cohere2moe", "superbpe", "afmoe"})
    for (const char* after : {"", "a"}) {
      const std::string text = std::string(3000000, '7') + after;
      std::string joined;
      for (const std::string& piece : pieces_by(name, text)) joined += piece;
      EXPECT_EQ(joined, text);
    }
}

}  // namespace
}  // namespace steelyard
