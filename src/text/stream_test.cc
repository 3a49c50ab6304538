#include "text/stream.h"

#include <gtest/gtest.h>

#include <random>

#include "base/utf8.h"

namespace steelyard {
namespace {

TEST(Utf8Stream, HoldsUnfinishedCharacters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xF0\x9F"), "a");
  EXPECT_EQ(stream.push("\x9A"), "");
  EXPECT_EQ(stream.push("\x80"
                        "b\xC3"),
            "🚀b");
  EXPECT_EQ(stream.push("\xA9"), "é");
  EXPECT_EQ(stream.flush(), "");
}

TEST(Utf8Stream, ReplacesWhatCannotBecomeACharacter) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("\xFF\xC0\xAF"), "\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.push("x"), "\uFFFDx");                        // one for the whole unfinished part
  EXPECT_EQ(stream.push("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
  EXPECT_EQ(stream.push("\xF4\x90"), "\uFFFD\uFFFD");            // beyond U+10FFFF
  EXPECT_EQ(stream.push("\xE2\x82"), "");
  EXPECT_EQ(stream.flush(), "\uFFFD");
  EXPECT_EQ(stream.flush(), "");
}

// Unicode 15, table 3-8.
TEST(Utf8Stream, UnicodeExample) {
  EXPECT_EQ(valid_utf8("\x61\xF1\x80\x80\xE1\x80\xC2\x62\x80\x63\x80\xBF\x64"),
            "a\uFFFD\uFFFD\uFFFDb\uFFFDc\uFFFD\uFFFDd");
}

TEST(Utf8Stream, AnyCutsGiveTheSameText) {
  std::mt19937 rng(5);
  for (int round = 0; round < 2000; ++round) {
    std::string bytes;
    for (int i = 0; i < 20; ++i) {
      static const char* parts[] = {"a",    "é",        "日",   "🚀",    "\x80",
                                    "\xE2", "\xF0\x9F", "\xC3", "\xFF", "\xED\xA0"};
      bytes += parts[rng() % 10];
    }
    Utf8Stream stream;
    std::string out;
    for (std::size_t at = 0; at < bytes.size();) {
      std::size_t n = 1 + rng() % 4;
      std::string piece = stream.push(std::string_view(bytes).substr(at, n));
      EXPECT_EQ(valid_prefix(piece), piece.size());
      out += piece;
      at += n;
    }
    EXPECT_EQ(out + stream.flush(), valid_utf8(bytes));
  }
}

TEST(StopMatcher, HoldsBackOnlyWhatMayBeginAStop) {
  StopMatcher matcher({"</end>", "STOP"});
  EXPECT_EQ(matcher.push("hello <"), "hello ");
  EXPECT_EQ(matcher.push("/e"), "");
  EXPECT_EQ(matcher.push("x S"), "</ex ");
  EXPECT_EQ(matcher.push("TO"), "");
  EXPECT_EQ(matcher.push("P and more"), "");
  EXPECT_TRUE(matcher.stopped());
  EXPECT_EQ(matcher.matched(), "STOP");
  EXPECT_EQ(matcher.push("again"), "");
  EXPECT_EQ(matcher.flush(), "");
}

TEST(StopMatcher, FlushGivesBackWhatWasHeld) {
  StopMatcher matcher({"abcabd"});
  EXPECT_EQ(matcher.push("abcabc"), "abc");
  EXPECT_EQ(matcher.push("ab"), "");  // "abcab" may go on as the stop string
  EXPECT_EQ(matcher.push("c"), "abc");
  EXPECT_EQ(matcher.flush(), "abc");
  EXPECT_FALSE(matcher.stopped());
}

TEST(StopMatcher, TheStopThatIsCompleteFirstWins) {
  StopMatcher matcher({"bcd", "c", ""});
  EXPECT_EQ(matcher.push("abcd"), "ab");
  EXPECT_EQ(matcher.matched(), "c");
  StopMatcher same_end({"cd", "bcd"});
  EXPECT_EQ(same_end.push("abcd"), "a");
  StopMatcher none({});
  EXPECT_EQ(none.push("all of it"), "all of it");
}

// As its description has it, read off the whole text: what stands before the stop string that is complete
// first.
TEST(StopMatcher, FindsWhatALookAtTheWholeTextFinds) {
  std::mt19937 random(5);
  const auto word = [&](std::size_t longest) {
    std::string made(1 + random() % longest, 'a');
    for (char& c : made) c = "ab"[random() % 2];
    return made;
  };
  for (int round = 0; round < 3000; ++round) {
    const std::vector<std::string> stops{word(6), word(6), word(3)};
    const std::string text = word(40);
    std::size_t end = text.size() + 1, begin = text.size();
    for (std::size_t e = 1; e <= text.size() && end > text.size(); ++e)
      for (const std::string& stop : stops)
        if (std::string_view(text).substr(0, e).ends_with(stop))
          end = e, begin = std::min(begin, e - stop.size());
    StopMatcher matcher(stops);
    std::string shown;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = 1 + random() % 4;
      shown += matcher.push(std::string_view(text).substr(at, n));
      at += n;
    }
    shown += matcher.flush();
    EXPECT_EQ(shown, text.substr(0, begin)) << text;
    EXPECT_EQ(matcher.stopped(), end <= text.size());
  }
}

// Once quadratic: minutes.
TEST(StopMatcher, ManyLongStopStringsTakeLinearTime) {
  std::vector<std::string> stops;
  for (int i = 0; i < 64; ++i) stops.push_back(std::string(1023, '-') + static_cast<char>('A' + i % 26));
  StopMatcher matcher(stops);
  std::size_t shown = 0;
  for (int i = 0; i < 300000; ++i) shown += matcher.push("-").size();
  EXPECT_EQ(shown, 300000u - 1023u);
  matcher.push("B");
  EXPECT_TRUE(matcher.stopped());
}

}  // namespace
}  // namespace steelyard
