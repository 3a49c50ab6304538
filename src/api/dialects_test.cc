// Anthropic's messages, OpenAI's responses, llama-server's paths and the metrics.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "api/testing/server_fixture.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Json = nlohmann::json;

using Events = std::vector<std::pair<std::string, Json>>;

Events events_of(const std::string& body) {
  Events events;
  std::string name;
  std::istringstream lines(body);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("event: ")) name = line.substr(7);
    if (line.starts_with("data: ")) events.emplace_back(name, Json::parse(line.substr(6)));
  }
  return events;
}

const std::string kMessages =
    R"({"model": "tiny", "max_tokens": 5, "temperature": 0, "system": [{"type": "text", "text": "be short"}],
  "messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": [{"type": "text", "text": "hi"}]},
               {"role": "user", "content": [{"type": "text", "text": "and "}, {"type": "text", "text": "now?"}]}])";

TEST_F(ServerTest, AnswersAnthropicsMessages) {
  const Response r = ask("POST", "/v1/messages", kMessages + "}");
  ASSERT_EQ(r.status, 200) << r.body;
  const Json whole = Json::parse(r.body);
  EXPECT_EQ(whole["type"], "message");
  EXPECT_EQ(whole["stop_reason"], "max_tokens");
  EXPECT_EQ(whole["usage"]["output_tokens"], 5);
  const Events events = events_of(ask("POST", "/v1/messages", kMessages + R"(, "stream": true})").body);
  std::string text;
  for (const auto& [name, e] : events) {
    EXPECT_EQ(name, e["type"]);
    if (name == "content_block_delta") text += e["delta"]["text"].get<std::string>();
  }
  EXPECT_EQ(text, whole["content"][0]["text"]);
  EXPECT_EQ(events.front().first, "message_start");
  EXPECT_EQ(events.back().first, "message_stop");
  const Json count = Json::parse(ask("POST", "/v1/messages/count_tokens", kMessages + "}").body);
  EXPECT_EQ(count["input_tokens"], events.front().second["message"]["usage"]["input_tokens"]);
  EXPECT_EQ(whole["usage"]["input_tokens"].get<int>() + whole["usage"]["cache_read_input_tokens"].get<int>(),
            count["input_tokens"].get<int>());
}

TEST_F(ServerTest, TellsAnthropicsErrors) {
  const auto error = [&](const std::string& body, int status) {
    const Response r = ask("POST", "/v1/messages", body);
    EXPECT_EQ(r.status, status) << r.body;
    const Json j = Json::parse(r.body);
    EXPECT_EQ(j["type"], "error");
    return j["error"];
  };
  EXPECT_EQ(error(R"({"model": "nobody", "max_tokens": 1, "messages": [{"role": "user", "content": "x"}]})",
                  404)["type"],
            "not_found_error");
  const std::string head = R"({"model": "tiny", "max_tokens": 1, "messages": [)";
  const std::pair<const char*, const char*> bad[] = {
      {R"({"role": "system", "content": "x"}]})", "role"},
      {R"({"role": "user", "content": [{"type": "image", "source": {}}]}]})", "image"},
      {R"({"role": "user", "content": [{"type": "tool_result"}]}]})", "tool_use_id"},
      {R"({"role": "user", "content": [7]}]})", "object"},
      {R"({"role": "user", "content": "x"}], "tools": [{"type": "web_search_20250305", "name": "w"}]})",
       "type"},
      {R"({"role": "user", "content": "x"}], "tool_choice": {"type": "any"}})", "tool_choice"},
      {"]}", "messages"}};
  for (const auto& [rest, says] : bad) {
    const Json e = error(head + rest, 400);
    EXPECT_EQ(e["type"], "invalid_request_error");
    EXPECT_THAT(e["message"].get<std::string>(), HasSubstr(says));
  }
  EXPECT_THAT(error(R"({"model": "tiny", "messages": [{"role": "user", "content": "x"}]})", 400)["message"]
                  .get<std::string>(),
              HasSubstr("max_tokens"));
}

const std::string kResponses =
    R"({"model": "tiny", "max_output_tokens": 5, "temperature": 0, "instructions": "be short", "input": )";

