// What each path answers, over a loopback socket with a real engine on a tiny random model.
#include "api/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "api/testing/server_fixture.h"
#include "device/device.h"
#include "engine/errors.h"
#include "engine/loaded_model.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

TEST_F(ServerTest, AnswersTheHeartbeat) {
  EXPECT_EQ(ask("GET", "/").body, "Ollama is running");
  EXPECT_EQ(ask("HEAD", "/").status, 200);
  EXPECT_TRUE(Json::parse(ask("GET", "/api/version").body).contains("version"));
}

TEST_F(ServerTest, ListsTheStore) {
  const Json tags = Json::parse(ask("GET", "/api/tags").body);
  ASSERT_EQ(tags["models"].size(), 2u);
  EXPECT_EQ(tags["models"][0]["name"], "plain");
  EXPECT_EQ(tags["models"][1]["name"], "tiny");
  EXPECT_EQ(tags["models"][1]["details"]["family"], "llama");
  EXPECT_THAT(tags["models"][1]["digest"].get<std::string>(), ::testing::MatchesRegex("[0-9a-f]{64}"));
  EXPECT_EQ(Json::parse(ask("GET", "/v1/models").body)["data"][1]["id"], "tiny");
  EXPECT_EQ(Json::parse(ask("GET", "/v1/models/tiny").body)["id"], "tiny");
  EXPECT_EQ(ask("GET", "/v1/models/other").status, 404);
}

TEST_F(ServerTest, StreamsLinesThatAddUpToTheWholeAnswer) {
  const Response stream = ask("POST", "/api/generate", kGenerate);
  ASSERT_EQ(stream.status, 200);
  EXPECT_THAT(stream.head, HasSubstr("application/x-ndjson"));
  std::string text;
  Json last;
  std::istringstream lines(stream.body);
  for (std::string line; std::getline(lines, line);) {
    last = Json::parse(line);
    text += last["response"].get<std::string>();
  }
  EXPECT_EQ(last["done"], true);
  EXPECT_EQ(last["eval_count"], 6);
  EXPECT_EQ(last["done_reason"], "length");
  EXPECT_GT(last["total_duration"], 0);
  Json request = Json::parse(kGenerate);
  request["stream"] = false;
  const Json whole = Json::parse(ask("POST", "/api/generate", request.dump()).body);
  EXPECT_EQ(whole["response"], text);  // same seed, same text
  EXPECT_EQ(whole["prompt_eval_count"], last["prompt_eval_count"]);
  EXPECT_TRUE(whole["steelyard"].contains("cached_tokens"));
  request["options"]["num_predict"] = 1;
  EXPECT_GT(Json::parse(ask("POST", "/api/generate", request.dump()).body)["eval_duration"], 0);
}

TEST_F(ServerTest, LoadsAndUnloadsOnEmptyPrompts) {
  EXPECT_EQ(Json::parse(ask("POST", "/api/generate", R"({"model": "tiny"})").body)["done_reason"], "load");
  EXPECT_EQ(models_->loaded().size(), 1u);
  EXPECT_EQ(
      Json::parse(ask("POST", "/api/chat", R"({"model": "tiny", "keep_alive": 0})").body)["done_reason"],
      "unload");
  EXPECT_EQ(models_->loaded().size(), 0u);
}

TEST_F(ServerTest, TellsErrorsInEachDialect) {
  EXPECT_EQ(ask("GET", "/nowhere").status, 404);
  EXPECT_EQ(ask("POST", "/api/generate", "{").status, 400);
  EXPECT_EQ(ask("POST", "/api/generate", R"({"model": "nobody", "prompt": "x"})").status, 404);
  const Response wrong_method = ask("DELETE", "/api/generate");
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_THAT(wrong_method.head, HasSubstr("Allow: POST"));
  const std::string chat = R"({"model": "plain", "messages": [{"role": "user", "content": "x"}]})";
  const Response no_template = ask("POST", "/v1/chat/completions", chat);
  EXPECT_EQ(no_template.status, 400);
  EXPECT_THAT(Json::parse(no_template.body)["error"]["message"].get<std::string>(),
              HasSubstr("chat template"));
  const Response native = ask("POST", "/api/chat", chat);
  EXPECT_EQ(native.status, 400);
  EXPECT_THAT(Json::parse(native.body)["error"].get<std::string>(), HasSubstr("chat template"));
  const Response too_long =
      ask("POST", "/api/generate",
          Json{{"model", "tiny"}, {"raw", true}, {"prompt", std::string(5000, 'x')}}.dump());
  EXPECT_EQ(too_long.status, 400);
  EXPECT_THAT(Json::parse(too_long.body)["error"].get<std::string>(), HasSubstr("512"));
}

