// Grammars from schemas and GBNF, held against texts.
#include "grammar/grammar.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/error.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"
#include "grammar/matcher.h"
#include "grammar/token_masks.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using Json = nlohmann::ordered_json;

bool takes(Grammar grammar, std::string_view text) {
  Matcher m(std::make_shared<const Grammar>(std::move(grammar)));
  const auto state = m.next(m.begin(), text);
  return state != Matcher::kDead && m.complete(state);
}
bool schema_takes(const char* schema, std::string_view text) {
  return takes(schema_grammar(Json::parse(schema)), text);
}
bool gbnf_takes(std::string_view grammar, std::string_view text) {
  return takes(gbnf_grammar(grammar), text);
}

std::string refusal(const char* schema) {
  try {
    schema_grammar(Json::parse(schema));
    return "taken";
  } catch (const Error& e) {
    return e.what();
  }
}

TEST(JsonGrammar, AnyObject) {
  for (const char* good :
       {"{}", R"({"a": 1})", R"({"a":[1,-2.5e+3,"x\"\u00e9",true,null,{"b":[]}]})", "{\n  \"é\": \"😀\"\n}"})
    EXPECT_TRUE(takes(json_grammar(), good)) << good;
  for (const char* bad : {"", "[]", "{", R"({"a":01})", R"({"a" 1})", R"({"a":1,})", "{\"a\":\"\n\"}",
                          R"({"a":"\ud800"})", "{\"a\":\"\xff\"}", "{\"a\":\"\xed\xa0\x80\"}", "{}x"})
    EXPECT_FALSE(takes(json_grammar(), bad)) << bad;
}

struct Case {
  const char *schema, *text;
  bool taken;
};

TEST(JsonSchema, TakesWhatIsValid) {
  constexpr Case kCases[] = {
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"]})",
       R"({"a":1,"b":"x"})", true},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"]})",
       R"({"a":1})", true},
      {R"({"type":"object","properties":{"a":{"type":"integer"},"b":{"type":"string"}},"required":["a"]})",
       R"({"b":"x"})", false},
      {R"({"type":"object","properties":{"a":{},"b":{},"c":{}},"required":["b"]})", R"({"a":1,"b":2,"c":3})",
       true},
      {R"({"type":"object","properties":{"a":{},"b":{},"c":{}},"required":["b"]})", R"({"b":2})", true},
      {R"({"type":"object","properties":{"a":{},"b":{},"c":{}}})", "{}", true},
      {R"({"type":"object","properties":{"a":{}},"additionalProperties":{"type":"integer"}})",
       R"({"a":"x","ab":1,"b":2})", true},
      {R"({"type":"object","properties":{"a":{}},"additionalProperties":{"type":"integer"}})",
       R"({"b":2,"a":3})", false},
      {R"({"type":"object","additionalProperties":{"type":"integer"}})", R"({"x":"y"})", false},
      {R"({"enum":["red",1,null,{"a":[1]}]})", R"({"a":[1]})", true},
      {R"({"enum":["red",1]})", R"("re")", false},
      {R"({"const":"x\"y"})", R"("x\"y")", true},
      {R"({"type":["string","null"]})", "null", true},
      {R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2})", "[true, false]", true},
      {R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2})", "[]", false},
      {R"({"type":"array","items":{"type":"boolean"},"minItems":1,"maxItems":2})", "[true,true,true]", false},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}]})", R"([1,"x"])", true},
      {R"({"type":"array","prefixItems":[{"type":"integer"},{"type":"string"}],"items":{"type":"null"}})",
       R"([1,"x",null])", true},
      {R"({"type":"array","maxItems":0})", "[]", true},
      {R"({"type":"string","minLength":2,"maxLength":3})", R"("é\n")", true},
      {R"({"type":"string","minLength":2,"maxLength":3})", R"("abcd")", false},
      {R"({"type":"string","pattern":"^[a-c]{2}-\\d+$"})", R"("ab-12")", true},
      {R"({"type":"string","pattern":"^[a-c]{2}-\\d+$"})", R"("abd-1")", false},
      {R"({"type":"string","pattern":"b"})", R"("abc")", true},
      {R"({"type":"string","pattern":"b"})", R"("acc")", false},
      {R"({"type":"string","pattern":"^(\"|\\\\|\\n)$"})", R"("\"")", true},
      {R"({"type":"string","format":"date"})", R"("2024-02-28")", true},
      {R"({"type":"string","format":"date"})", R"("2024-13-01")", false},
      {R"({"type":"string","format":"ipv4"})", R"("255.0.10.199")", true},
      {R"({"type":"string","format":"ipv4"})", R"("256.0.0.1")", false},
      {R"({"type":"integer","minimum":-12,"maximum":105})", "-12", true},
      {R"({"type":"integer","minimum":-12,"maximum":105})", "-13", false},
      {R"({"type":"integer","minimum":-12,"maximum":105})", "105", true},
      {R"({"type":"integer","minimum":-12,"maximum":105})", "106", false},
      {R"({"type":"integer","exclusiveMinimum":0})", "0", false},
      {R"({"type":"integer","exclusiveMinimum":0})", "70000", true},
      {R"({"type":"number","minimum":0,"maximum":1})", "0.25", true},
      {R"({"type":"number","minimum":0,"maximum":1})", "1.01", false},
      {R"({"type":"number","exclusiveMinimum":0.1,"maximum":0.3})", "0.10", false},
      {R"({"type":"number","exclusiveMinimum":0.1,"maximum":0.3})", "0.11", true},
      {R"({"anyOf":[{"type":"integer"},{"type":"string"}]})", R"("x")", true},
      {R"({"oneOf":[{"type":"integer"},{"type":"string"}]})", "7", true},
      {R"({"allOf":[{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]},{"properties":{"b":{"type":"null"}},"required":["b"]}]})",
       R"({"a":1,"b":null})", true},
      {R"({"type":"object","properties":{"a":{}},"anyOf":[{"required":["a"]}]})", "{}", false},
      {R"({"$ref":"#/$defs/n","$defs":{"n":{"type":"object","properties":{"v":{"type":"integer"},"next":{"anyOf":[{"$ref":"#/$defs/n"},{"type":"null"}]}},"required":["v","next"]}}})",
       R"({"v":1,"next":{"v":2,"next":null}})", true},
      {"true", R"([1,{"a":"b"}])", true},
  };
  for (const Case& c : kCases)
    EXPECT_EQ(schema_takes(c.schema, c.text), c.taken) << c.schema << "\n" << c.text;
}

