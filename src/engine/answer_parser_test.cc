#include "engine/answer_parser.h"

#include <gtest/gtest.h>

#include <random>

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;
using Kind = AnswerPart::Kind;

const Json kTools =
    Json::parse(R"([{"type": "function", "function": {"name": "weather", "parameters": {"type": "object",
    "properties": {"city": {"type": ["string", "null"]}, "days": {"type": "integer"}}}}}])");

// "think:…|text:…|weather{…}", neighbours of one kind joined.
std::string told(const std::vector<AnswerPart>& parts) {
  std::string out;
  const AnswerPart* last = nullptr;
  for (const AnswerPart& p : parts) {
    const bool joined = last && last->kind == p.kind && p.kind != Kind::call;
    if (last && !joined) out += '|';
    if (!joined) out += p.kind == Kind::text ? "text:" : p.kind == Kind::thinking ? "think:" : "";
    out += p.text;
    if (p.kind == Kind::call) out += p.arguments.dump();
    last = &p;
  }
  return out;
}

std::string parse(const AnswerSyntax& syntax, const std::vector<std::string_view>& pieces) {
  AnswerParser parser(syntax);
  std::vector<AnswerPart> parts;
  for (const std::string_view piece : pieces) parser.push(piece, parts);
  parser.finish(parts);
  return told(parts);
}

// Whole, cut in two at every byte, and byte by byte.
void expect_told(const AnswerSyntax& syntax, std::string_view answer, const std::string& want) {
  EXPECT_EQ(parse(syntax, {answer}), want) << answer;
  for (std::size_t at = 1; at < answer.size(); ++at)
    ASSERT_EQ(parse(syntax, {answer.substr(0, at), answer.substr(at)}), want) << answer << " cut at " << at;
  std::vector<std::string_view> bytes;
  for (std::size_t at = 0; at < answer.size(); ++at) bytes.push_back(answer.substr(at, 1));
  EXPECT_EQ(parse(syntax, bytes), want) << answer;
}

std::string text_part(std::string_view text) {
  std::string out = "text:";
  return out.append(text);
}

AnswerSyntax with_tools(std::string_view chat_template) { return answer_syntax(chat_template, kTools, ""); }

TEST(AnswerParser, PlainAnswersStayAsTheyAre) {
  for (const char* answer :
       {"", " ", "Hello.", "\n\nHello \n", "a < b, <b>, </think>, <tool_call>", "{\"name\": \"weather\"}"}) {
    expect_told(answer_syntax("no marks", nullptr, ""), answer, *answer ? text_part(answer) : std::string());
    expect_told(answer_syntax("<tool_call>", nullptr, ""), answer,
                *answer ? text_part(answer) : std::string());
  }
}

TEST(AnswerParser, ThoughtsStandAtTheBeginning) {
  const AnswerSyntax s = answer_syntax("… <think> …", nullptr, "<|im_start|>assistant\n");
  expect_told(s, "<think>\nWell, <b>.\n\n</think>\n\nHello.\n", "think:Well, <b>.|text:Hello.\n");
  expect_told(s, "<think>\n\n</think>\n\nHello.", "text:Hello.");
  expect_told(s, "<think>never ends ", "think:never ends");
  expect_told(s, "The tag <think> is said </think> here.", "text:The tag <think> is said </think> here.");
  expect_told(s, "\n <think>a</think>b</think>", "think:a|text:b</think>");
  expect_told(s, "<thin", "text:<thin");
  const AnswerSyntax opened = answer_syntax("… <think> …", nullptr, "assistant\n<think>\n");
  EXPECT_TRUE(opened.thinking);
  expect_told(opened, "\nWell.\n</think>\nHello.", "think:Well.|text:Hello.");
  expect_told(opened, "<think>\nWell.</think>Hello.", "think:Well.|text:Hello.");
  const AnswerSyntax other = answer_syntax("[THINK]", nullptr, "");
  expect_told(other, "[THINK]é[/THINK]ü", "think:é|text:ü");
}

TEST(AnswerParser, CallsOfTheFamilies) {
  struct Case {
    const char *chat_template, *answer, *want;
  };
  const Case cases[] = {
      {"<tool_call>",
       "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Bonn\"}}\n</tool_call>",
       R"(weather{"city":"Bonn"})"},
      {"<tool_call>",
       "I look.\n\n<tool_call>{\"name\": \"weather\", \"arguments\": {}}</tool_call>\n<tool_call>{\"name\": "
       "\"other\"}</tool_call>\n",
       R"(text:I look.|weather{}|other{})"},
      {"<tool_call>",
       "<tool_call>\n<function=weather>\n<parameter=city>\n5\n</parameter>\n<parameter=days>\n5\n</"
       "parameter>\n</function>\n</tool_call>",
       R"(weather{"city":"5","days":5})"},
      {"<tool_call>",
       "<tool_call>weather\n<arg_key>city</arg_key>\n<arg_value>Ulm</arg_value>\n<arg_key>days</"
       "arg_key>\n<arg_value>2</arg_value>\n</tool_call>",
       R"(weather{"city":"Ulm","days":2})"},
      {"[TOOL_CALLS]", "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"days\": 1}, \"id\": \"x\"}]",
       R"(weather{"days":1})"},
      {"[TOOL_CALLS]", "[TOOL_CALLS]weather[ARGS]{\"days\": 1}[TOOL_CALLS]weather[CALL_ID]a1[ARGS]{}",
       R"(weather{"days":1}|weather{})"},
      {"<|tool_call|>", "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"city\": \"]\"}}]",
       R"(weather{"city":"]"})"},
      {"<|/tool_call|>", "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {}}]<|/tool_call|>",
       "weather{}"},
      {"<|python_tag|>", "{\"name\": \"weather\", \"parameters\": {\"city\": \"Rom\"}}",
       R"(weather{"city":"Rom"})"},
      {"<|python_tag|>",
       "<|python_tag|>{\"name\": \"weather\", \"parameters\": {}}; {\"name\": \"weather\", \"parameters\": "
       "{\"days\": 2}}",
       R"(weather{}|weather{"days":2})"},
      {"nothing known", "\n{\"function\": {\"name\": \"weather\", \"arguments\": \"{\\\"days\\\": 3}\"}}",
       R"(weather{"days":3})"},
      {"<｜tool▁call▁begin｜>",
       "Ja.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n{\"city\": "
       "\"Köln\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       R"(text:Ja.|weather{"city":"Köln"})"},
      {"<｜tool▁call▁begin｜>",
       "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"days\": "
       "1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
       R"(weather{"days":1})"},
      {"<think> <tool_call>", "<think>Hm</think>\n\n<tool_call>{\"name\": \"weather\"}</tool_call>",
       "think:Hm|weather{}"},
  };
  for (const Case& c : cases) expect_told(with_tools(c.chat_template), c.answer, c.want);
}

