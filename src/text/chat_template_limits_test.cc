// What a template may spend: whatever it asks for, rendering ends soon.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ctime>
#include <iterator>
#include <map>
#include <ostream>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/error.h"
#include "jinja/tables.h"
#include "jinja/value.h"
#include "text/chat_template.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

std::string error_of(const std::string& source) {
  try {
    ChatTemplate(source).render(Json::object());
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::bad_input);
    return error.what();
  }
  return "no error";
}

// Ways in which work once got past the count of steps; each would run for minutes to for ever.
TEST(ChatTemplateLimits, WorkThatWasOnceFree) {
  const std::string double_list =
      "{% set ns = namespace(a=[]) %}{% for i in range(60) %}{% set ns.a = [ns.a, ns.a] %}{% endfor %}";
  const std::string double_tuple =
      "{% set ns = namespace(a=()) %}{% for i in range(60) %}{% set ns.a = (ns.a, ns.a) %}{% endfor %}";
  std::string names;
  for (int i = 0; i < 20000; ++i) names += "{% set a" + std::to_string(i) + " = 1 %}";
  for (const std::string& source :
       {double_list + "{% set ns.a = [ns.a, ns.a, 1] %}{{ ns.a == ns.a }}",
        double_tuple + "{{ {ns.a: 1} | length }}", double_tuple + "{{ [ns.a] | unique | list | length }}",
        double_list + "{{ ns.a in {'x': ns.a}.values() }}",
        std::string("{{ ('a' * 50000000 ~ 'b') in ('a' * 100000000) }}{% for i in range(9) %}{{ ('a' * "
                    "9000000 ~ 'b') in ('a' * 9999999) }}{% endfor %}"),
        names + "{% for i in range(100000) %}{% for j in range(100) %}{{ zz }}{% endfor %}{% endfor %}",
        std::string("{% set s = '\\x01' * 1000000 %}{% for i in range(1200) %}{% set q = (1)[s] %}{% endfor "
                    "%}{% for i in range(100000) %}{% set x = s | upper %}{% endfor %}")})
    EXPECT_THAT(error_of(source), testing::ContainsRegex("too (many steps|much memory)"))
        << source.substr(0, 200);
  // Linear now, so it ends.
  EXPECT_EQ(error_of("{% set s = '\u00e9' * 50000 %}{% for c in s %}{% set n = loop.revindex %}{% endfor %}"),
            "no error");
}

TEST(ChatTemplateLimits, ACallerCanStopARendering) {
  std::stop_source source;
  source.request_stop();
  try {
    ChatTemplate("{% for i in range(100000) %}{{ i }}{% endfor %}")
        .render(Json::object(), {.stop = source.get_token()});
    FAIL() << "it went on";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::cancelled);
  }
}

TEST(ChatTemplateLimits, MessagesAreShortAndReadable) {
  EXPECT_EQ(error_of("{{ raise_exception('a\x1b[31mb') }}"), "a\\x1b[31mb");
  EXPECT_LT(error_of("{{ raise_exception('x' * 100000) }}").size(), 1000u);
  EXPECT_LT(error_of("{{ {}['x' * 100000].y }}").size(), 1000u);
  EXPECT_LT(error_of("{{ " + std::string(100000, 'n') + ".y }}").size(), 1000u);
}

// ------------------------------------------------------------------------------------------ every operation

// Arguments with which every filter, test, method and global function is tried.
constexpr const char* kArguments[] = {"", "big", "'a', big", "9000000", "*[big, big]", "a=big"};

// Those that only some of them take, or that make them do more.
const std::map<std::string_view, std::vector<const char*>>& further_arguments() {
  static const std::map<std::string_view, std::vector<const char*>> table = {
      {"replace", {"'a', 'b'", "big, 'b'", "'aaab', ''"}},
      {"indent", {"big, true, true"}},
      {"center", {"9000000, 'é'"}},
      {"truncate", {"99999, true", "5, false, 'x', 0"}},
      {"tojson", {"indent=2", "sort_keys=true", "separators=(big, big)"}},
      {"int", {"0, 16"}},
      {"round", {"2, big"}},
      {"sort", {"attribute=big", "case_sensitive=true"}},
      {"dictsort", {"by=big", "true, 'value'"}},
      {"unique", {"true"}},
      {"groupby", {"0"}},
      {"sum", {"start=[]"}},
      {"join", {"'', attribute=big"}},
      {"map", {"'upper'", "attribute=big"}},
      {"select", {"'string'", "'in', big"}},
      {"reject", {"'eq', big"}},
      {"rejectattr", {"'a'"}},
      {"batch", {"3", "9000000, 1"}},
      {"slice", {"3", "900000, 1"}},
      {"rjust", {"9000000, 'é'"}},
      {"endswith", {"(big, big)"}},
      {"startswith", {"'a', 5"}},
      {"split", {"'aaaaaab'"}},
      {"rsplit", {"'baaaaaa'"}},
      {"partition", {"'aab'"}},
      {"find", {"'aaaaaab'"}},
      {"rfind", {"'baaaaaa'"}},
      {"index", {"'b'", "7"}},
      {"rindex", {"'q'"}},
      {"count", {"'aa'", "7"}},
      {"format_map", {"{big: 1}", "{'a': big}"}},
      {"divisibleby", {"3"}},
      {"in", {"[big]", "other", "{big: 1}"}},
      {"eq", {"other"}},
      {"lt", {"other"}},
      {"le", {"other"}},
      {"range", {"99999"}},
      {"dict", {"[(big, 1)]", "**{big: 1}"}},
  };
  return table;
}

