#include "app/bench_case.h"

#include <charconv>
#include <regex>

#include "base/error.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kMostTokens = 1 << 20, kMostStreams = 256;

// 0 when it is no number or beyond `most`.
std::uint32_t number(const std::ssub_match& match, std::uint32_t most) {
  const std::string text = match.str();
  std::uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value <= most ? value : 0;
}

}  // namespace

std::string BenchCase::name() const {
  std::string text = fmt::format("{}{}", kind == Kind::prompt ? "pp" : "tg", tokens);
  if (depth) text += fmt::format("@{}", depth);
  if (streams > 1) text += fmt::format("x{}", streams);
  return text;
}

BenchCase parse_bench_case(std::string_view name) {
  static const std::regex kForm(R"(\s*(pp|tg)(\d{1,9})(?:@(\d{1,9}))?(?:\s*x(\d{1,9}))?\s*)");
  const std::string text(name);
  std::smatch match;
  BenchCase c;
  bool good = std::regex_match(text, match, kForm);
  if (good) {
    c.kind = match[1] == "pp" ? BenchCase::Kind::prompt : BenchCase::Kind::generate;
    c.tokens = number(match[2], kMostTokens);
    c.depth = match[3].matched ? number(match[3], kMostTokens) : 0;
    c.streams = match[4].matched ? number(match[4], kMostStreams) : 1;
    good = c.tokens > 0 && c.streams > 0 && !(match[3].matched && c.depth == 0);
  }
  if (!good)
    throw_error(ErrorKind::bad_input,
                "'{}' is no test: write pp512, tg128, tg128@2048 (at depth 2048) or tg128x8 (eight streams)",
                name);
  return c;
}

std::vector<BenchCase> parse_bench_cases(std::string_view names) {
  std::vector<BenchCase> cases;
  while (true) {
    const auto comma = names.find(',');
    cases.push_back(parse_bench_case(names.substr(0, comma)));
    if (comma == std::string_view::npos) return cases;
    names.remove_prefix(comma + 1);
  }
}

std::vector<BenchCase> default_bench_cases(bool gpu) {
  if (gpu)
    return parse_bench_cases(
        "pp512,pp2048,pp8192,tg128,tg128@2048,tg128@8192,tg128@512x2,tg128@512x4,tg128@512x8,tg128@512x16,"
        "tg128@512x32,tg128@512x64");
  return parse_bench_cases(
      "pp512,pp2048,tg128,tg128@2048,tg128@8192,tg128x2,tg128x4,tg128x8,tg128x16,tg128x32");
}

}  // namespace steelyard