TEST(AnswerParser, WhatIsNoCallIsText) {
  const AnswerSyntax tagged = with_tools("<tool_call>");
  for (const char* answer :
       {"<tool_call>not json</tool_call>", "<tool_call>{\"name\": 5}</tool_call> more",
        "<tool_call>{\"name\": \"a b\"}</tool_call>", "<tool_call>{\"name\": \"weather\", \"argum",
        "<tool_call>{\"name\": \"weather\", \"arguments\": [1]}</tool_call>", "a <tool_cal"})
    expect_told(tagged, answer, text_part(answer));
  const AnswerSyntax bare = with_tools("<|python_tag|>");
  for (const char* answer : {"{\"name\": \"unknown\", \"parameters\": {}}", "{\"a\": 1}", "[1, 2]", "{"})
    expect_told(bare, answer, text_part(answer));
  std::string deep = "<tool_call>{\"name\": \"weather\", \"arguments\": ";
  for (int i = 0; i < 100000; ++i) deep += "{\"a\":";
  EXPECT_EQ(parse(tagged, {deep, "</tool_call>"}), text_part(deep + "</tool_call>"));
}

TEST(AnswerParser, AWordIsNoCallAndAMarkInAStringIsNoMark) {
  const AnswerSyntax tagged = with_tools("<tool_call>");
  expect_told(tagged, "<tool_call>hello</tool_call>", text_part("<tool_call>hello</tool_call>"));
  expect_told(tagged, "<tool_call>weather</tool_call>", "weather{}");
  expect_told(tagged,
              R"(<tool_call>{"name": "weather", "arguments": {"city": "a</tool_call>\"b"}}</tool_call>c)",
              R"(weather{"city":"a</tool_call>\"b"}|text:c)");
  expect_told(with_tools("[TOOL_CALLS]"), "[TOOL_CALLS][{\"name\": \"weather\"}] done",
              "weather{}|text:done");
  expect_told(with_tools("[TOOL_CALLS]"), "[TOOL_CALLS][{\"name\": \"weather\"}, {}]",
              text_part("[TOOL_CALLS][{\"name\": \"weather\"}, {}]"));
}

// Many marks in one piece: looked through once each, not each to the answer's end.
TEST(AnswerParser, ManyCallsAtOnce) {
  std::string answer, want;
  for (int i = 0; i < 20000; ++i) {
    answer += "<｜tool▁call▁begin｜>weather<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
    want += want.empty() ? "weather{}" : "|weather{}";
  }
  EXPECT_EQ(parse(with_tools("<｜tool▁call▁begin｜>"), {answer}), want);
}

TEST(AnswerParser, OneCallIsEnoughWhereOneWasAskedFor) {
  AnswerSyntax s = with_tools("<tool_call>");
  s.one_call = true;
  expect_told(s,
              "<tool_call>{\"name\": \"weather\"}</tool_call><tool_call>{\"name\": \"weather\"}</tool_call>",
              "weather{}");
}

// Whatever comes, in whatever pieces: the same parts, and nothing is lost but marks and white space.
TEST(AnswerParser, AnyBytesInAnyPieces) {
  std::mt19937 random(5);
  const std::vector<std::string> words = {"<think>",
                                          "</think>",
                                          "<tool_call>",
                                          "</tool_call>",
                                          "{\"name\": \"weather\"}",
                                          "{",
                                          "}",
                                          "\"",
                                          "[",
                                          "x",
                                          " ",
                                          "\n",
                                          "<",
                                          "é",
                                          "<function=",
                                          ">",
                                          "</function>"};
  for (int round = 0; round < 3000; ++round) {
    std::string text;
    for (unsigned n = random() % 12; n > 0; --n) text += words[random() % words.size()];
    const AnswerSyntax s = answer_syntax("<think> <tool_call>", kTools, random() % 2 ? "<think>" : "");
    std::vector<std::string_view> pieces;
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t n = 1 + random() % 4;
      pieces.push_back(std::string_view(text).substr(at, n));
      at += n;
    }
    ASSERT_EQ(parse(s, pieces), parse(s, {text})) << text;
  }
}

}  // namespace
}  // namespace steelyard