TEST_F(ServerTest, AnswersOpenAisResponses) {
  const std::string items = R"([{"role": "user", "content": [{"type": "input_text", "text": "hello"}]}])";
  const Json whole = Json::parse(ask("POST", "/v1/responses", kResponses + items + "}").body);
  ASSERT_TRUE(whole.contains("output")) << whole;
  EXPECT_EQ(whole["status"], "incomplete");
  EXPECT_EQ(whole["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(whole["usage"]["output_tokens"], 5);
  const Events events =
      events_of(ask("POST", "/v1/responses", kResponses + R"("hello", "stream": true})").body);
  std::string text;
  for (std::size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].first, events[i].second["type"]);
    EXPECT_EQ(events[i].second["sequence_number"], i);
    if (events[i].first == "response.output_text.delta") text += events[i].second["delta"].get<std::string>();
  }
  EXPECT_EQ(text, whole["output"][0]["content"][0]["text"]);
  EXPECT_EQ(events.back().first, "response.incomplete");
  for (const char* bad : {R"("x", "previous_response_id": "resp_1")", "[]", "7",
                          R"([{"type": "item_reference"}])", R"("x", "tools": [{"type": "web_search"}])",
                          R"("x", "truncation": "all")", R"("x", "text": {"format": 7})"})
    EXPECT_EQ(ask("POST", "/v1/responses", kResponses + bad + "}").status, 400) << bad;
}

TEST_F(ServerTest, AnswersLlamaServersPaths) {
  EXPECT_EQ(Json::parse(ask("GET", "/health").body)["status"], "ok");
  EXPECT_EQ(ask("POST", "/tokenize", R"({"content": "a"})").status, 400);  // there are two models
  const Json tokens =
      Json::parse(ask("POST", "/tokenize", R"({"model": "tiny", "content": "hello there"})").body);
  ASSERT_GT(tokens["tokens"].size(), 1u) << tokens;
  const Json text = Json::parse(ask("POST", "/detokenize", Json{{"tokens", tokens["tokens"]}}.dump()).body);
  EXPECT_EQ(text["content"], "hello there");  // the one that is loaded
  EXPECT_EQ(ask("POST", "/detokenize", R"({"tokens": [99999999]})").status, 200);
  const Json pieces =
      Json::parse(ask("POST", "/tokenize?model=tiny", R"({"content": "hi", "with_pieces": true})").body);
  EXPECT_TRUE(pieces["tokens"][0].contains("piece"));
  const Json prompt = Json::parse(
      ask("POST", "/apply-template", R"({"messages": [{"role": "user", "content": "hello there"}]})").body);
  EXPECT_THAT(prompt["prompt"].get<std::string>(), HasSubstr("hello there"));
  const Json props = Json::parse(ask("GET", "/props").body);
  EXPECT_EQ(props["total_slots"], 4);
  EXPECT_EQ(props["default_generation_settings"]["n_ctx"], 512);
  EXPECT_THAT(props.dump(), ::testing::Not(HasSubstr(directory_.string())));
  EXPECT_EQ(Json::parse(ask("GET", "/slots").body).size(), 4u);
}

TEST_F(ServerTest, CountsForPrometheus) {
  ask("POST", "/api/generate", kGenerate);
  ask("GET", "/no/such/\"path");
  std::string text;
  // A request is counted, and leaves its slot, a moment after its answer.
  const auto there = [&text](std::string_view line) { return text.find(line) != text.npos; };
  for (int i = 0; i < 1000 && !(there("path=\"other\"") && there("running{model=\"tiny\"} 0\n")); ++i)
    text = ask("GET", "/metrics").body;
  EXPECT_THAT(text, HasSubstr("steelyard_http_requests_total{path=\"/api/generate\",status=\"200\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("steelyard_generated_tokens_total 6\n"));
  EXPECT_THAT(text, HasSubstr("steelyard_time_to_first_token_seconds_bucket{le=\"+Inf\"} 1\n"));
  EXPECT_THAT(text, HasSubstr("steelyard_requests_running{model=\"tiny\"} 0\n"));
  EXPECT_THAT(text, HasSubstr("steelyard_slots{model=\"tiny\"} 4\n"));
  EXPECT_THAT(text, HasSubstr("steelyard_steps_total{model=\"tiny\"} "));
  EXPECT_TRUE(Json::parse(ask("GET", "/metrics/history").body).at("points").empty());  // nobody watches
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);)
    EXPECT_THAT(line, ::testing::ContainsRegex("^(# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\\{.*\\})? [0-9.e+-]+)$"));
}

}  // namespace
}  // namespace steelyard
