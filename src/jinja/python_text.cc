#include "jinja/python_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <iterator>

#include "base/utf8.h"

namespace steelyard::jinja {

namespace {

const CaseRun* find_run(const CaseRun* runs, std::size_t count, std::uint32_t code) {
  const CaseRun* run =
      std::partition_point(runs, runs + count, [&](const CaseRun& r) { return r.last < code; });
  if (run == runs + count || code < run->first || (code - run->first) % run->step != 0) return nullptr;
  return run;
}

bool append_long(std::string& out, const LongCase* cases, std::size_t count, std::uint32_t code) {
  const LongCase* found =
      std::partition_point(cases, cases + count, [&](const LongCase& c) { return c.code < code; });
  if (found == cases + count || found->code != code) return false;
  for (std::uint32_t mapped : found->mapped)
    if (mapped != 0) append_utf8(out, mapped);
  return true;
}

bool is_cased(std::uint32_t code) { return is_upper(code) || is_lower(code) || is_title(code); }

// Unicode's Case_Ignorable, as far as the final sigma rule needs it.
bool is_case_ignorable(std::uint32_t code) {
  switch (category(code)) {
    case Category::Mn:
    case Category::Me:
    case Category::Cf:
    case Category::Lm:
    case Category::Sk:
      return true;
    default:
      return code == '\'' || code == '.' || code == ':' || code == 0xB7 || code == 0x2019 || code == 0x2018 ||
             code == 0x2024 || code == 0x2027;
  }
}

// A sigma ends a word when a cased letter stands before it and none after, ignorable ones aside.
bool is_final_sigma(std::string_view text, std::size_t at) {
  std::size_t before = at;
  bool cased_before = false;
  while (before > 0) {
    do --before;
    while (before > 0 && (text[before] & 0xC0) == 0x80);
    std::size_t length;
    std::uint32_t code = char_at(text, before, &length);
    if (is_case_ignorable(code)) continue;
    cased_before = is_cased(code);
    break;
  }
  if (!cased_before) return false;
  std::size_t length;
  char_at(text, at, &length);
  for (std::size_t after = at + length; after < text.size(); after += length) {
    std::uint32_t code = char_at(text, after, &length);
    if (!is_case_ignorable(code)) return !is_cased(code);
  }
  return true;
}

void append_lower_at(std::string& out, std::string_view text, std::size_t at, std::uint32_t code) {
  if (code == 0x3A3) {
    append_utf8(out, is_final_sigma(text, at) ? 0x3C2 : 0x3C3);
  } else {
    append_lower(out, code);
  }
}

}  // namespace

Category category(std::uint32_t code) {
  const std::uint32_t* end = kCategoryRuns + kCategoryRunCount;
  const std::uint32_t* run = std::upper_bound(kCategoryRuns, end, code << 8 | 0xFF) - 1;
  return static_cast<Category>(*run & 0xFF);
}

bool is_space(std::uint32_t code) {
  if (code < 0x80) return code == ' ' || (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x1F);
  Category c = category(code);
  return code == 0x85 || c == Category::Zs || c == Category::Zl || c == Category::Zp;
}

bool is_line_end(std::uint32_t code) {
  return (code >= 10 && code <= 13) || (code >= 0x1C && code <= 0x1E) || code == 0x85 || code == 0x2028 ||
         code == 0x2029;
}

bool is_printable(std::uint32_t code) {
  if (code < 0x7F) return code >= 0x20;
  return category(code) < Category::Zs;
}

bool is_alpha(std::uint32_t code) { return category(code) <= Category::Lo; }
bool is_decimal(std::uint32_t code) { return category(code) == Category::Nd; }

bool is_digit(std::uint32_t code) {
  if (is_decimal(code)) return true;
  if (category(code) != Category::No) return false;
  static constexpr std::uint32_t kRanges[][2] = {
      {0xB2, 0xB3},     {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},   {0x2070, 0x2070},
      {0x2074, 0x2079}, {0x2080, 0x2089},   {0x2460, 0x2468},   {0x2474, 0x247C},   {0x2488, 0x2490},
      {0x24EA, 0x24EA}, {0x24F5, 0x24FD},   {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},
      {0x278A, 0x2792}, {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [&](const auto& range) { return code >= range[0] && code <= range[1]; });
}

bool is_numeric(std::uint32_t code) {
  Category c = category(code);
  return c == Category::Nd || c == Category::Nl || c == Category::No;
}

bool is_upper(std::uint32_t code) {
  return category(code) == Category::Lu || (code >= 0x2160 && code <= 0x216F) ||
         (code >= 0x24B6 && code <= 0x24CF) || (code >= 0x1F130 && code <= 0x1F149) ||
         (code >= 0x1F150 && code <= 0x1F169) || (code >= 0x1F170 && code <= 0x1F189);
}

bool is_lower(std::uint32_t code) {
  return category(code) == Category::Ll || code == 0xAA || code == 0xBA || (code >= 0x2B0 && code <= 0x2B8) ||
         (code >= 0x2170 && code <= 0x217F) || (code >= 0x24D0 && code <= 0x24E9);
}

bool is_title(std::uint32_t code) { return category(code) == Category::Lt; }

bool is_word(std::uint32_t code) { return code == '_' || is_alpha(code) || is_numeric(code); }

std::uint32_t char_at(std::string_view text, std::size_t at, std::size_t* length) {
  Utf8Char c = decode_utf8(text.substr(at));
  *length = c.length;
  return c.code;
}

std::size_t count_chars(std::string_view text) {
  return static_cast<std::size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::size_t byte_offset(std::string_view text, std::size_t index, bool ascii) {
  if (ascii) return std::min(index, text.size());
  std::size_t at = 0;
  while (at < text.size() && index > 0) {
    do ++at;
    while (at < text.size() && (text[at] & 0xC0) == 0x80);
    --index;
  }
  return at;
}

void append_upper(std::string& out, std::uint32_t code) {
  if (append_long(out, kUpperLong, kUpperLongCount, code)) return;
  const CaseRun* run = find_run(kUpperRuns, kUpperRunCount, code);
  append_utf8(out, run ? code + run->difference : code);
}

void append_lower(std::string& out, std::uint32_t code) {
  if (append_long(out, kLowerLong, kLowerLongCount, code)) return;
  const CaseRun* run = find_run(kLowerRuns, kLowerRunCount, code);
  append_utf8(out, run ? code + run->difference : code);
}

void append_title(std::string& out, std::uint32_t code) {
  if (append_long(out, kTitleLong, kTitleLongCount, code)) return;
  if (const CaseRun* run = find_run(kTitleRuns, kTitleRunCount, code))
    return append_utf8(out, code + run->difference);
  append_upper(out, code);
}

std::string to_upper(std::string_view text) {
  std::string out;
  for (std::size_t at = 0, length; at < text.size(); at += length)
    append_upper(out, char_at(text, at, &length));
  return out;
}

std::string to_lower(std::string_view text) {
  std::string out;
  for (std::size_t at = 0, length; at < text.size(); at += length)
    append_lower_at(out, text, at, char_at(text, at, &length));
  return out;
}

std::string to_title(std::string_view text) {
  std::string out;
  bool inside = false;
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (inside) {
      append_lower_at(out, text, at, code);
    } else {
      append_title(out, code);
    }
    inside = is_cased(code);
  }
  return out;
}

std::string capitalized(std::string_view text) {
  std::string out;
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (at == 0) {
      append_title(out, code);
    } else {
      append_lower_at(out, text, at, code);
    }
  }
  return out;
}

std::string swap_case(std::string_view text) {
  std::string out;
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (is_upper(code)) {
      append_lower_at(out, text, at, code);
    } else if (is_lower(code)) {
      append_upper(out, code);
    } else {
      append_utf8(out, code);
    }
  }
  return out;
}