// clang-format off
constexpr const char* kExpressions[] = {
    "big + big", "big * 2", "big ~ big", "big % (1, 2)", "-big", "not big", "big and other", "big or other",
    "big == other", "big != other", "big < other", "big >= other", "big in other", "other in [big]",
    "big not in other", "big in {big: 1}", "big if big else other", "m(big)", "m(*big)", "m(a=big)",
    "big[7]", "big[-1]", "big[1:]", "big[::-1]", "big[::2]", "big['x']", "big.x", "{}[big]", "{big: 1}",
    "[big, big]", "(big, big)", "loop.changed(big)", "loop.cycle(big)", "loop[big]", "namespace(a=big).b",
    "'%s' % big", "'%r' % (big,)", "'%9000000d' % 1", "'{}'.format(big)", "'{:>9000000}'.format(1)",
    "(range(99999) | list).index(99998)", "range(99999).index(99998)", "cycler(*[1, 2]).next()"};

// Each is a few megabytes, as much as memory allows two of them to be, but for the numbers.
struct Operand {
  const char* name;
  const char* text;
  jinja::Kind kind;
  friend void PrintTo(const Operand& operand, std::ostream* out) { *out << operand.name; }
};
using jinja::Kind;
constexpr Operand kOperands[] = {
    {"ascii", "('a' * 1000) * 4000", Kind::string},
    {"beyond_ascii", "('\u00e9' * 1000) * 2000", Kind::string},
    {"spaces", "(' ' * 1000) * 4000", Kind::string},
    {"tags", "('<' * 1000) * 4000", Kind::string},
    {"fields", "('{}' * 1000) * 2000", Kind::string},
    {"percents", "('%' * 1000) * 4000", Kind::string},
    {"digits", "('9' * 1000) * 4000", Kind::string},
    {"list", "[1] * 200000", Kind::list},
    {"list_of_texts", "['a' * 100000] * 1000", Kind::list},
    {"tuple", "(1, 2) * 100000", Kind::tuple},
    {"dict", "dict([[1, ('a' * 1000) * 4000]])", Kind::dict},
    {"range", "range(100000)", Kind::range},
    {"cycler", "cycler(*(['a'] * 100000))", Kind::cycler},
    {"integer", "7", Kind::integer},
    {"real", "7.5", Kind::real}};
// clang-format on

std::vector<std::string> operations_on(Kind kind) {
  std::vector<std::string> made(std::begin(kExpressions), std::end(kExpressions));
  const auto each = [&](std::string_view name, const auto& make) {
    for (const char* arguments : kArguments) made.push_back(make(std::string(name), arguments));
    const auto further = further_arguments().find(name);
    if (further == further_arguments().end()) return;
    for (const char* arguments : further->second) made.push_back(make(std::string(name), arguments));
  };
  using Text = std::string;
  for (const auto& [name, function] : jinja::filters())
    each(name,
         [](const Text& f, const Text& arguments) { return "big | " + f + "(" + arguments + ") | list"; });
  for (const auto& [name, function] : jinja::tests())
    each(name, [](const Text& test, const Text& arguments) {
      return "[big] | select('" + test + "'" + (arguments.empty() ? "" : ", ") + arguments + ") | list";
    });
  for (const auto& [name, function] : jinja::globals())
    each(name, [](const Text& f, const Text& arguments) { return f + "(" + arguments + ")"; });
  for (const auto& [name, function] : jinja::methods_of(kind))
    each(name, [](const Text& f, const Text& arguments) { return "big." + f + "(" + arguments + ")"; });
  return made;
}

// A bound against work that isn't counted, far above the milliseconds that are.
#ifdef __SANITIZE_ADDRESS__
constexpr double kMostSeconds = 60;
#else
constexpr double kMostSeconds = 10;
#endif

double thread_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Everything a template can apply to a value, a thousand times to one about as large as memory allows: it
// ends or is refused for its steps or memory, after some milliseconds. Work that isn't counted would take
// many seconds, to minutes.
class EveryOperation : public ::testing::TestWithParam<Operand> {};

TEST_P(EveryOperation, IsChargedByWhatItTouches) {
  const TemplateLimits half{.output_bytes = 1 << 20, .steps = 500'000, .memory_bytes = 18 << 20};
  const TemplateLimits limits{.output_bytes = 1 << 20, .steps = 1'000'000, .memory_bytes = 24 << 20};
  const std::string value = GetParam().text;
  const std::string before = "{% macro m(a) %}{{ a }}{% endmacro %}{% set big = " + value +
                             " %}{% set other = " + value + " %}{% for i in range(1000) %}";
  // What comes before an operation leaves most of the steps and memory to it.
  EXPECT_EQ(ChatTemplate(before + "{% endfor %}").render(Json::object(), half), "");
  for (const std::string& operation : operations_on(GetParam().kind)) {
    const double start = thread_seconds();
    try {
      ChatTemplate(before + "{% set x = " + operation + " %}{% endfor %}").render(Json::object(), limits);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input) << e.what();
      EXPECT_THAT(e.what(), ::testing::Not(::testing::HasSubstr("takes too long"))) << operation;
    }
    EXPECT_LT(thread_seconds() - start, kMostSeconds) << operation << " of " << value;
  }
}

INSTANTIATE_TEST_SUITE_P(Operands, EveryOperation, ::testing::ValuesIn(kOperands),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace steelyard