TEST_F(ServerTest, RefusesForeignHostsAndOrigins) {
  Client host(port_);
  host.request("GET", "/api/tags", "", "Host: evil.com\r\n");
  EXPECT_EQ(host.response().status, 403);
  Client origin(port_);
  origin.request("GET", "/api/tags", "", "Host: localhost\r\nOrigin: https://evil.com\r\n");
  EXPECT_EQ(origin.response().status, 403);
  Client own(port_);
  own.request("OPTIONS", "/api/chat", "", "Host: localhost\r\nOrigin: http://localhost:3000\r\n");
  EXPECT_THAT(own.response().head, HasSubstr("Access-Control-Allow-Origin: http://localhost:3000"));
}

TEST_F(ServerTest, APreflightEchoesTheHeadersOfAnAdmittedOrigin) {
  Client client(port_);
  client.request("OPTIONS", "/v1/chat/completions", "",
                 "Host: localhost\r\nOrigin: http://localhost:5173\r\nAccess-Control-Request-Method: POST\r\n"
                 "Access-Control-Request-Headers: content-type,x-stainless-timeout\r\n");
  const std::string head = client.response(true).head;
  EXPECT_THAT(head, HasSubstr(" 204 "));
  EXPECT_THAT(head, HasSubstr("Access-Control-Allow-Headers: content-type,x-stainless-timeout"));
  EXPECT_THAT(head, HasSubstr("Access-Control-Allow-Methods: GET, HEAD, POST"));
  Client foreign(port_);
  foreign.request("OPTIONS", "/api/chat", "", "Host: localhost\r\nOrigin: https://evil.com\r\n");
  EXPECT_EQ(foreign.response().status, 403);
}

TEST_F(ServerTest, APushIsRefusedAndASlashAtTheEndMakesNoDifference) {
  const Response push = ask("POST", "/api/push", R"({"model": "tiny"})");
  EXPECT_EQ(push.status, 400);
  EXPECT_THAT(push.body, HasSubstr("can't be pushed"));
  EXPECT_EQ(ask("GET", "/api/tags/").status, 200);
  EXPECT_EQ(ask("GET", "/v1/models/tiny/").status, 200);
}

TEST_F(ServerTest, ErrorsCarryTheCodesThatClientsLookFor) {
  const std::string messages =
      R"("messages": [{"role": "user", "content": ")" + std::string(3000, 'x') + R"("}])";
  const Json full =
      Json::parse(ask("POST", "/v1/chat/completions", R"({"model": "tiny", )" + messages + "}").body);
  EXPECT_EQ(full["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(full["error"]["type"], "invalid_request_error");
  const Response unknown = ask("POST", "/v1/chat/completions", R"({"model": "nobody", )" + messages + "}");
  EXPECT_EQ(Json::parse(unknown.body)["error"]["code"], "model_not_found");
  EXPECT_THAT(unknown.body, ::testing::Not(HasSubstr(directory_.string())));
}

TEST_F(ServerTest, ALargerContextIsHadOrRefusedNeverCut) {
  Json request = Json::parse(kGenerate);
  request["stream"] = false;
  request["prompt"] = std::string(700, 'x');
  EXPECT_EQ(ask("POST", "/api/generate", request.dump()).status, 400);
  request["options"]["num_ctx"] = 1024;
  const Response grown = ask("POST", "/api/generate", request.dump());
  EXPECT_EQ(grown.status, 200) << grown.body;
  const auto before = models_->loaded().at(0).model;
  request["options"]["num_ctx"] = 600;  // a limit of this request alone
  EXPECT_EQ(ask("POST", "/api/generate", request.dump()).status, 400);
  request["prompt"] = "x";
  EXPECT_EQ(ask("POST", "/api/generate", request.dump()).status, 200);
  EXPECT_EQ(models_->loaded().at(0).model, before);
  request["options"]["num_ctx"] = 1000000000;
  const Response refused = ask("POST", "/api/generate", request.dump());
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("1000000000"));
  EXPECT_EQ(models_->loaded().at(0).model, before);
}

TEST_F(ServerTest, LogsTheOptionsThatItIgnores) {
  stop();
  LogLines log;
  start(log.options());
  Client client(port_);
  client.request("POST", "/api/generate",
                 R"({"model": "tiny", "prompt": "a", "stream": false,
                     "options": {"num_predict": 1, "num_gpu": 1, "a\nb": 2}})");
  EXPECT_EQ(client.response().status, 200);
  stop();
  const auto lines = log.all();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines[0], ::testing::ContainsRegex(
                            "^20..-..-..T..:..:..Z POST /api/generate 200 [0-9]+ ms tiny [0-9]+.1 tokens;"));
  EXPECT_THAT(lines[0], HasSubstr(R"(; ignored options: "num_gpu", "a\nb")"));
}

