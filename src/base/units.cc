#include "base/units.h"

#include <array>
#include <charconv>
#include <cmath>
#include <ctime>
#include <utility>

#include "base/error.h"

namespace steelyard {
namespace {

// `value` with so many decimals, rounded as asked.
std::string decimals(double value, int digits, Rounding rounding) {
  const double scale = std::pow(10.0, digits);
  if (rounding == Rounding::up) value = std::ceil(value * scale) / scale;
  if (rounding == Rounding::down) value = std::floor(value * scale) / scale;
  return fmt::format("{:.{}f}", value, digits);
}

[[noreturn]] void no_size(std::string_view text) {
  throw_error(ErrorKind::bad_input, "'{}' is no size: write it as 900M or 2G", text);
}

// What a unit multiplies by; 0 for no unit that we know. "G" and "GiB" are powers of 1024, "GB" of 1000.
double unit_bytes(std::string unit) {
  for (char& c : unit)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (unit == "b") return 1;
  static constexpr std::string_view kPrefixes = "kmgt";
  const std::size_t power = unit.empty() ? std::string_view::npos : kPrefixes.find(unit[0]);
  if (power == std::string_view::npos) return 0;
  const std::string_view rest = std::string_view(unit).substr(1);
  if (rest.empty() || rest == "ib") return std::pow(1024.0, static_cast<double>(power + 1));
  return rest == "b" ? std::pow(1000.0, static_cast<double>(power + 1)) : 0;
}

}  // namespace

std::string size_text(std::uint64_t bytes, Rounding rounding) {
  const double kib = static_cast<double>(bytes) / 1024;
  if (bytes < 10'000) return fmt::format("{} B", bytes);
  if (kib < 1023.95) return decimals(kib, 1, rounding) + " KiB";
  if (kib < 1023.95 * 1024) return decimals(kib / 1024, 1, rounding) + " MiB";
  return decimals(kib / 1024 / 1024, 2, rounding) + " GiB";
}

std::uint64_t parse_size(std::string_view text) {
  double number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc()) no_size(text);
  std::string_view unit = text.substr(static_cast<std::size_t>(end - text.data()));
  while (unit.starts_with(' ')) unit.remove_prefix(1);
  if (unit.empty())
    throw_error(ErrorKind::bad_input, "'{}' has no unit: write {}G for GiB, {}M for MiB", text, text, text);
  const double bytes = number * unit_bytes(std::string(unit));
  if (!(bytes >= 1) || bytes > 1e18) no_size(text);
  return static_cast<std::uint64_t>(bytes);
}

std::string count_text(std::uint64_t count) {
  static constexpr std::array<std::pair<double, char>, 4> kUnits = {
      {{1e12, 'T'}, {1e9, 'B'}, {1e6, 'M'}, {1e3, 'K'}}};
  for (const auto& [unit, letter] : kUnits)
    if (const double value = static_cast<double>(count) / unit; value >= 0.9995)
      return fmt::format("{:.3g}{}", value, letter);
  return fmt::format("{}", count);
}

std::string rfc3339(std::chrono::system_clock::time_point time) {
  const auto whole = std::chrono::floor<std::chrono::seconds>(time);
  const auto fraction = std::chrono::duration_cast<std::chrono::nanoseconds>(time - whole).count();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(whole);
  std::tm utc{};
  gmtime_r(&seconds, &utc);
  std::string text = fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}", utc.tm_year + 1900, utc.tm_mon + 1,
                                 utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec);
  if (fraction) {
    text += fmt::format(".{:09}", fraction);
    while (text.ends_with('0')) text.pop_back();
  }
  return text + "Z";
}

std::optional<std::chrono::system_clock::time_point> parse_rfc3339(const std::string& text) {
  std::tm utc{};
  const char* rest = strptime(text.c_str(), "%Y-%m-%dT%H:%M:%S", &utc);
  if (!rest) return std::nullopt;
  std::int64_t nanoseconds = 0;
  if (*rest == '.') {
    std::int64_t unit = 100'000'000;
    for (++rest; *rest >= '0' && *rest <= '9'; ++rest, unit /= 10) nanoseconds += (*rest - '0') * unit;
  }
  if (std::string_view(rest) != "Z") return std::nullopt;
  return std::chrono::system_clock::from_time_t(timegm(&utc)) +
         std::chrono::duration_cast<std::chrono::system_clock::duration>(
             std::chrono::nanoseconds(nanoseconds));
}

std::string span_text(std::chrono::seconds span) {
  const auto s = span.count();
  if (s < 120) return fmt::format("{} s", s);
  if (s < 2 * 3600) return fmt::format("{} min", s / 60);
  if (s < 48 * 3600) return fmt::format("{} h", s / 3600);
  return fmt::format("{} days", s / 86400);
}

}  // namespace steelyard
