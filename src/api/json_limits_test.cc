#include "api/json_limits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "api/requests.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

using ::testing::HasSubstr;

std::string refusal_of(const std::string& json) {
  try {
    check_json_limits(json);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    return e.what();
  }
  return "";
}

std::string repeated(std::string_view text, std::size_t n) {
  std::string out;
  out.reserve(text.size() * n);
  for (std::size_t i = 0; i < n; ++i) out += text;
  return out;
}

std::string object_of(std::size_t keys) {
  std::string out = "{\"k\":0";
  for (std::size_t i = 1; i < keys; ++i) out += ",\"" + std::to_string(i) + "\":0";
  return out + "}";
}

TEST(JsonLimits, AreExact) {
  EXPECT_EQ(refusal_of(repeated("[", 64) + repeated("]", 64)), "");
  EXPECT_THAT(refusal_of(repeated("[", 65)), HasSubstr("64 levels"));
  EXPECT_THAT(refusal_of(repeated("{\"a\":", 65)), HasSubstr("64 levels"));
  EXPECT_EQ(refusal_of(object_of(512)), "");
  EXPECT_THAT(refusal_of(object_of(513)), HasSubstr("512 keys"));
  EXPECT_EQ(refusal_of("[" + object_of(512) + "," + object_of(512) + "]"), "");  // each for itself
  EXPECT_EQ(refusal_of("[" + repeated("0,", kMaxJsonValues - 4) + "0]"), "");
  EXPECT_THAT(refusal_of("[" + repeated("0,", kMaxJsonValues)), HasSubstr("values"));
}

TEST(JsonLimits, TextIsNotStructure) {
  EXPECT_EQ(refusal_of("\"" + repeated("[{:,", 1 << 20) + "\""), "");
  EXPECT_EQ(refusal_of("{\"a\\\"" + repeated("[", 100) + "\":\"\\\\\"}"), "");
  EXPECT_EQ(refusal_of("\"never ends \\"), "");
  EXPECT_EQ(refusal_of("]]]}}}:,"), "");
}

// Each took minutes of a quadratic parser; the bound is for a machine that is a hundred times slower.
TEST(JsonLimits, WhatPassesIsParsedInLinearTime) {
  const std::string flat = "{\"model\":\"m\",\"z\":[" + repeated("{},", 400000) + "{}]}";
  EXPECT_EQ(parse_generate(flat).model, "m");
  const std::string objects = "{\"model\":\"m\",\"z\":[" + repeated(object_of(512) + ",", 500) + "0]}";
  EXPECT_EQ(parse_generate(objects).model, "m");
  EXPECT_THROW(parse_generate("{\"z\":" + object_of(80000) + "}"), Error);
}

TEST(JsonLimits, BrokenCharactersAreNamed) {
  for (const std::string bad : {"{\"model\":\"a\\ud83d\"}", "{\"model\":\"\xff\"}"}) {
    try {
      parse_generate(bad);
      FAIL() << bad;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("broken character"));
    }
  }
}

}  // namespace
}  // namespace steelyard::api