TEST_F(ServerTest, AFileThatCanNotBeListedIsSaidOnce) {
  stop();
  LogLines log;
  start(log.options());
  const auto broken = directory_ / "bro\tken.gguf";
  const auto said = [&] {
    std::vector<std::string> lines = log.all();
    std::erase_if(lines, [](const std::string& l) { return l.find("isn't listed") == std::string::npos; });
    return lines;
  };
  std::ofstream(broken) << "nothing";
  for (int i = 0; i < 2; ++i)
    for (const char* path : {"/api/tags", "/v1/models"})
      EXPECT_EQ(ask("GET", path).body.find("ken"), std::string::npos);
  ASSERT_EQ(said().size(), 1u);
  EXPECT_THAT(said()[0], ::testing::StartsWith("bro\\x09ken isn't listed: "));
  std::ofstream(broken) << "nothing else";
  ask("GET", "/api/tags");
  EXPECT_EQ(said().size(), 2u);
  std::filesystem::remove(broken);
  ask("GET", "/api/tags");
  EXPECT_EQ(said().size(), 2u);
}

// Six turns, which 512 tokens don't hold.
Json long_chat() {
  Json messages = {{{"role", "system"}, {"content", "be brief"}}};
  for (int i = 0; i < 6; ++i) {
    messages.push_back({{"role", "user"}, {"content", std::string(100, 'x')}});
    messages.push_back({{"role", "assistant"}, {"content", "yes"}});
  }
  messages.push_back({{"role", "user"}, {"content", "last"}});
  return {{"model", "tiny"},
          {"stream", false},
          {"messages", messages},
          {"max_tokens", 4},
          {"options", {{"num_predict", 4}}}};
}

TEST_F(ServerTest, AChatThatOutgrewItsContextIsRefusedUnlessTruncationIsAskedFor) {
  for (const char* path : {"/api/chat", "/v1/chat/completions"}) {
    Json chat = long_chat();
    const Response refused = ask("POST", path, chat.dump());
    EXPECT_EQ(refused.status, 400) << path;
    EXPECT_THAT(refused.body, HasSubstr("512")) << path;
    chat["truncate"] = true;
    const Response cut = ask("POST", path, chat.dump());
    ASSERT_EQ(cut.status, 200) << cut.body;
    const Json answer = Json::parse(cut.body);
    const std::size_t dropped = answer["steelyard"]["dropped_messages"];
    EXPECT_GE(dropped, 2u);
    EXPECT_EQ(dropped % 2, 0u);  // whole turns
    Json rest = long_chat();     // and the prompt is that of the conversation without them
    auto& messages = rest["messages"];
    messages.erase(messages.begin() + 1, messages.begin() + 1 + static_cast<std::ptrdiff_t>(dropped));
    const Json same = Json::parse(ask("POST", path, rest.dump()).body);
    const auto count = [](const Json& a) {
      return a.contains("usage") ? a["usage"]["prompt_tokens"] : a["prompt_eval_count"];
    };
    EXPECT_EQ(count(answer), count(same)) << path;
  }
  const Response code = ask("POST", "/v1/chat/completions", long_chat().dump());
  EXPECT_EQ(Json::parse(code.body)["error"]["code"], "context_length_exceeded");
}

TEST_F(ServerTest, AContextThatMemoryDoesNotAllowLeavesTheModelAsItWas) {
  stop();
  start({}, {.threads = 1, .context = 512, .slots = 4},
        [](const std::filesystem::path& path, std::uint32_t context, const LoadProgress&) {
          if (context > 512)
            throw NoRoom("it needs more memory than there is", "CPU", std::uint64_t{1} << 50, 0);
          return std::make_shared<const LoadedModel>(
              prepare_model(path, {.device = "cpu", .threads = 1, .context = 512}));
        });
  Json request = Json::parse(kGenerate);
  request["stream"] = false;
  const Json before = Json::parse(ask("POST", "/api/generate", request.dump()).body);
  const auto model = models_->loaded().at(0).model;
  request["options"]["num_ctx"] = 1024;
  const Response refused = ask("POST", "/api/generate", request.dump());
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("num_ctx"));
  EXPECT_THAT(refused.body, HasSubstr("it needs more memory than there is"));
  EXPECT_EQ(models_->loaded().at(0).model, model);
  request["options"].erase("num_ctx");
  EXPECT_EQ(Json::parse(ask("POST", "/api/generate", request.dump()).body)["response"], before["response"]);
}

}  // namespace
}  // namespace steelyard
