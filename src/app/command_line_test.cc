#include "app/command_line.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

struct Values {
  std::uint32_t threads = 0;
  double heat = 0;
  std::string mode, model;
  std::vector<std::string> stop;
};

// Parses as main() does; the sentence that is said of a wrong line, empty for a right one.
std::string parse(std::vector<std::string> typed, Values& values) {
  CLI::App app("test", "test");
  set_up_parser(app);
  app.require_subcommand(1);
  CLI::App* run = app.add_subcommand("run", "runs");
  run->add_option("MODEL", values.model)->required();
  takes_number(run->add_option("-t,--threads", values.threads), 1, 8);
  takes_number(run->add_option("--heat-level,--heat", values.heat), 0, 1.5, false);
  takes_one_of(run->add_option("--mode", values.mode), {"fast", "exact"});
  run->add_option("--stop", values.stop)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
  auto words = normal_words(app, typed);
  std::reverse(words.begin(), words.end());
  try {
    app.parse(words);
  } catch (const CLI::ParseError& e) {
    return usage_sentence(app, e, typed);
  }
  return {};
}
std::string parse(std::vector<std::string> typed) {
  Values ignored;
  return parse(std::move(typed), ignored);
}

TEST(CommandLine, TakesAliasesUnderscoresAndTheLastOfRepeatedFlags) {
  Values v;
  EXPECT_EQ(parse({"run", "m", "-t", "3", "--heat_level=0.5", "--threads", "4", "--mode", "FAST"}, v), "");
  EXPECT_EQ(v.threads, 4u);
  EXPECT_EQ(v.heat, 0.5);
  EXPECT_EQ(parse({"run", "m", "--heat", "1e0", "--stop", "a", "--stop", "b"}, v), "");
  EXPECT_EQ(v.heat, 1);
  EXPECT_THAT(v.stop, testing::ElementsAre("a", "b"));
}

TEST(CommandLine, NamesTheFlagAsTypedAndWhatItWants) {
  EXPECT_THAT(parse({"run", "m", "-t", "x"}), HasSubstr("-t wants a whole number from 1 to 8, not 'x'"));
  EXPECT_THAT(parse({"run", "m", "--threads=9"}),
              HasSubstr("--threads wants a whole number from 1 to 8, not '9'"));
  EXPECT_THAT(parse({"run", "m", "--heat_level", "2"}),
              HasSubstr("--heat_level wants a number from 0 to 1.5"));
  EXPECT_THAT(parse({"run", "m", "--heat", "nan"}), HasSubstr("--heat wants a number"));
  EXPECT_THAT(parse({"run", "m", "--heat", ""}), HasSubstr("not ''"));
  EXPECT_THAT(parse({"run", "m", "-t", "1.5"}), HasSubstr("whole number"));
  EXPECT_THAT(parse({"run", "m", "-t", "1e0"}), HasSubstr("whole number"));
  EXPECT_THAT(parse({"run", "m", "--mode", "quick"}),
              HasSubstr("--mode wants one of fast, exact, not 'quick'"));
  EXPECT_THAT(parse({"run", "m", "--mode"}), HasSubstr("--mode wants a value"));
  EXPECT_THAT(parse({"run"}), HasSubstr("MODEL is required"));
}

TEST(CommandLine, SaysWhatWasMeant) {
  EXPECT_THAT(parse({"run", "m", "--treads", "1"}),
              HasSubstr("there is no flag --treads; did you mean --threads?"));
  EXPECT_THAT(parse({"run", "m", "--frobnicate"}), Not(HasSubstr("did you mean")));
  EXPECT_THAT(parse({"run", "m", "--format=json"}), HasSubstr("--format isn't built yet"));
  EXPECT_THAT(parse({"run", "m", "extra"}), HasSubstr("'extra' is one argument too many"));
  EXPECT_THAT(parse({"rum"}), HasSubstr("did you mean run?"));
  EXPECT_THAT(parse({"xyzzy\x1b"}), HasSubstr("'xyzzy\\x1b'"));
  EXPECT_THAT(parse({}), HasSubstr("say what to do"));
}

}  // namespace
}  // namespace steelyard
