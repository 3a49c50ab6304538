#include "api/stored_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "api/testing/server_fixture.h"
#include "store/manifest.h"
#include "store/model_name.h"
#include "store/store_folder.h"

namespace steelyard::api {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ModelDefaults defaults() {
  return {.system = "be brief",
          .chat_template = "",
          .licenses = {},
          .parameters = R"({"temperature": 0.25, "top_k": 7, "stop": ["END"], "num_ctx": 128, "seed": 9,
                            "top_p": "much", "num_gpu": 1, "min_p": 77})",
          .messages = R"([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, 7,
                          {"role": "tool", "content": "c"}])"};
}

TEST(StoredDefaults, ParametersHoldWhereARequestSaysNothing) {
  ChatRequest r = parse_chat(R"({"model": "m", "messages": [], "options": {"top_k": 3}})");
  add_parameters(r, defaults());
  EXPECT_FLOAT_EQ(r.options.sampling.temperature, 0.25f);
  EXPECT_EQ(r.options.sampling.top_k, 3);
  EXPECT_THAT(r.options.stop, ElementsAre("END"));
  EXPECT_EQ(r.options.num_ctx, 128u);
  EXPECT_FALSE(r.options.random_seed);
  EXPECT_EQ(r.options.sampling.seed, 9u);
  EXPECT_THAT(r.options.named, ::testing::UnorderedElementsAre("temperature", "top_k"));  // min_p 77 is none
  r = parse_chat(R"({"model": "m", "messages": [], "options": {"stop": ["x"], "num_ctx": 64, "seed": 1}})");
  add_parameters(r, defaults());
  EXPECT_THAT(r.options.stop, ElementsAre("x"));
  EXPECT_EQ(r.options.num_ctx, 64u);
  EXPECT_EQ(r.options.sampling.seed, 1u);
}

TEST(StoredDefaults, MessagesComeBeforeAConversation) {
  ChatRequest r = parse_chat(R"({"model": "m", "messages": [{"role": "user", "content": "q"}]})");
  add_messages(r, defaults());
  EXPECT_EQ(r.input.messages, Json::parse(R"([{"role": "system", "content": "be brief"},
      {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "q"}])"));
  r = parse_chat(
      R"({"model": "m", "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]})");
  add_messages(r, defaults());
  EXPECT_EQ(r.input.messages[0]["content"], "s");  // its own
  EXPECT_EQ(r.input.messages.size(), 4u);
  r = parse_chat(R"({"model": "m", "messages": []})");
  add_messages(r, defaults());
  EXPECT_TRUE(r.input.messages.empty());  // loads, still
}

TEST(StoredDefaults, APromptHasThemUnlessItIsRaw) {
  GenerateRequest r = parse_generate(R"({"model": "m", "prompt": "q"})");
  add_messages(r, defaults());
  EXPECT_EQ(r.system, "be brief");
  EXPECT_EQ(r.before.size(), 2u);
  r = parse_generate(R"({"model": "m", "prompt": "q", "raw": true})");
  add_messages(r, defaults());
  EXPECT_FALSE(r.system);
  r = parse_generate(R"({"model": "m", "prompt": "q", "system": "s", "context": [1]})");
  add_messages(r, defaults());
  EXPECT_EQ(r.system, "s");
  EXPECT_TRUE(r.before.empty());
}

TEST(StoredDefaults, NonsenseIsNothing) {
  for (const std::string& text :
       {std::string("["), std::string("7"), std::string(100000, '['), std::string("{}")}) {
    EXPECT_TRUE(parse_first_messages(text).empty());
    EXPECT_TRUE(parse_parameters(text).named.empty());
  }
}

