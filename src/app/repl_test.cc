#include "app/repl.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "base/error.h"
#include "engine/engine.h"
#include "engine/sampling_options.h"

namespace steelyard {
namespace {

TEST(ReplLine, SeparatesCommandsFromPrompts) {
  EXPECT_EQ(parse_repl_line("  hello there ").argument, "hello there");
  EXPECT_EQ(parse_repl_line("  hello there ").command, "");
  EXPECT_EQ(parse_repl_line("/bye").command, "bye");
  const ReplLine set = parse_repl_line("/set  parameter temperature 0.5 ");
  EXPECT_EQ(set.command, "set");
  EXPECT_EQ(set.argument, "parameter temperature 0.5");
}

TEST(ReplLine, APathIsAPrompt) {
  EXPECT_EQ(parse_repl_line("/usr/bin is what?").command, "");
  EXPECT_EQ(parse_repl_line("/ or \\?").command, "");
}

TEST(ReplLine, WhatIsPastedIsACommandOnlyIfItBeginsWithOne) {
  EXPECT_EQ(parse_repl_line("/* a comment */\nint x;").command, "");
  EXPECT_EQ(parse_repl_line("/usage\nof this").command, "");
  EXPECT_EQ(parse_repl_line("/set system one\ntwo").command, "set");
  EXPECT_EQ(parse_repl_line("/set system one\ntwo").argument, "system one\ntwo");
  EXPECT_EQ(parse_repl_line("/fly").command, "fly");  // a slip, to be told
  EXPECT_EQ(parse_repl_line("/?").command, "?");
}

TEST(MultiLine, TextBehindTheEndCounts) {
  MultiLine m;
  EXPECT_TRUE(m.take(R"("""one""" two)"));
  EXPECT_FALSE(m.open());
  EXPECT_EQ(m.text(), "one two");
  EXPECT_TRUE(m.take(R"("""three)"));
  EXPECT_TRUE(m.take(R"(four""" five)"));
  EXPECT_EQ(m.text(), "three\nfour five");
}

TEST(MultiLine, PastedTextIsTextAsItStands) {
  MultiLine m;
  EXPECT_TRUE(m.take(R"("""see:)"));
  m.take_pasted("def f():\n  \"\"\"doc\"\"\"\n  pass");
  EXPECT_TRUE(m.open());
  m.take_pasted("end\"\"\"");
  EXPECT_FALSE(m.open());
  EXPECT_EQ(m.text(), "see:\ndef f():\n  \"\"\"doc\"\"\"\n  pass\nend");
}

TEST(CutText, SaysWhatEndedAnAnswer) {
  Answer answer;
  answer.reason = DoneReason::stop;
  EXPECT_EQ(cut_text(answer, 5, 100), "");
  answer.reason = DoneReason::cancelled;
  EXPECT_THAT(cut_text(answer, 5, 100), testing::HasSubstr("Ctrl-C"));
  answer.reason = DoneReason::length;
  answer.generated_tokens = 5;
  EXPECT_EQ(cut_text(answer, 5, 100), "the answer was cut after 5 tokens (num_predict)");
  EXPECT_THAT(cut_text(answer, 6, 100), testing::HasSubstr("context of 100 tokens is full"));
  EXPECT_THAT(cut_text(answer, -2, 100), testing::HasSubstr("context of 100 tokens is full"));
}

TEST(TimingsText, FitsATerminalOf80Columns) {
  Answer answer;
  answer.prompt_tokens = 123456;
  answer.cached_tokens = 23456;
  answer.generated_tokens = 99999;
  answer.prompt_ns = 12'345'678'901;
  answer.generation_ns = 999'999'999'999;
  answer.total_ns = 1'012'345'678'900;
  answer.seed = ~std::uint64_t{0} >> 1;
  answer.prompt_achieved = answer.generation_achieved = 0.99;
  std::istringstream lines(timings_text(answer, 3600));
  for (std::string line; std::getline(lines, line);) EXPECT_LE(line.size(), 80u) << line;
}

TEST(MultiLine, OneLine) {
  MultiLine m;
  EXPECT_TRUE(m.take(R"("""hello""")"));
  EXPECT_FALSE(m.open());
  EXPECT_EQ(m.text(), "hello");
}

TEST(MultiLine, SeveralLinesKeepTheirSpaces) {
  MultiLine m;
  EXPECT_TRUE(m.take(R"("""first)"));
  EXPECT_TRUE(m.open());
  EXPECT_TRUE(m.take("  /bye is text here"));
  EXPECT_TRUE(m.take(""));
  EXPECT_TRUE(m.take(R"(last""")"));
  EXPECT_FALSE(m.open());
  EXPECT_EQ(m.text(), "first\n  /bye is text here\n\nlast");
  EXPECT_FALSE(m.take("and now a prompt"));
}

TEST(AnswerSettings, TakesOllamasNames) {
  AnswerSettings s;
  s.set("temperature", "0.25");
  s.set("top_k", "7");
  s.set("seed", "42");
  s.set("stop", "END");
  EXPECT_FLOAT_EQ(s.sampling.temperature, 0.25f);
  EXPECT_EQ(s.sampling.top_k, 7);
  EXPECT_EQ(s.sampling.seed, 42u);
  EXPECT_FALSE(s.random_seed);
  EXPECT_THAT(s.stop, testing::ElementsAre("END"));
  s.set("seed", "-1");
  EXPECT_TRUE(s.random_seed);
}

TEST(AnswerSettings, ListsWhatIsSet) {
  AnswerSettings s;
  s.set("top_k", "7");
  s.set("min_p", "0.05");
  s.set("stop", "END");
  AnswerOptions file;
  file.sampling.top_k = 20;  // named otherwise
  file.sampling.top_p = 0.75f;
  EXPECT_THAT(s.list(file),
              testing::ElementsAre("temperature        0.8", "top_k              7",
                                   "top_p              0.75", "min_p              0.05",
                                   "typical_p          1", "repeat_penalty     1", "presence_penalty   0",
                                   "frequency_penalty  0", "repeat_last_n      64", "num_predict        -1",
                                   "seed               random", "stop               \"END\""));
}

TEST(AnswerSettings, RefusesWhatMakesNoSense) {
  AnswerSettings s;
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"temperature", "-1"},
                                                        {"temperature", "warm"},
                                                        {"temperature", "nan"},
                                                        {"top_p", "1.5"},
                                                        {"top_k", "7x"},
                                                        {"top_k", ""},
                                                        {"num_predict", "99999999999999"},
                                                        {"stop", ""},
                                                        {"mood", "1"}})
    EXPECT_THROW(s.set(name, value), Error) << name << " " << value;
}

}  // namespace
}  // namespace steelyard
