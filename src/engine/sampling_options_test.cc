#include "engine/sampling_options.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "base/error.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string refusal_of(const AnswerOptions& options) {
  try {
    check(options);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(SamplingOptions, NamesAreOllamas) {
  EXPECT_THAT(answer_option_names(), ElementsAre("temperature", "top_k", "top_p", "min_p", "typical_p",
                                                 "repeat_penalty", "presence_penalty", "frequency_penalty",
                                                 "repeat_last_n", "num_predict", "seed", "stop"));
  EXPECT_EQ(find_number_option("mood"), nullptr);
  EXPECT_EQ(find_number_option("seed"), nullptr);  // not one that a double holds
}

TEST(SamplingOptions, EachNameSetsItsMember) {
  AnswerOptions o;
  const auto set = [&](std::string_view name, double value) { find_number_option(name)->set(o, value); };
  set("temperature", 0.5), set("top_k", 7), set("top_p", 0.25), set("min_p", 0.125), set("typical_p", 0.75);
  set("repeat_penalty", 1.5), set("presence_penalty", -2), set("frequency_penalty", 3),
      set("repeat_last_n", 9);
  set("num_predict", 11);
  EXPECT_EQ(o.sampling.temperature, 0.5f);
  EXPECT_EQ(o.sampling.top_k, 7);
  EXPECT_EQ(o.sampling.top_p, 0.25f);
  EXPECT_EQ(o.sampling.min_p, 0.125f);
  EXPECT_EQ(o.sampling.typical_p, 0.75f);
  EXPECT_EQ(o.sampling.repeat_penalty, 1.5f);
  EXPECT_EQ(o.sampling.presence_penalty, -2.0f);
  EXPECT_EQ(o.sampling.frequency_penalty, 3.0f);
  EXPECT_EQ(o.sampling.repeat_last_n, 9);
  EXPECT_EQ(o.num_predict, 11);
  for (const NumberOption& option : number_options())
    EXPECT_EQ(option.of(o), find_number_option(option.name)->of(o));
}

TEST(SamplingOptions, DefaultsAreInRange) { EXPECT_EQ(refusal_of({}), "accepted"); }

TEST(SamplingOptions, EdgesOfARangeAreInItAndWhatLiesBeyondIsNot) {
  for (const NumberOption& option : number_options()) {
    AnswerOptions o;
    for (const double good : {option.low, option.high}) {
      EXPECT_NO_THROW(option.set(o, good)) << option.name;
      EXPECT_EQ(refusal_of(o), "accepted") << option.name;
    }
    for (const double bad :
         {option.low - 1, option.high * 2, std::nan(""), std::numeric_limits<double>::infinity()})
      EXPECT_THROW(option.set(o, bad), Error) << option.name << " " << bad;
    if (option.whole()) {
      EXPECT_THROW(option.set(o, 1.5), Error) << option.name;
    }
  }
}

TEST(SamplingOptions, TheCheckNamesWhatIsWrong) {
  AnswerOptions o;
  o.sampling.temperature = std::nanf("");
  EXPECT_THAT(refusal_of(o), HasSubstr("temperature is nan, but must be a number from 0 to 100"));
  o = {};
  o.sampling.repeat_last_n = -2;
  EXPECT_THAT(refusal_of(o), HasSubstr("repeat_last_n is -2, but must be a whole number from -1"));
  o = {};
  o.stop.assign(kMaxStops + 1, "x");
  EXPECT_THAT(refusal_of(o), HasSubstr("stop strings"));
  o.stop.assign(1, std::string(kMaxStopBytes, 'x'));
  EXPECT_EQ(refusal_of(o), "accepted");
  o.stop[0] += 'x';
  EXPECT_THAT(refusal_of(o), HasSubstr("too long"));
}

TEST(SamplingOptions, WhatIsNotNamedIsAsTheFileSays) {
  AnswerOptions file;
  file.sampling.temperature = 0.25f;
  file.sampling.top_k = 7;
  AnswerWishes wishes;
  wishes.stop = {"END"};
  wishes.set(*find_number_option("top_k"), 40);  // by name, though it is the default
  const AnswerOptions all = wishes.over(file);
  EXPECT_FLOAT_EQ(all.sampling.temperature, 0.25f);
  EXPECT_EQ(all.sampling.top_k, 40);
  EXPECT_THAT(all.stop, ::testing::ElementsAre("END"));
}

TEST(SamplingOptions, SeedsKeepEveryBit) {
  AnswerOptions o;
  set_seed(o, (std::int64_t{1} << 53) + 1);
  EXPECT_FALSE(o.random_seed);
  EXPECT_EQ(o.sampling.seed, (std::uint64_t{1} << 53) + 1);
  set_seed(o, -1);
  EXPECT_TRUE(o.random_seed);
}

}  // namespace
}  // namespace steelyard
