#include "text/chat_template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <map>
#include <thread>

#include "base/error.h"
#include "text/test_files.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr std::time_t kNow = 1'700'000'000;

std::string render(std::string_view source, const Json& vars = Json::object()) {
  return ChatTemplate(source).render(vars, {}, kNow);
}

std::string error_of(std::string_view source, const Json& vars = Json::object()) {
  try {
    render(source, vars);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

std::vector<Json> lines_of(const std::string& name) {
  std::ifstream in(test_data(name));
  EXPECT_TRUE(in) << "missing " << test_data(name);
  std::vector<Json> rows;
  for (std::string line; std::getline(in, line);) rows.push_back(Json::parse(line));
  return rows;
}

class Goldens : public ::testing::Test {
 protected:
  void SetUp() override {  // strftime_now shows the local time
    setenv("TZ", "UTC", 1);
    tzset();
  }
};

// Every construct by itself, and random ones, as jinja2 renders them.
TEST_F(Goldens, EqualJinja2) {
  auto rows = lines_of("jinja.jsonl");
  const Json vars = rows.at(0).at("variables");
  ASSERT_GT(rows.size(), 1000u);
  for (std::size_t i = 1; i < rows.size(); ++i) {
    std::string source = rows[i]["template"];
    std::string got;
    bool failed = false;
    try {
      got = render(source, vars);
    } catch (const Error& error) {
      failed = true;
      got = error.what();
    }
    EXPECT_EQ(failed, rows[i].contains("error")) << source << "\n" << got << "\n" << rows[i].dump();
    if (!failed) {
      EXPECT_EQ(got, rows[i].value("out", "")) << source;
    }
  }
}

// 64-bit FNV-1a and the length, as tools/make_text_goldens.py writes them.
std::string summary(const std::string& text) {
  std::uint64_t hash = 0xCBF29CE484222325u;
  for (char c : text) hash = (hash ^ static_cast<std::uint8_t>(c)) * 0x100000001B3u;
  return fmt::format("{:016x}:{}", hash, text.size());
}

void check_chats(const std::string& goldens, const std::filesystem::path& folder) {
  auto chats = lines_of("chats.jsonl");
  for (const Json& row : lines_of(goldens)) {
    std::string name = row["file"];
    ChatTemplate compiled(read_text(folder / name));
    ASSERT_EQ(row["sums"].size(), chats.size());
    for (std::size_t i = 0; i < chats.size(); ++i) {
      std::string got, text;
      try {
        text = compiled.render(chats[i], {}, kNow);
        got = summary(text);
      } catch (const Error& error) {
        got = "error";
        text = error.what();
      }
      EXPECT_EQ(got, row["sums"][i].get<std::string>()) << name << ", chat " << i << ":\n" << text;
    }
  }
}

TEST_F(Goldens, OwnTemplatesOverManyChats) { check_chats("own.jsonl", test_data("templates")); }

TEST_F(Goldens, PublishedTemplatesOverManyChats) {
  const char* root = std::getenv("STEELYARD_TEST_DATA");
  if (root == nullptr) GTEST_SKIP() << "STEELYARD_TEST_DATA is not set: the published templates are not here";
  check_chats("published.jsonl", std::filesystem::path(root) / "templates");
}

// ------------------------------------------------------------------------------------------------- behaviour

TEST(ChatTemplate, RaiseExceptionIsItsOwnMessage) {
  EXPECT_EQ(error_of("{{ raise_exception('Roles must alternate: ' ~ 3) }}"), "Roles must alternate: 3");
}

TEST(ChatTemplate, ErrorsNameTheLine) {
  EXPECT_EQ(error_of("a\n\n{{ x.y }}"), "chat template, line 3: 'x' is undefined");
  EXPECT_THAT(error_of("\n{% if x %}"),
              StartsWith("chat template, line 2: the template ends inside a block"));
  EXPECT_THAT(error_of("{{ 'a' + 1 }}"), HasSubstr("can only concatenate str"));
  EXPECT_THAT(error_of("\n{{ x | nosuch }}"), HasSubstr("line 2: No filter named 'nosuch'"));
  EXPECT_THAT(error_of("{% foo %}"), HasSubstr("unknown tag 'foo'"));
  EXPECT_THAT(error_of("{{ [].append(1) }}"), HasSubstr("unsafe"));
}

TEST(ChatTemplate, KeepsTheOrderOfKeys) {
  Json vars = Json::parse(R"({"d": {"z": 1, "a": {"y": 2, "b": 3.0}}})");
  EXPECT_EQ(render("{{ d | tojson }}", vars), R"({"z": 1, "a": {"y": 2, "b": 3.0}})");
}

TEST(ChatTemplate, VariablesMustBeAnObject) { EXPECT_THROW(ChatTemplate("a").render(Json::array()), Error); }

TEST(ChatTemplate, InvalidUtf8IsReplaced) {
  EXPECT_EQ(render("{{ x }}\xFF", {{"x", "a\xFFz"}}), "a\uFFFDz\uFFFD");
}

TEST(ChatTemplate, OneTemplateInManyThreads) {
  ChatTemplate compiled("{% for i in range(n) %}{{ i ~ ('é' | upper) }}{% endfor %}{{ 'x' * 3 }}");
  std::vector<std::string> results(4);
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < results.size(); ++t)
    threads.emplace_back([&, t] { results[t] = compiled.render({{"n", 100}}); });
  for (auto& thread : threads) thread.join();
  for (const auto& result : results) EXPECT_EQ(result, compiled.render({{"n", 100}}));
}

// ---------------------------------------------------------------------------------------------- bad input

std::string repeated(std::string_view unit, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += unit;
  return out;
}

TEST(HostileTemplate, NestingIsRefused) {
  for (const char* open : {"(", "[", "{1:", "-", "not ", "a(", "a[", "x if y else ", "a|b("})
    EXPECT_THAT(error_of("{{ " + repeated(open, 10000)), HasSubstr("chat template, line 1")) << open;
  EXPECT_THAT(error_of("{{ " + repeated("(", 10000) + "1" + repeated(")", 10000) + " }}"),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(error_of("{{ 1" + repeated("+1", 100000) + " }}"), HasSubstr("too long"));
  EXPECT_THAT(error_of("{{ a" + repeated(".b", 100000) + " }}"), HasSubstr("too long"));
  EXPECT_THAT(error_of("{{ a" + repeated("|e", 100000) + " }}"), HasSubstr("too long"));
  EXPECT_THAT(error_of(repeated("{% if 1 %}", 10000)), HasSubstr("nested too deeply"));
  EXPECT_THAT(error_of(repeated("{% for x in y %}", 10000)), HasSubstr("nested too deeply"));
  EXPECT_EQ(render("{{ 1" + repeated("+1", 500) + " }}"), "501");
  EXPECT_EQ(render("{{ 'a'" + repeated("~'a'", 20000) + " }}").size(), 20001u);
}

TEST(HostileTemplate, RecursionIsRefused) {
  EXPECT_THAT(error_of("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), HasSubstr("recurses too deeply"));
  EXPECT_THAT(error_of("{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}"),
              HasSubstr("recurses too deeply"));
  EXPECT_THAT(error_of("{% macro m() %}{{ caller() }}{% call m() %}{{ caller }}{% endcall %}{% endmacro %}{% "
                       "call m() %}{% endcall %}"),
              HasSubstr("chat template"));
  EXPECT_THAT(error_of("{% set n = namespace(l=[]) %}{% for i in range(9999) %}{% set n.l = [n.l] %}{% "
                       "endfor %}{{ n.l }}"),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(error_of("{% set n = namespace() %}{% set n.a = [n] %}{{ n }}"),
              HasSubstr("nested too deeply"));
  EXPECT_THAT(
      error_of("{% set n = namespace() %}{% set n.a = [n] %}{{ [n.a] == [[n.a]] }}{{ n.a | tojson }}"),
      HasSubstr("not JSON serializable"));
}

TEST(HostileTemplate, SpendingIsLimited) {
  for (
      const char* source :
      {"{{ range(10**12) }}",
       "{{ range(99999999999999999999) }}",
       "{{ 'x' * 10**12 }}",
       "{{ [1] * 10**12 }}",
       "{{ '%999999999999d' % 1 }}",
       "{{ '{:999999999}'.format(1) }}",
       "{{ 'a'.center(10**12) }}",
       "{{ 'a' | center(10**12) }}",
       "{{ 'a\nb' | indent(10**12) }}",
       "{{ [1] | batch(10**12, 0) | list }}",
       "{{ [1] | slice(10**12) | list }}",
       "{{ '1'.zfill(10**12) }}",
       "{{ 'a\tb'.expandtabs(10**12) }}",
       "{{ 10**1000000 }}",
       "{{ {} | tojson(indent=10**12) }}",
       "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
       "{% for a in range(99999) %}{{ 'x' * 100000 }}{% endfor %}",
       "{% set x = 'ab' * 10000 %}{{ x.replace('', x) }}{{ x.replace('a', x).replace('b', x) }}",
       "{% set n = namespace(s='x') %}{% for i in range(99) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
       "{% set n = namespace(s=[1]) %}{% for i in range(99) %}{% set n.s = n.s + n.s %}{% endfor %}",
       "{% set n = namespace(s=[]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s }}",
       "{% set n = namespace(s=[]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s == "
       "n.s ~ '' or n.s | tojson }}",
       "{% set n = namespace(s=[]) %}{% for i in range(99) %}{% set n.s = [n.s, n.s] %}{% endfor %}{{ n.s == "
       "[n.s[0], n.s[1]] }}",
       "{% set x = 'a' * 1000000 %}{% for i in range(99999) %}{% if x == x ~ '' %}{% endif %}{% endfor %}"}) {
    EXPECT_THAT(error_of(source), StartsWith("chat template, line")) << source;
  }
}

TEST(HostileTemplate, DeepVariables) {
  std::string text = repeated("[", 100000) + repeated("]", 100000);
  Json vars;
  vars["x"] = Json::parse(text);
  EXPECT_THAT(error_of("{{ x }}", vars), HasSubstr("nested too deeply"));
  EXPECT_EQ(render("{{ 1 }}", vars), "1");
}

TEST(HostileTemplate, MethodNamesOutliveTheirSpelling) {  // found by fuzzing
  EXPECT_THAT(render("{{ [1] | attr('co' ~ 'unt') }}"), HasSubstr("count"));
}

}  // namespace
}  // namespace steelyard