std::string_view strip_left(std::string_view text) {
  std::size_t at = 0, length;
  while (at < text.size() && is_space(char_at(text, at, &length))) at += length;
  return text.substr(at);
}

std::string_view strip_right(std::string_view text) {
  while (!text.empty()) {
    std::size_t at = text.size() - 1, length;
    while (at > 0 && (text[at] & 0xC0) == 0x80) --at;
    if (!is_space(char_at(text, at, &length))) break;
    text = text.substr(0, at);
  }
  return text;
}

std::string repr_of(std::string_view text) {
  bool single = text.find('\'') != std::string_view::npos, twin = text.find('"') != std::string_view::npos;
  char quote = single && !twin ? '"' : '\'';
  std::string out(1, quote);
  static constexpr char kHex[] = "0123456789abcdef";
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (code == static_cast<std::uint32_t>(quote) || code == '\\') {
      out += '\\';
      out += static_cast<char>(code);
    } else if (code == '\n' || code == '\r' || code == '\t') {
      out += code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t";
    } else if (is_printable(code)) {
      out += text.substr(at, length);
    } else {
      int digits = code < 0x100 ? 2 : code < 0x10000 ? 4 : 8;
      out += digits == 2 ? "\\x" : digits == 4 ? "\\u" : "\\U";
      for (int shift = digits * 4 - 4; shift >= 0; shift -= 4) out += kHex[code >> shift & 15];
    }
  }
  return out += quote;
}

