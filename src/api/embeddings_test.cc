// Embeddings and log-probabilities, as the paths tell them.
#include "api/embeddings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "api/testing/server_fixture.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::json;

double dot(const Json& a, const Json& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += a[i].get<double>() * b[i].get<double>();
  return sum;
}

TEST(Embeddings, AreCutNormalisedAndWrittenInBase64) {
  const std::vector<float> raw = {3, 4, 12};
  EXPECT_THAT(api::finished_embedding(raw, 2, true), ::testing::ElementsAre(0.6f, 0.8f));
  EXPECT_EQ(api::finished_embedding(raw, 0, false), raw);
  EXPECT_THAT(api::finished_embedding(std::vector<float>{0, 0}, 0, true), ::testing::ElementsAre(0.0f, 0.0f));
  EXPECT_EQ(api::base64_of(std::vector<float>{1.0f}), "AACAPw==");
  EXPECT_EQ(api::base64_of(std::vector<float>{1.0f, -2.0f, 0.5f}), "AACAPwAAAMAAAAA/");
}

TEST_F(ServerTest, EmbedsTextsInTheirOrder) {
  const std::string many =
      R"({"model": "tiny", "input": ["one", "two and more", "three", "one", "five", "six", "7",
    "8", "9", "10", "11", "12"]})";
  const Response r = ask("POST", "/api/embed", many);
  ASSERT_EQ(r.status, 200) << r.body;
  const Json all = Json::parse(r.body)["embeddings"];
  ASSERT_EQ(all.size(), 12u);
  for (const Json& e : all) EXPECT_NEAR(dot(e, e), 1, 1e-5);
  EXPECT_GT(dot(all[0], all[3]), 0.9999);  // the same text
  EXPECT_LT(dot(all[0], all[1]), 0.9999);
  for (std::size_t i : {1, 2, 7}) {  // each as it is alone
    const std::string text = Json::parse(many)["input"][i];
    const Json alone =
        Json::parse(ask("POST", "/api/embed", Json{{"model", "tiny"}, {"input", text}}.dump()).body);
    EXPECT_GT(dot(alone["embeddings"][0], all[i]), 0.9999) << i;
  }
  const Json raw =
      Json::parse(ask("POST", "/api/embeddings", R"({"model": "tiny", "prompt": "one"})").body)["embedding"];
  EXPECT_NEAR(dot(raw, all[0]) / std::sqrt(dot(raw, raw)), 1, 1e-4);
  EXPECT_GT(std::abs(dot(raw, raw) - 1), 1e-3);  // not normalised
}

TEST_F(ServerTest, EmbedsInOpenAisDialect) {
  const auto ask_json = [&](const std::string& rest) {
    return Json::parse(
        ask("POST", "/v1/embeddings", R"({"model": "tiny", "input": ["a", "b"])" + rest + "}").body);
  };
  const Json plain = ask_json("");
  ASSERT_EQ(plain["data"].size(), 2u) << plain;
  EXPECT_EQ(plain["data"][1]["index"], 1);
  EXPECT_GT(plain["usage"]["prompt_tokens"], 1);
  const std::size_t width = plain["data"][0]["embedding"].size();
  EXPECT_EQ(ask_json(R"(, "dimensions": 8)")["data"][0]["embedding"].size(), 8u);
  const std::string text = ask_json(R"(, "encoding_format": "base64")")["data"][0]["embedding"];
  EXPECT_EQ(text.size(), (width * 4 + 2) / 3 * 4);
  EXPECT_EQ(ask("POST", "/v1/embeddings", R"({"model": "tiny", "input": [[3, 4], [5]]})").status, 200);
  for (const char* bad : {R"("input": [])", R"("input": [[-1]])", R"("input": "a", "dimensions": 100000)",
                          R"("input": {"a": 1})", R"("input": "a", "encoding_format": "gzip")"})
    EXPECT_EQ(ask("POST", "/v1/embeddings", R"({"model": "tiny", )" + std::string(bad) + "}").status, 400)
        << bad;
}

TEST_F(ServerTest, CutsATextOnlyWhenAskedToAndSaysSo) {
  Json request = {{"model", "tiny"}, {"input", {"short", std::string(2000, 'x')}}};
  const Response refused = ask("POST", "/api/embed", request.dump());
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("truncate"));
  request["truncate"] = true;
  const Json cut = Json::parse(ask("POST", "/api/embed", request.dump()).body);
  ASSERT_EQ(cut["embeddings"].size(), 2u) << cut;
  EXPECT_EQ(cut["steelyard"]["truncated"][0]["index"], 1);
  EXPECT_GT(cut["steelyard"]["truncated"][0]["dropped_tokens"], 100);
}

TEST_F(ServerTest, TellsLogProbabilitiesInEachDialect) {
  Json request = Json::parse(kGenerate);
  request["stream"] = false;
  const Json without = Json::parse(ask("POST", "/api/generate", request.dump()).body);
  request["logprobs"] = true;
  request["top_logprobs"] = 2;
  const Json with = Json::parse(ask("POST", "/api/generate", request.dump()).body);
  EXPECT_EQ(with["response"], without["response"]);
  ASSERT_EQ(with["logprobs"].size(), with["eval_count"]) << with;
  for (const Json& token : with["logprobs"]) {
    EXPECT_LE(token["logprob"], 0);
    ASSERT_EQ(token["top_logprobs"].size(), 2u);
    EXPECT_GE(token["top_logprobs"][0]["logprob"], token["top_logprobs"][1]["logprob"]);
    EXPECT_GE(token["top_logprobs"][0]["logprob"], token["logprob"]);
  }
  const std::string rest = R"(, "max_tokens": 3, "temperature": 0})";
  const Json chat = Json::parse(ask("POST", "/v1/chat/completions",
                                    R"({"model": "tiny", "logprobs": true, "top_logprobs": 1,
                                    "messages": [{"role": "user", "content": "hi"}])" +
                                        rest)
                                    .body);
  const Json content = chat["choices"][0]["logprobs"]["content"];
  ASSERT_EQ(content.size(), 3u) << chat;
  EXPECT_EQ(content[0]["token"], content[0]["top_logprobs"][0]["token"]);  // greedy
  const Json completion = Json::parse(
      ask("POST", "/v1/completions", R"({"model": "tiny", "prompt": "ab", "logprobs": 2)" + rest).body);
  EXPECT_EQ(completion["choices"][0]["logprobs"]["token_logprobs"].size(), 3u) << completion;
  EXPECT_EQ(ask("POST", "/v1/chat/completions", R"({"model": "tiny", "logprobs": true, "top_logprobs": 21,
      "messages": [{"role": "user", "content": "hi"}]})")
                .status,
            400);
}

TEST_F(ServerTest, BiasesTokens) {
  const std::string head =
      R"({"model": "tiny", "prompt": "ab", "max_tokens": 3, "temperature": 0, "logprobs": 0, )";
  const Json forced =
      Json::parse(ask("POST", "/v1/completions", head + R"("logit_bias": {"70": 100}})").body);
  const Json tokens = forced["choices"][0]["logprobs"]["tokens"];
  ASSERT_EQ(tokens.size(), 3u) << forced;
  EXPECT_EQ(tokens[0], tokens[1]);
  EXPECT_EQ(tokens[1], tokens[2]);
  for (const char* bad : {R"({"x": 1})", R"({"1": 101})", R"({"-1": 1})", R"([1])", R"({"99999999": 1})"})
    EXPECT_EQ(ask("POST", "/v1/completions", head + R"("logit_bias": )" + bad + "}").status, 400) << bad;
}

}  // namespace
}  // namespace steelyard