TEST(JsonSchema, IntegersWithinAnyLimits) {
  std::mt19937 random(7);
  for (int i = 0; i < 40; ++i) {
    const int a = static_cast<int>(random() % 4000) - 2000, b = a + static_cast<int>(random() % 300);
    Matcher m(std::make_shared<const Grammar>(
        schema_grammar({{"type", "integer"}, {"minimum", a}, {"maximum", b}})));
    for (int n = a - 30; n < b + 30; ++n) {
      const auto state = m.next(m.begin(), std::to_string(n));
      EXPECT_EQ(state != Matcher::kDead && m.complete(state), a <= n && n <= b) << a << ' ' << b << ' ' << n;
    }
  }
}

TEST(JsonSchema, RefusesByName) {
  constexpr std::pair<const char*, const char*> kCases[] = {
      {R"({"not":{}})", "\"not\""},
      {R"({"type":"object","patternProperties":{}})", "\"patternProperties\""},
      {R"({"type":"number","multipleOf":2})", "\"multipleOf\""},
      {R"({"type":"array","uniqueItems":true})", "\"uniqueItems\""},
      {R"({"type":"string","format":"nonsense"})", "\"format\""},
      {R"({"type":"string","pattern":"(?=a)."})", "\"pattern\""},
      {R"({"type":"strin"})", "\"type\""},
      {R"({"$ref":"#/nowhere"})", "#/nowhere"},
      {R"({"$ref":"#"})", "no answer can satisfy"},
      {R"({"anyOf":[{"$ref":"#"},{"type":"null"}]})", "begins with itself"},
      {R"({"allOf":[{"$ref":"#"},{"$ref":"#"}]})", "too large"},
      {R"({"type":"object","properties":{"a":{"$ref":"#"}},"required":["a"]})", "no answer can satisfy"},
      {R"({"oneOf":[{"type":"integer"},{"type":"number"}]})", "\"oneOf\""},
      {R"({"type":"object","required":["a"],"additionalProperties":false})", "no such property"},
      {R"({"type":"string","pattern":"^((a{1000}){1000}){1000}$"})", "too large"},
      {R"({"type":"string","pattern":"^((((){90000}){90000}){90000}){9}$"})", "too large"},
      {R"([1])", "where a schema must be"},
  };
  for (const auto& [schema, reason] : kCases) EXPECT_THAT(refusal(schema), HasSubstr(reason)) << schema;
}

TEST(Gbnf, TakesAndRefuses) {
  const char* kSums =
      "root ::= (expr \"=\" term \"\\n\")+  # sums\nexpr ::= term ([-+*/] term)*\nterm ::= num | (\"(\" "
      "expr\n  \")\")\nnum ::= [0-9]{1,3}\n";
  EXPECT_TRUE(gbnf_takes(kSums, "1+2=3\n(4)*5=200\n"));
  EXPECT_FALSE(gbnf_takes(kSums, "1+2=3"));
  EXPECT_FALSE(gbnf_takes(kSums, "1234=1\n"));
  EXPECT_TRUE(gbnf_takes("root ::= [^a-z]* \"é\" . |\n \"no\"", "ABé😀"));
  EXPECT_TRUE(gbnf_takes("root ::= \"a\" root \"b\" | \"\"", "aaabbb"));
  EXPECT_FALSE(gbnf_takes("root ::= \"a\" root \"b\" | \"\"", "aaabb"));
  for (const char* bad : {"", "a ::= \"x\"", "root ::= nothing", "root ::= root \"a\" | \"b\"",
                          "root ::= \"x", "root ::= (\"x\"", "root ::= [z-a]", "root = \"x\"",
                          "root ::= \"x\"{3,1}", "root ::= \"\\q\"", "root ::= a\na ::= b\nb ::= a \"x\""})
    EXPECT_THROW(gbnf_grammar(bad), Error) << bad;
}

// As deep as it may go, and then only outwards.
TEST(Matcher, EndsWithinTheDepth) {
  Matcher m(std::make_shared<const Grammar>(gbnf_grammar("root ::= \"(\" root \")\" | \"x\"")));
  auto state = m.begin();
  int depth = 0;
  for (auto next = m.next(state, '('); next != Matcher::kDead; next = m.next(state, '('))
    state = next, ++depth;
  EXPECT_GT(depth, 100);
  state = m.next(state, "x" + std::string(static_cast<std::size_t>(depth), ')'));
  EXPECT_TRUE(m.ended(state));
}

TEST(Matcher, ForgetsButGoesOn) {
  Matcher m(std::make_shared<const Grammar>(json_grammar()));
  auto state = m.next(m.begin(), R"({"a": [1, {"b": "c)");
  const auto left = m.bytes_left(state);
  state = m.forget_but(state);
  EXPECT_EQ(m.bytes_left(state), left);
  EXPECT_TRUE(m.complete(m.next(state, R"("}]})")));
  EXPECT_EQ(m.next(state, R"("]})"), Matcher::kDead);
}

// ---- tokens ----

const std::vector<std::string> kTokens = {"",  "{",  "}",    "\"", "a",  "\"a", "\":",     ":",    " ",
                                          "1", "12", ",",    "[",  "]",  "{}",  "\"a\": ", "\xc3", "\xa9",
                                          "é", "\n", "true", "tr", "ue", "\\",  "n",       "\"}"};
constexpr std::int32_t kEnd = 0;

std::shared_ptr<const TokenTrie> trie() {
  return std::make_shared<const TokenTrie>(
      kTokens.size(), [](std::int32_t id) { return std::string_view(kTokens[static_cast<std::size_t>(id)]); },
      [](std::int32_t id) { return id == kEnd; });
}
bool in(const std::uint32_t* mask, std::int32_t id) { return mask && (mask[id / 32] >> (id % 32) & 1); }

// Every mask is what trying each token alone says, along random answers, which all end.
TEST(TokenConstraint, MasksAreExact) {
  std::mt19937 random(3);
  const auto grammar = std::make_shared<const Grammar>(json_grammar());
  for (int round = 0; round < 20; ++round) {
    TokenConstraint c(grammar, trie());
    Matcher alone(grammar);
    std::string text;
    for (int i = 0; i < 300 && !c.ended(); ++i) {
      const std::uint32_t* mask = i < 40 ? c.mask() : c.mask_within(0);
      ASSERT_NE(mask, nullptr) << text;
      std::vector<std::int32_t> allowed;
      for (std::int32_t id = 0; id < static_cast<std::int32_t>(kTokens.size()); ++id) {
        const auto& piece = kTokens[static_cast<std::size_t>(id)];
        const auto state = alone.next(alone.begin(), text + piece);
        const bool may =
            id == kEnd ? alone.complete(alone.next(alone.begin(), text)) : state != Matcher::kDead;
        if (i < 40) {
          EXPECT_EQ(in(mask, id), may) << text << '+' << piece;
        }
        if (in(mask, id)) allowed.push_back(id);
      }
      ASSERT_FALSE(allowed.empty());
      const auto token = allowed[random() % allowed.size()];
      if (token == kEnd) break;
      c.accept(token, kTokens[static_cast<std::size_t>(token)]);
      text += kTokens[static_cast<std::size_t>(token)];
    }
    EXPECT_TRUE(c.complete()) << text;
    EXPECT_FALSE(Json::parse(text, nullptr, false).is_discarded()) << text;
  }
}

TEST(TokenConstraint, FreeUntilTheMark) {
  TokenConstraint c(std::make_shared<const Grammar>(json_grammar()), trie(), "tr\n");
  EXPECT_TRUE(in(c.mask(), 9));
  EXPECT_FALSE(in(c.mask(), kEnd));
  for (const std::int32_t token : {9, 21, 19}) c.accept(token, kTokens[static_cast<std::size_t>(token)]);
  EXPECT_FALSE(in(c.mask(), 9));
  EXPECT_TRUE(in(c.mask(), 14));
}

TEST(TokenConstraint, NoTokenFits) {
  TokenConstraint c(std::make_shared<const Grammar>(gbnf_grammar("root ::= \"zzz\"")), trie());
  EXPECT_EQ(c.mask(), nullptr);
}

}  // namespace
}  // namespace steelyard
