#include "api/requests.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "api/access.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

template <typename Parse>
std::string refusal_of(const Parse& parse, std::string_view body) {
  try {
    parse(body);
  } catch (const Error& e) {
    return e.what();
  }
  return "accepted";
}

TEST(Generate, ReadsWhatClientsSend) {
  const auto r =
      parse_generate(R"({"model": "m", "prompt": "p", "system": "s", "stream": false, "keep_alive": "5m",
    "context": [1, 2], "think": "high", "format": "", "suffix": null, "unknown": {"x": 1},
    "options": {"temperature": 0.5, "top_k": 7, "seed": 42, "num_predict": 9, "num_ctx": 2048.0, "stop": ["a", "", "b"],
                "repeat_penalty": 1.2, "num_gpu": 2, "mirostat": 0}})");
  EXPECT_EQ(r.model, "m");
  EXPECT_EQ(r.prompt, "p");
  EXPECT_EQ(r.system, "s");
  EXPECT_FALSE(r.stream);
  EXPECT_EQ(r.keep_alive, KeepAlive(5min));
  EXPECT_THAT(r.context, ElementsAre(1, 2));
  EXPECT_EQ(r.think, true);
  EXPECT_FLOAT_EQ(r.options.sampling.temperature, 0.5f);
  EXPECT_EQ(r.options.sampling.top_k, 7);
  EXPECT_FALSE(r.options.random_seed);
  EXPECT_EQ(r.options.sampling.seed, 42u);
  EXPECT_EQ(r.options.num_predict, 9);
  EXPECT_EQ(r.options.num_ctx, 2048u);
  EXPECT_THAT(r.options.stop, ElementsAre("a", "b"));
  EXPECT_THAT(r.options.ignored, ElementsAre("num_gpu"));
}

TEST(Generate, MinusOneTurnsTopKOff) {
  EXPECT_EQ(parse_generate(R"({"model": "m", "options": {"top_k": -1}})").options.sampling.top_k, -1);
  EXPECT_THROW(parse_generate(R"({"model": "m", "options": {"top_k": -2}})"), Error);
}

TEST(Generate, SeedsMayHave63Bits) {
  const auto seed_of = [](const std::string& text) {
    return parse_generate(R"({"model": "m", "options": {"seed": )" + text + "}}").options.sampling.seed;
  };
  EXPECT_EQ(seed_of("9223372036854775807"), 9223372036854775807u);
  EXPECT_EQ(seed_of("9007199254740993"), 9007199254740993u);
  EXPECT_THROW(seed_of("18446744073709551615"), Error);
}

TEST(Generate, DefaultsAreOllamas) {
  const auto r = parse_generate(R"({"model": "m"})");
  EXPECT_TRUE(r.stream);
  EXPECT_TRUE(r.options.random_seed);
  EXPECT_FLOAT_EQ(r.options.sampling.temperature, 0.8f);
  EXPECT_EQ(r.options.sampling.top_k, 40);
  EXPECT_FLOAT_EQ(r.options.sampling.top_p, 0.9f);
  EXPECT_FLOAT_EQ(r.options.sampling.repeat_penalty, 1.0f);
  EXPECT_EQ(r.options.num_predict, -1);
}

TEST(OpenAi, DefaultsAreOpenAis) {
  const auto r = parse_openai_chat(R"({"model": "m", "messages": [{"role": "user", "content":
    [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}], "max_tokens": 3, "stop": "x",
    "stream": true, "stream_options": {"include_usage": true}})");
  EXPECT_FLOAT_EQ(r.options.sampling.temperature, 0.8f);  // as in the native dialect
  EXPECT_FLOAT_EQ(r.options.sampling.top_p, 0.9f);
  EXPECT_EQ(r.options.num_predict, 3);
  EXPECT_EQ(r.input.messages[0]["content"], "ab");
  EXPECT_TRUE(r.stream && r.include_usage);
  EXPECT_FALSE(parse_openai_chat(R"({"model": "m", "messages": [{"role": "user", "content": "x"}]})").stream);
}

