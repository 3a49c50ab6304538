#include "api/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "api/access.h"
#include "api/testing/server_fixture.h"
#include "base/error.h"
#include "base/sha256.h"

namespace steelyard::api {
namespace {

using ::testing::HasSubstr;

// "ask-key" and "manage-key".
ApiKeys two_keys() {
  return ApiKeys::parse("# who may do what\n\n" + sha256_hex("ask-key") + " ask laptop\n" +
                            sha256_hex("manage-key") + "\tmanage  admin\r\n",
                        "keys");
}

TEST(ApiKeys, AreReadFromLines) {
  const ApiKeys keys = two_keys();
  ASSERT_NE(keys.find("ask-key"), nullptr);
  EXPECT_EQ(keys.find("ask-key")->role, KeyRole::ask);
  EXPECT_EQ(keys.find("ask-key")->name, "laptop");
  EXPECT_EQ(keys.find("manage-key")->role, KeyRole::manage);
  EXPECT_EQ(keys.find("ask-kez"), nullptr);
  EXPECT_EQ(keys.find(""), nullptr);
  EXPECT_EQ(keys.find(sha256_hex("ask-key")), nullptr);  // the file alone opens nothing
}

TEST(ApiKeys, ALineThatIsWrongIsNamed) {
  const std::string hash(64, 'a');
  for (const std::string& line :
       {hash, hash + " ask", hash + " root me", hash + " ask a b", hash.substr(1) + " ask me",
        std::string(64, 'A') + " ask me", std::string("secret ask me")}) {
    try {
      ApiKeys::parse("\n" + line + "\n", "keys");
      ADD_FAILURE() << line;
    } catch (const Error& e) {
      EXPECT_THAT(e.what(), HasSubstr("line 2 of keys")) << line;
    }
  }
  EXPECT_THROW(ApiKeys::parse("# none\n", "keys"), Error);  // or nobody would need one
}

TEST(ApiKeys, NewOnesDifferAndOpen) {
  const NewKey a = make_key(KeyRole::manage, "admin"), b = make_key(KeyRole::ask, "laptop");
  EXPECT_NE(a.key, b.key);
  EXPECT_EQ(a.line.find(a.key), std::string::npos);
  const ApiKeys keys = ApiKeys::parse(a.line + b.line, "keys");
  EXPECT_EQ(keys.find(a.key)->role, KeyRole::manage);
  EXPECT_EQ(keys.find(b.key)->role, KeyRole::ask);
  EXPECT_THROW(make_key(KeyRole::ask, "two words"), Error);
  EXPECT_THROW(make_key(KeyRole::ask, ""), Error);
}

TEST(ApiKeys, StandInEitherHeader) {
  EXPECT_EQ(presented_key("Bearer abc", ""), "abc");
  EXPECT_EQ(presented_key("bEARER   abc", "other"), "abc");
  EXPECT_EQ(presented_key("", "abc"), "abc");
  EXPECT_EQ(presented_key("Basic abc", "other"), "other");
  EXPECT_EQ(presented_key("Bearer ", ""), "");
}

TEST(Access, ChangingModelsFromAnotherMachineTakesAKey) {
  const AccessRules local = make_access_rules(true, {}, {}), open = make_access_rules(false, {}, {});
  for (const AccessRules* rules : {&local, &open}) {
    EXPECT_EQ(key_refusal(*rules, Need::nothing, "").status, 0u);
    EXPECT_EQ(key_refusal(*rules, Need::ask, "").status, 0u);
  }
  EXPECT_EQ(key_refusal(local, Need::manage, "").status, 0u);
  EXPECT_EQ(key_refusal(open, Need::manage, "").status, 403u);
  EXPECT_EQ(key_refusal(open, Need::manage, "any").status, 403u);
}

TEST(Access, WhereThereAreKeysEveryRequestNeedsOneOfItsRole) {
  for (const bool loopback : {true, false}) {
    const AccessRules rules = make_access_rules(loopback, {}, {}, two_keys());
    EXPECT_EQ(key_refusal(rules, Need::nothing, "").status, 0u);
    for (const Need need : {Need::ask, Need::manage}) {
      EXPECT_EQ(key_refusal(rules, need, "").status, 401u);
      EXPECT_EQ(key_refusal(rules, need, "wrong").status, 401u);
      EXPECT_EQ(key_refusal(rules, need, "manage-key").status, 0u);
    }
    EXPECT_EQ(key_refusal(rules, Need::ask, "ask-key").status, 0u);
    EXPECT_EQ(key_refusal(rules, Need::manage, "ask-key").status, 403u);
  }
}

TEST_F(ServerTest, WantsAKeyWhereThereAreKeys) {
  stop();
  ServerOptions options;
  options.keys = two_keys();
  start(options);
  const auto status = [&](const std::string& path, const std::string& header) {
    Client client(port_);
    client.request("GET", path, "", "Host: localhost\r\n" + header);
    return client.response();
  };
  EXPECT_EQ(status("/", "").status, 200);
  EXPECT_EQ(status("/health", "").status, 200);
  const Response refused = status("/api/tags", "");
  EXPECT_EQ(refused.status, 401);
  EXPECT_THAT(refused.head, HasSubstr("WWW-Authenticate: Bearer"));
  EXPECT_EQ(status("/api/tags", "Authorization: Bearer wrong\r\n").status, 401);
  EXPECT_EQ(status("/api/tags", "Authorization: Bearer ask-key\r\n").status, 200);
  EXPECT_EQ(status("/v1/models", "x-api-key: ask-key\r\n").status, 200);
  EXPECT_EQ(status("/metrics", "").status, 401);
  EXPECT_EQ(status("/nowhere", "").status, 401);
  Client preflight(port_);
  preflight.request("OPTIONS", "/api/chat", "", "Host: localhost\r\nOrigin: http://localhost:3000\r\n");
  EXPECT_EQ(preflight.response(true).status, 204);
}

}  // namespace
}  // namespace steelyard::api