// A server whose store is of Ollama's layout, beside plain files.
class StoredModels : public ServerTest {
 protected:
  void SetUp() override {
    const StoreFolder folder(directory_);
    std::ifstream file(directory_ / "tiny.gguf", std::ios::binary);
    Manifest m;
    m.layers = {folder.add_blob(kModelLayer, std::string(std::istreambuf_iterator<char>(file), {})),
                folder.add_blob(kSystemLayer, "be brief"),
                folder.add_blob(kParamsLayer, R"({"num_predict": 3, "stop": ["a", "b\nc"]})")};
    m.config = folder.add_blob("config", "{}");
    folder.write_manifest(*parse_model_name("stored:1b"), manifest_text(m));
    ServerTest::SetUp();
  }
  void TearDown() override {
    ServerTest::TearDown();
    for (const char* kind : {"blobs", "manifests", ".lock"}) std::filesystem::remove_all(directory_ / kind);
  }
};

TEST_F(StoredModels, AnswerWithWhatTheyBringAlong) {
  const Json stored = Json::parse(
      ask("POST", "/api/generate", R"({"model": "stored:1b", "prompt": "hi", "stream": false})").body);
  EXPECT_LE(stored["eval_count"], 3);
  const Json plain =
      Json::parse(ask("POST", "/api/generate",
                      R"({"model": "tiny", "prompt": "hi", "stream": false, "options": {"num_predict": 3}})")
                      .body);
  const Json same = Json::parse(
      ask("POST", "/api/generate",
          R"({"model": "tiny", "prompt": "hi", "system": "be brief", "stream": false, "options": {"num_predict": 3}})")
          .body);
  EXPECT_NE(stored["prompt_eval_count"], plain["prompt_eval_count"]);
  EXPECT_EQ(stored["prompt_eval_count"], same["prompt_eval_count"]);
  const Json show = Json::parse(ask("POST", "/api/show", R"({"model": "stored:1b"})").body);
  EXPECT_EQ(show["system"], "be brief");
  EXPECT_THAT(show["parameters"].get<std::string>(), HasSubstr("num_predict 3\nstop \"a\"\nstop \"b\\nc\""));
  EXPECT_THAT(show["modelfile"].get<std::string>(), HasSubstr("PARAMETER num_predict 3"));
}

TEST_F(StoredModels, AreCopiedAndRemoved) {
  EXPECT_EQ(ask("POST", "/api/copy", R"({"source": "stored:1b", "destination": "me/other"})").status, 200);
  EXPECT_EQ(ask("POST", "/api/generate", R"({"model": "me/other"})").status, 200);
  EXPECT_EQ(models_->loaded().size(), 1u);
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"model": "stored:1b"})").status, 200);
  EXPECT_EQ(models_->loaded().size(), 1u);  // the other name's, too
  EXPECT_EQ(ask("POST", "/api/show", R"({"model": "stored:1b"})").status, 404);
  EXPECT_EQ(ask("POST", "/api/show", R"({"model": "me/other"})").status, 200);
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"name": "me/other"})").status, 200);
  EXPECT_EQ(models_->loaded().size(), 0u);
  EXPECT_EQ(ask("DELETE", "/api/delete", R"({"model": "me/other"})").status, 404);
}

TEST_F(StoredModels, RequestsLeadNowhereElse) {
  for (const char* odd :
       {"", "..", "../tiny", "/etc/passwd", "a/../../b", "stored:..", "stored:1b/", "st\\u0000ored"}) {
    const std::string name = std::string("\"") + odd + "\"";
    EXPECT_GE(ask("DELETE", "/api/delete", "{\"model\": " + name + "}").status, 400) << odd;
    EXPECT_EQ(ask("POST", "/api/copy", "{\"source\": \"stored:1b\", \"destination\": " + name + "}").status,
              400)
        << odd;
  }
  const Response plain = ask("DELETE", "/api/delete", R"({"model": "tiny"})");
  EXPECT_EQ(plain.status, 400);
  EXPECT_THAT(plain.body, HasSubstr("'tiny' is a plain file"));
  EXPECT_THAT(plain.body, ::testing::Not(HasSubstr(directory_.string())));
  EXPECT_TRUE(std::filesystem::exists(directory_ / "tiny.gguf"));
}

}  // namespace
}  // namespace steelyard::api
