// How thoughts and calls of tools look in each dialect.
#include "api/answers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sstream>

#include "api/fields.h"
#include "engine/answer_parser.h"
#include "engine/engine.h"

namespace steelyard::api {
namespace {

using ::testing::HasSubstr;

constexpr std::string_view kAnswer =
    "<think>\nWhere?\n</think>\n\nI look.\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": "
    "\"Bonn\"}}\n</tool_call><tool_call>{\"name\": \"time\"}</tool_call>";

AnswerFacts facts() {
  AnswerFacts f;
  f.model = "tiny";
  f.syntax = answer_syntax("<think> <tool_call>", Json::array(), "");
  return f;
}

Choice choice(std::string_view text = kAnswer) {
  Choice c;
  c.text = text;
  c.answer.reason = DoneReason::stop;
  return c;
}

// The stream of the answer, byte by byte, without its frames' heads.
std::vector<Json> stream(AnswerFormat& format) {
  std::string all = format.opening();
  for (std::size_t at = 0; at < kAnswer.size(); ++at) all += format.piece({.text = kAnswer.substr(at, 1)});
  const Choice whole[] = {choice()};
  all += format.ended(0, whole[0]);
  all += format.closing(whole);
  std::vector<Json> frames;
  std::istringstream lines(all);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("data: ")) line.erase(0, 6);
    if (line.starts_with('{')) frames.push_back(Json::parse(line));
  }
  return frames;
}

Json whole(AnswerFormat& format) {
  const Choice choices[] = {choice()};
  return Json::parse(format.whole(choices).body);
}

TEST(AnswerFormats, OllamaTellsThoughtsAndCalls) {
  const auto format = chat_format(facts());
  const Json message = whole(*format)["message"];
  EXPECT_EQ(message["content"], "I look.");
  EXPECT_EQ(message["thinking"], "Where?");
  ASSERT_EQ(message["tool_calls"].size(), 2u);
  EXPECT_EQ(message["tool_calls"][0]["function"].dump(),
            R"({"index":0,"name":"weather","arguments":{"city":"Bonn"}})");
  EXPECT_EQ(message["tool_calls"][1]["function"].dump(), R"({"index":1,"name":"time","arguments":{}})");
  std::string content, thinking;
  Json calls = Json::array();
  for (const Json& frame : stream(*chat_format(facts()))) {
    const Json& m = frame["message"];
    content += m["content"].get<std::string>();
    thinking += m.value("thinking", "");
    if (m.contains("tool_calls"))
      for (const Json& call : m["tool_calls"]) calls.push_back(call["function"]);
  }
  EXPECT_EQ(content, "I look.");
  EXPECT_EQ(thinking, "Where?");
  EXPECT_EQ(calls.dump(),
            Json({message["tool_calls"][0]["function"], message["tool_calls"][1]["function"]}).dump());
  EXPECT_EQ(whole(*generate_format(facts()))["response"], "I look.");
}

TEST(AnswerFormats, OpenAiTellsThoughtsAndCalls) {
  const auto format = openai_format(facts(), {});
  const Json choice = whole(*format)["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(choice["message"]["content"], "I look.");
  EXPECT_EQ(choice["message"]["reasoning_content"], "Where?");
  EXPECT_EQ(choice["message"]["tool_calls"][0]["function"].dump(),
            R"({"name":"weather","arguments":"{\"city\":\"Bonn\"}"})");
  EXPECT_NE(choice["message"]["tool_calls"][0]["id"], choice["message"]["tool_calls"][1]["id"]);
  std::string content, thinking;
  std::vector<Json> calls;
  Json reason;
  for (const Json& frame : stream(*openai_format(facts(), {}))) {
    const Json& c = frame["choices"][0];
    content += c["delta"].value("content", "");
    thinking += c["delta"].value("reasoning_content", "");
    if (c["delta"].contains("tool_calls")) calls.push_back(c["delta"]["tool_calls"][0]);
    reason = c["finish_reason"];
  }
  EXPECT_EQ(content, "I look.");
  EXPECT_EQ(thinking, "Where?");
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[0]["index"], 0);
  EXPECT_EQ(calls[1]["index"], 1);
  EXPECT_EQ(calls[0]["function"]["arguments"], "{\"city\":\"Bonn\"}");
  EXPECT_EQ(reason, "tool_calls");
}

TEST(AnswerFormats, AnthropicTellsThemAsBlocks) {
  const Json message = whole(*messages_format(facts()));
  EXPECT_EQ(message["stop_reason"], "tool_use");
  ASSERT_EQ(message["content"].size(), 4u);
  EXPECT_EQ(message["content"][0]["thinking"], "Where?");
  EXPECT_EQ(message["content"][1]["text"], "I look.");
  EXPECT_EQ(message["content"][2]["input"].dump(), R"({"city":"Bonn"})");
  std::vector<std::string> types;
  int open = 0;
  for (const Json& event : stream(*messages_format(facts()))) {
    if (event["type"] == "content_block_start") {
      EXPECT_EQ(event["index"], types.size());
      types.push_back(event["content_block"]["type"]);
      EXPECT_EQ(++open, 1);
    }
    if (event["type"] == "content_block_stop") {
      EXPECT_EQ(--open, 0);
    }
    if (event["type"] == "message_delta") {
      EXPECT_EQ(event["delta"]["stop_reason"], "tool_use");
    }
  }
  EXPECT_EQ(types, (std::vector<std::string>{"thinking", "text", "tool_use", "tool_use"}));
  EXPECT_EQ(open, 0);
}

TEST(AnswerFormats, WithoutMarksTextIsText) {
  AnswerFacts plain;
  plain.model = "tiny";
  for (const auto& format : {chat_format(plain), openai_format(plain, {}), messages_format(plain)})
    EXPECT_THAT(whole(*format).dump(), HasSubstr("<tool_call>"));
}

}  // namespace
}  // namespace steelyard::api