TEST(Requests, NameTheFieldThatIsWrong) {
  EXPECT_THAT(refusal_of(parse_generate, "nonsense"), HasSubstr("no valid JSON"));
  EXPECT_THAT(refusal_of(parse_generate, "[]"), HasSubstr("object"));
  EXPECT_THAT(refusal_of(parse_generate, "{}"), HasSubstr("\"model\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": 3})"), HasSubstr("\"model\" must be a string"));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "prompt": []})"), HasSubstr("\"prompt\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "stream": "yes"})"), HasSubstr("\"stream\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "options": {"temperature": "hot"}})"),
              HasSubstr("\"options.temperature\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "options": {"top_k": 1.5}})"),
              HasSubstr("whole number"));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "keep_alive": "soon"})"), HasSubstr("duration"));
  EXPECT_THAT(refusal_of(parse_generate, "{\"model\": \"\xff\"}"), HasSubstr("no UTF-8"));
  EXPECT_THAT(refusal_of(parse_generate, "{\"model\": "), HasSubstr("no valid JSON"));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "x": 1e999})"), HasSubstr("out of range"));
  EXPECT_THAT(refusal_of(parse_chat, R"({"model": "m", "messages": [{"content": "x"}]})"),
              HasSubstr("\"messages[0].role\""));
  EXPECT_THAT(refusal_of(parse_chat, R"({"model": "m", "messages": {}})"),
              HasSubstr("\"messages\" must be a list"));
  EXPECT_THAT(refusal_of(parse_openai_chat, R"({"model": "m", "messages": []})"), HasSubstr("\"messages\""));
  EXPECT_THAT(refusal_of(parse_chat, "{\"model\": \"m\", \"x\": " + std::string(500, '[')),
              HasSubstr("nested deeper"));
}

TEST(Requests, RefuseWhatWouldChangeTheAnswer) {
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "format": "yaml"})"), HasSubstr("\"format\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "images": ["aGk="]})"), HasSubstr("\"images\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "suffix": "x"})"), HasSubstr("\"suffix\""));
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "template": "x"})"), HasSubstr("\"template\""));
  const std::string head = R"({"model": "m", "messages": [{"role": "user", "content": "x"}], )";
  EXPECT_THAT(refusal_of(parse_openai_chat, head + R"("n": 129})"), HasSubstr("\"n\""));
  EXPECT_THAT(refusal_of(parse_openai_chat, head + R"("top_logprobs": 2})"), HasSubstr("\"logprobs\""));
  EXPECT_THAT(refusal_of(parse_openai_chat, head + R"("response_format": {"type": "xml"}})"),
              HasSubstr("response_format.type"));
  EXPECT_EQ(refusal_of(parse_openai_chat, head + R"("response_format": {"type": "text"}})"), "accepted");
}

TEST(Requests, HoldAnswersToFormats) {
  constexpr auto kSchema = R"({"type": "object", "properties": {"a": {"type": "integer"}}})";
  EXPECT_TRUE(parse_generate(R"({"model": "m", "format": "json"})").grammar);
  EXPECT_FALSE(parse_generate(R"({"model": "m", "format": ""})").grammar);
  EXPECT_TRUE(parse_chat(fmt::format(R"({{"model": "m", "format": {}}})", kSchema)).grammar);
  EXPECT_TRUE(parse_chat(R"({"model": "m", "grammar": "root ::= \"yes\" | \"no\""})").grammar);
  EXPECT_THAT(refusal_of(parse_chat, R"({"model": "m", "grammar": "root ::= \"yes"})"), HasSubstr("line 1"));
  EXPECT_THAT(refusal_of(parse_chat, R"({"model": "m", "format": {"not": {}}})"), HasSubstr("\"not\""));
  EXPECT_THAT(refusal_of(parse_chat, R"({"model": "m", "format": "json", "tools": [{}]})"),
              HasSubstr("\"tools\""));
  const std::string head =
      R"({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], )";
  const std::string format = fmt::format(R"({{"type": "json_schema", "schema": {}}})", kSchema);
  EXPECT_TRUE(parse_openai_chat(head + R"("response_format": {"type": "json_object"}})").grammar);
  EXPECT_TRUE(
      parse_openai_chat(
          head +
          fmt::format(
              R"("response_format": {{"type": "json_schema", "json_schema": {{"name": "n", "schema": {}}}}}}})",
              kSchema))
          .grammar);
  EXPECT_THAT(refusal_of(parse_openai_chat, head + R"("response_format": {"type": "json_schema"}})"),
              HasSubstr("json_schema"));
  EXPECT_TRUE(parse_messages(head + R"("output_config": {"format": )" + format + "}}").grammar);
  EXPECT_TRUE(parse_responses(R"({"model": "m", "input": "x", "text": {"format": )" + format + "}}").grammar);
}