std::string_view cut_text(std::string_view text) {
  constexpr std::size_t kLongest = 120;
  if (text.size() <= kLongest) return text;
  std::size_t end = kLongest;
  while (end > 0 && (text[end] & 0xC0) == 0x80) --end;
  return text.substr(0, end);
}

std::string repr_cut(std::string_view text) { return repr_of(cut_text(text)); }

std::string repr_of(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char buffer[40];
  auto [end, error] = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  std::string_view all(buffer, static_cast<std::size_t>(end - buffer));
  std::size_t e = all.find('e');
  int exponent = std::atoi(std::string(all.substr(e + 1)).c_str());
  std::string digits, out;
  for (char c : all.substr(0, e))
    if (c >= '0' && c <= '9') digits += c;
  if (all[0] == '-') out += '-';
  if (exponent < -4 || exponent >= 16) {
    out += digits[0];
    if (digits.size() > 1) out.append(1, '.').append(digits, 1);
    std::string power = std::to_string(std::abs(exponent));
    return out + (exponent < 0 ? "e-" : "e+") + (power.size() < 2 ? "0" : "") + power;
  }
  if (exponent < 0) return out + "0." + std::string(static_cast<std::size_t>(-exponent - 1), '0') + digits;
  std::size_t whole = static_cast<std::size_t>(exponent) + 1;
  if (digits.size() <= whole) return out + digits + std::string(whole - digits.size(), '0') + ".0";
  return out + digits.substr(0, whole) + "." + digits.substr(whole);
}

namespace {

// Drops the underscores Python allows between digits; false when one stands elsewhere.
bool drop_underscores(std::string_view text, std::string& out, bool leading_allowed) {
  bool digit_before = leading_allowed;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (c == '_') {
      if (!digit_before || i + 1 == text.size() || !std::isalnum(static_cast<unsigned char>(text[i + 1])))
        return false;
      digit_before = false;
    } else {
      out += c;
      digit_before = std::isalnum(static_cast<unsigned char>(c));
    }
  }
  return true;
}

}  // namespace

std::optional<std::int64_t> parse_int(std::string_view text, int base) {
  text = strip_right(strip_left(text));
  bool negative = false;
  if (!text.empty() && (text[0] == '+' || text[0] == '-')) {
    negative = text[0] == '-';
    text.remove_prefix(1);
  }
  bool prefixed = false;
  if (text.size() > 1 && text[0] == '0') {
    char mark = static_cast<char>(text[1] | 0x20);
    int named = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 0;
    if (named != 0 && (base == named || base == 0)) {
      base = named;
      prefixed = true;
      text.remove_prefix(2);
    }
  }
  if (base == 0) {
    base = 10;
    bool zeros = text.find_first_not_of("0_") == std::string_view::npos;
    if (text.size() > 1 && text[0] == '0' && !zeros) return std::nullopt;
  }
  std::string digits;
  if (text.empty() || !drop_underscores(text, digits, prefixed)) return std::nullopt;
  std::uint64_t value = 0;
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value, base);
  if (error != std::errc() || end != digits.data() + digits.size()) return std::nullopt;
  if (value > static_cast<std::uint64_t>(INT64_MAX) + negative) return std::nullopt;
  return static_cast<std::int64_t>(negative ? 0 - value : value);
}

std::optional<double> parse_float(std::string_view text) {
  text = strip_right(strip_left(text));
  std::string plain;
  if (text.empty() || !drop_underscores(text, plain, false)) return std::nullopt;
  std::string lower;
  for (char c : plain) lower += static_cast<char>(c >= 'A' && c <= 'Z' ? c | 0x20 : c);
  std::string_view word = lower;
  if (!word.empty() && (word[0] == '+' || word[0] == '-')) word.remove_prefix(1);
  bool negative = lower[0] == '-';
  if (word == "nan") return std::nan("");
  if (word == "inf" || word == "infinity") return negative ? -INFINITY : INFINITY;
  if (word.empty() || word.find_first_not_of("0123456789.e+-") != std::string_view::npos) return std::nullopt;
  if (word[0] == '+' || word[0] == '-') return std::nullopt;
  double value = 0;
  auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
  if (end != word.data() + word.size() || error == std::errc::invalid_argument) return std::nullopt;
  if (error == std::errc::result_out_of_range) value = std::strtod(std::string(word).c_str(), nullptr);
  return negative ? -value : value;
}

}  // namespace steelyard::jinja
