// The paths beside generate and chat: what a model is, completions, several answers at once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "api/testing/server_fixture.h"

namespace steelyard {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using Json = nlohmann::json;

// The objects of a stream of events, without [DONE].
std::vector<Json> events_of(const std::string& body) {
  std::vector<Json> events;
  std::istringstream lines(body);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with("data: {")) events.push_back(Json::parse(line.substr(6)));
  return events;
}

TEST_F(ServerTest, ShowsAModel) {
  const Response r = ask("POST", "/api/show", R"({"model": "tiny"})");
  ASSERT_EQ(r.status, 200) << r.body;
  const Json show = Json::parse(r.body);
  EXPECT_EQ(show["details"]["family"], "llama");
  EXPECT_EQ(show["model_info"]["general.architecture"], "llama");
  EXPECT_GT(show["model_info"]["llama.context_length"], 0);
  EXPECT_TRUE(show["model_info"]["tokenizer.ggml.tokens"].is_null());  // long arrays only when asked for
  EXPECT_THAT(show["capabilities"], Contains("completion"));
  EXPECT_THAT(show["modelfile"].get<std::string>(), HasSubstr("FROM tiny"));
  EXPECT_THAT(show["template"].get<std::string>(), HasSubstr("messages"));
  const Json verbose = Json::parse(ask("POST", "/api/show", R"({"name": "tiny", "verbose": true})").body);
  EXPECT_GT(verbose["model_info"]["tokenizer.ggml.tokens"].size(), 100u);
  EXPECT_EQ(ask("POST", "/api/show", R"({"model": "nobody"})").status, 404);
  EXPECT_EQ(ask("POST", "/api/show", R"({"model": "../../etc/passwd"})").status, 400);
  EXPECT_EQ(ask("POST", "/api/show", "{}").status, 400);
}

TEST_F(ServerTest, SaysWhatIsLoaded) {
  EXPECT_EQ(Json::parse(ask("GET", "/api/ps").body)["models"].size(), 0u);
  ask("POST", "/api/generate", R"({"model": "tiny", "keep_alive": -1})");
  const Json list = Json::parse(ask("GET", "/api/ps").body)["models"];
  ASSERT_EQ(list.size(), 1u);
  EXPECT_EQ(list[0]["name"], "tiny");
  EXPECT_EQ(list[0]["context_length"], 512);
  EXPECT_EQ(list[0]["size_vram"], 0);
  EXPECT_EQ(list[0]["steelyard"]["kept_for_ever"], true);
  EXPECT_EQ(list[0]["digest"], Json::parse(ask("GET", "/api/tags").body)["models"][1]["digest"]);
  std::uint64_t sum = 0;
  for (const Json& bytes : list[0]["steelyard"]["memory"][0]["by_purpose"]) sum += bytes.get<std::uint64_t>();
  EXPECT_EQ(sum, list[0]["size"]);
}

TEST_F(ServerTest, TellsAVersionThatClientsOfOllamaUnderstand) {
  const Json version = Json::parse(ask("GET", "/api/version").body);
  int major = 0, minor = 0, patch = 0;
  ASSERT_EQ(std::sscanf(version["version"].get<std::string>().c_str(), "%d.%d.%d", &major, &minor, &patch),
            3);
  EXPECT_GT(major * 10000 + minor * 100 + patch, 604);
  EXPECT_TRUE(version.contains("steelyard"));
  for (const char* path : {"/", "/api/version", "/api/tags", "/api/ps", "/v1/models"})
    EXPECT_EQ(ask("HEAD", path).status, 200) << path;
}

const std::string kComplete =
    R"({"model": "tiny", "prompt": ["hello", "there"], "max_tokens": 5, "n": 2, "seed": 7, "echo": true)";

TEST_F(ServerTest, CompletesSeveralPromptsSeveralTimes) {
  const Response r = ask("POST", "/v1/completions", kComplete + "}");
  ASSERT_EQ(r.status, 200) << r.body;
  const Json whole = Json::parse(r.body);
  EXPECT_EQ(whole["object"], "text_completion");
  ASSERT_EQ(whole["choices"].size(), 4u);
  EXPECT_THAT(whole["choices"][1]["text"].get<std::string>(), ::testing::StartsWith("hello"));
  EXPECT_THAT(whole["choices"][2]["text"].get<std::string>(), ::testing::StartsWith("there"));
  EXPECT_NE(whole["choices"][0]["text"], whole["choices"][1]["text"]);  // of one seed, but not the same
  EXPECT_EQ(whole["usage"]["completion_tokens"], 20);

  const Response s = ask("POST", "/v1/completions",
                         kComplete + R"(, "stream": true, "stream_options": {"include_usage": true}})");
  std::map<int, std::string> texts;
  Json usage;
  for (const Json& e : events_of(s.body)) {
    for (const Json& c : e["choices"]) texts[c["index"]] += c["text"].get<std::string>();
    if (e["choices"].empty()) usage = e["usage"];
  }
  for (int i = 0; i < 4; ++i) EXPECT_EQ(texts[i], whole["choices"][i]["text"]);
  EXPECT_EQ(usage["total_tokens"], whole["usage"]["total_tokens"]);
  EXPECT_THAT(s.body, ::testing::EndsWith("data: [DONE]\n\n"));
}

TEST_F(ServerTest, CompletesTokens) {
  const std::string rest = R"(, "max_tokens": 4, "temperature": 0})";
  const Json text =
      Json::parse(ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": "ab")" + rest).body);
  ASSERT_TRUE(text.contains("choices")) << text;
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": [3, 4])" + rest).status, 200);
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": [[3], [4, 5]])" + rest).status,
            200);
  for (const char* bad : {R"([3, "x"])", R"([[3], "x"])", "[]", "7", "[99999999]", R"([""])", "[-1]"})
    EXPECT_EQ(
        ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": )" + std::string(bad) + rest).status,
        400)
        << bad;
  const Response suffix =
      ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": "a", "suffix": "b"})");
  EXPECT_EQ(suffix.status, 400);
  EXPECT_THAT(suffix.body, HasSubstr("suffix"));
  EXPECT_EQ(ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": "a", "n": 129})").status, 400);
}

TEST_F(ServerTest, ChatsWithSeveralChoices) {
  const std::string request = R"({"model": "tiny", "n": 3, "max_tokens": 4, "temperature": 1.5, "seed": 1,
    "messages": [{"role": "user", "content": "hello"}])";
  const Json whole = Json::parse(ask("POST", "/v1/chat/completions", request + "}").body);
  ASSERT_EQ(whole["choices"].size(), 3u) << whole;
  std::map<int, std::string> texts;
  int ends = 0;
  for (const Json& e : events_of(ask("POST", "/v1/chat/completions", request + R"(, "stream": true})").body))
    for (const Json& c : e["choices"]) {
      texts[c["index"]] += c["delta"].value("content", "");
      ends += !c["finish_reason"].is_null();
    }
  EXPECT_EQ(ends, 3);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(texts[i], whole["choices"][i]["message"]["content"]);
}

}  // namespace
}  // namespace steelyard