TEST(KeepAlive, ReadsDurations) {
  EXPECT_EQ(parse_keep_alive("5m"), KeepAlive(5min));
  EXPECT_EQ(parse_keep_alive("1h30m"), KeepAlive(90min));
  EXPECT_EQ(parse_keep_alive("250ms"), KeepAlive(250ms));
  EXPECT_EQ(parse_keep_alive("1.5s"), KeepAlive(1500ms));
  EXPECT_EQ(parse_keep_alive("90"), KeepAlive(90s));
  EXPECT_EQ(parse_keep_alive("0"), KeepAlive(0));
  EXPECT_LT(parse_keep_alive("-1"), KeepAlive(0));
  EXPECT_LT(parse_keep_alive("-1m"), KeepAlive(0));
  for (const char* bad : {"", "-", "m", "5x", "5 m", "1.2.3s", "1e9"})
    EXPECT_THROW(parse_keep_alive(bad), Error) << bad;
}

TEST(Requests, WhatIsNotNamedIsAsTheModelHasIt) {
  AnswerOptions defaults;
  defaults.sampling.temperature = 0.25f;
  defaults.sampling.top_k = 7;
  const auto r = parse_openai_chat(
      R"({"model": "m", "messages": [{"role": "developer", "content": "x"}], "top_k": 3, "min_p": 0.5, "num_ctx": 99})");
  const AnswerOptions o = r.options.over(defaults);
  EXPECT_FLOAT_EQ(o.sampling.temperature, 0.25f);
  EXPECT_EQ(o.sampling.top_k, 3);
  EXPECT_FLOAT_EQ(o.sampling.min_p, 0.5f);
  EXPECT_EQ(r.options.num_ctx, 99u);
  EXPECT_EQ(r.input.messages[0]["role"], "system");
}

TEST(Requests, MirostatIsRefusedOnlyWhenItIsOn) {
  EXPECT_THAT(refusal_of(parse_generate, R"({"model": "m", "options": {"mirostat": 1}})"),
              HasSubstr("mirostat"));
  EXPECT_EQ(refusal_of(parse_generate, R"({"model": "m", "options": {"mirostat": 0}})"), "accepted");
}

TEST(Access, HostsAreReadStrictly) {
  EXPECT_EQ(host_name("LocalHost.:80"), "localhost");
  EXPECT_EQ(host_name("[::1]:80"), "::1");
  EXPECT_EQ(host_name("a_b-c.example"), "a_b-c.example");
  for (const char* bad : {"", ":80", "[::1", "[::1].evil.com", "[::1]x", "[evil]", "localhost:80@evil.com",
                          "localhost:", "localhost:123456", "a b", "a/b", "user@localhost"})
    EXPECT_EQ(host_name(bad), "") << bad;
}

TEST(Access, LoopbackServersAnswerOnlyHostsThatNoStrangerControls) {
  const AccessRules local = make_access_rules(true, {"My.Box"}, {"https://App.example/"});
  for (const char* host :
       {"", "localhost:11434", "LOCALHOST", "localhost.", "127.0.0.1:1", "127.1.2.3", "[::1]:5",
        "[::ffff:127.0.0.1]", "a.localhost", "my.box", "MY.box:1", "host.docker.internal:11434", "box.local",
        "192.168.1.5", "10.0.0.1:80", "[fd00::1]"})
    EXPECT_EQ(refusal(local, host, ""), "") << host;
  for (const char* host : {"evil.com", "127.0.0.1.evil.com", "localhost.evil.com:80", "[::1].evil.com",
                           "localhost:80@evil.com", "0x7f000001", "8.8.8.8", "notlocalhost", "local"})
    EXPECT_NE(refusal(local, host, ""), "") << host;
  char own[256] = {};
  ASSERT_EQ(gethostname(own, sizeof own - 1), 0);
  EXPECT_EQ(refusal(local, own, ""), "") << own;
  EXPECT_EQ(refusal(make_access_rules(false, {}, {}), "any.name", ""), "");
  EXPECT_EQ(refusal(make_access_rules(true, {"*"}, {}), "any.name", ""), "");
}

TEST(Access, ForeignOriginsAreRefusedEverywhere) {
  for (const bool loopback : {true, false}) {
    const AccessRules rules = make_access_rules(loopback, {}, {"https://App.example/"});
    for (const char* origin : {"http://localhost:3000", "https://127.0.0.1", "https://app.example",
                               "HTTP://LOCALHOST", "app://obsidian.md"})
      EXPECT_EQ(refusal(rules, "localhost", origin), "") << origin;
    for (const char* origin :
         {"https://evil.com", "null", "http://localhost.evil.com", "http://[::1].evil.com",
          "http://localhost:80@evil.com", "https://app.example.evil.com"})
      EXPECT_NE(refusal(rules, "localhost", origin), "") << origin;
  }
  EXPECT_EQ(refusal(make_access_rules(true, {}, {"*"}), "", "https://evil.com"), "");
}

}  // namespace
}  // namespace steelyard::api
