#include "grammar/json_text.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace steelyard {
namespace {

using Expr = GrammarBuilder::Expr;
using Ranges = GrammarBuilder::Ranges;
constexpr std::uint32_t kLast = 0x10ffff, kUnbounded = GrammarBuilder::kUnbounded;
constexpr std::string_view kHex = "0123456789abcdefABCDEF", kDigits = "0123456789";

Ranges sorted(Ranges r) {
  std::sort(r.begin(), r.end());
  Ranges out;
  for (const auto& [lo, hi] : r) {
    if (!out.empty() && lo <= out.back().second + 1)
      out.back().second = std::max(out.back().second, hi);
    else
      out.emplace_back(lo, hi);
  }
  return out;
}

Ranges all_but(const Ranges& r) {
  Ranges out;
  std::uint32_t from = 0;
  for (const auto& [lo, hi] : sorted(r)) {
    if (lo > from) out.emplace_back(from, lo - 1);
    from = hi + 1;
  }
  if (from <= kLast) out.emplace_back(from, kLast);
  return out;
}

// ---- regular expressions ----

class Pattern {
 public:
  Pattern(GrammarBuilder& b, std::string_view text) : b_(b), text_(text) {}

  // Anchors count at the ends of each alternative of the outermost choice.
  Expr read() {
    std::vector<Expr> ways;
    do ways.push_back(anchored());
    while (take('|'));
    if (!done()) unsupported("an unmatched )");
    return b_.choice(ways);
  }

 private:
  [[noreturn]] void unsupported(std::string_view what) const {
    throw_error(ErrorKind::unsupported, "\"pattern\" has {}, which isn't supported: {}", what, text_);
  }
  bool done() const { return at_ >= text_.size(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  Expr anything() { return b_.repeat(json_character(b_, all_but({})), 0, kUnbounded); }

  Expr anchored() {
    std::vector<Expr> parts;
    if (!take('^')) parts.push_back(anything());
    parts.push_back(sequence(0));
    if (!take('$')) parts.push_back(anything());
    return b_.sequence(parts);
  }

  Expr choice(int depth) {
    std::vector<Expr> ways;
    do ways.push_back(sequence(depth));
    while (take('|'));
    return b_.choice(ways);
  }

  Expr sequence(int depth) {
    std::vector<Expr> parts;
    while (!done() && peek() != '|' && peek() != ')') {
      if (peek() == '$') {
        if (depth == 0 && (at_ + 1 == text_.size() || text_[at_ + 1] == '|')) break;
        unsupported("$ in the middle");
      }
      parts.push_back(counted(atom(depth)));
    }
    return b_.sequence(parts);
  }

  Expr atom(int depth) {
    if (depth > 50) unsupported("too many groups within groups");
    if (take('(')) {
      if (take('?')) {
        if (peek() == '<' && at_ + 1 < text_.size() && text_[at_ + 1] != '=' && text_[at_ + 1] != '!') {
          while (!done() && !take('>')) ++at_;
        } else if (!take(':')) {
          unsupported("looking ahead or behind");
        }
      }
      const Expr inner = choice(depth + 1);
      if (!take(')')) unsupported("an unmatched (");
      return inner;
    }
    if (peek() == '^') unsupported("^ in the middle");
    if (std::string_view("*+?{").find(peek()) != std::string_view::npos) unsupported("a count of nothing");
    return json_character(b_, take('[') ? set() : take('.') ? all_but({{'\n', '\n'}, {'\r', '\r'}}) : one());
  }

  std::uint32_t number() {
    std::uint32_t n = 0;
    if (done() || !std::isdigit(static_cast<unsigned char>(peek())))
      unsupported("a count that can't be read");
    while (!done() && std::isdigit(static_cast<unsigned char>(peek()))) {
      n = n * 10 + static_cast<std::uint32_t>(text_[at_++] - '0');
      if (n > 100'000) unsupported("a count above 100000");
    }
    return n;
  }

  Expr counted(Expr what) {
    std::uint32_t least = 1, most = 1;
    if (take('*')) {
      least = 0, most = kUnbounded;
    } else if (take('+')) {
      most = kUnbounded;
    } else if (take('?')) {
      least = 0;
    } else if (take('{')) {
      least = most = number();
      if (take(',')) most = peek() == '}' ? kUnbounded : number();
      if (!take('}')) unsupported("a count that can't be read");
    } else {
      return what;
    }
    take('?');  // lazy: the same texts match
    return b_.repeat(what, least, most);
  }

  std::uint32_t hex(int digits) {
    std::uint32_t code = 0;
    for (int i = 0; i < digits; ++i, ++at_) {
      const std::size_t value = done() ? kHex.npos : kHex.find(peek());
      if (value == kHex.npos) unsupported("an escape that can't be read");
      code = code * 16 + static_cast<std::uint32_t>(value > 15 ? value - 6 : value);
    }
    return code;
  }

  // One character or an escape, as ranges.
  Ranges one() {
    const Utf8Char c = decode_utf8(text_.substr(at_));
    at_ += c.length;
    if (c.code != '\\') return {{c.code, c.code}};
    if (done()) unsupported("an escape that can't be read");
    const char e = text_[at_++];
    const Ranges digit{{'0', '9'}}, word{{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
        space{{9, 13},          {' ', ' '},       {0xa0, 0xa0},     {0x1680, 0x1680}, {0x2000, 0x200a},
              {0x2028, 0x2029}, {0x202f, 0x202f}, {0x205f, 0x205f}, {0x3000, 0x3000}, {0xfeff, 0xfeff}};
    switch (e) {
      case 'd':
        return digit;
      case 'D':
        return all_but(digit);
      case 'w':
        return word;
      case 'W':
        return all_but(word);
      case 's':
        return space;
      case 'S':
        return all_but(space);
      case 'n':
        return {{'\n', '\n'}};
      case 'r':
        return {{'\r', '\r'}};
      case 't':
        return {{'\t', '\t'}};
      case 'f':
        return {{'\f', '\f'}};
      case 'v':
        return {{'\v', '\v'}};
      case '0':
        return {{0, 0}};
      case 'x':
        return same(hex(2));
      case 'u':
        return same(hex(4));
      default:
        break;
    }
    if (std::isalnum(static_cast<unsigned char>(e))) unsupported(fmt::format("\\{}", e));
    return {{static_cast<unsigned char>(e), static_cast<unsigned char>(e)}};
  }
  static Ranges same(std::uint32_t code) { return {{code, code}}; }

  Ranges set() {
    const bool inverted = take('^');
    Ranges all;
    while (!take(']')) {
      if (done()) unsupported("an unmatched [");
      const Ranges from = one();
      const bool range = peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']';
      if (range && from.size() == 1 && from[0].first == from[0].second) {
        ++at_;
        const Ranges to = one();
        if (to.size() != 1 || to[0].first != to[0].second || to[0].first < from[0].first)
          unsupported("a range that can't be read");
        all.emplace_back(from[0].first, to[0].first);
      } else {
        all.insert(all.end(), from.begin(), from.end());
      }
    }
    return inverted ? all_but(all) : sorted(all);
  }

  GrammarBuilder& b_;
  std::string_view text_;
  std::size_t at_ = 0;
};

// ---- numbers ----

// Digit strings of one length from `lo` to `hi`, with a point before the last `decimals` of the number.
class Digits {
 public:
  Digits(GrammarBuilder& b, std::size_t decimals) : b_(b), decimals_(decimals) {}

  Expr between(std::string_view lo, std::string_view hi, bool open_lo = false, bool open_hi = false) {
    if (lo.empty()) return b_.empty();
    if (open_lo && open_hi) return free(lo.size());
    const char l = open_lo ? '0' : lo[0], h = open_hi ? '9' : hi[0];
    const auto rest = [&](char from, char to, bool ol, bool oh) {
      return b_.sequence({digit(from, to, lo.size()), between(lo.substr(1), hi.substr(1), ol, oh)});
    };
    if (!open_lo && !open_hi && l == h) return rest(l, l, false, false);
    std::vector<Expr> ways;
    if (!open_lo) ways.push_back(rest(l, l, false, true));
    const char first = static_cast<char>(open_lo ? l : l + 1), last = static_cast<char>(open_hi ? h : h - 1);
    if (first <= last) ways.push_back(rest(first, last, true, true));
    if (!open_hi) ways.push_back(rest(h, h, true, false));
    return b_.choice(ways);
  }

 private:
  Expr digit(char from, char to, std::size_t left) {
    ByteSet set;
    for (char c = from; c <= to; ++c) set.set(static_cast<unsigned char>(c));
    const Expr d = b_.bytes(set);
    return decimals_ > 0 && left == decimals_ ? b_.sequence({b_.literal("."), d}) : d;
  }
  Expr free(std::size_t n) {
    std::vector<Expr> parts;
    for (; n > 0; --n) parts.push_back(digit('0', '9', n));
    return b_.sequence(parts);
  }

  GrammarBuilder& b_;
  std::size_t decimals_;
};

// From lo to hi, both not negative, in units of the last decimal.
Expr positive(GrammarBuilder& b, std::uint64_t lo, std::uint64_t hi, std::size_t decimals) {
  const auto padded = [&](std::uint64_t n) { return fmt::format("{:0{}}", n, decimals + 1); };
  const std::string from = padded(lo), to = padded(hi);
  Digits digits(b, decimals);
  std::vector<Expr> ways;
  for (std::size_t n = from.size(); n <= to.size(); ++n) {
    std::string least(n, '0');
    least.front() = '1';
    if (n == from.size()) least = from;
    const std::string most = n == to.size() ? to : std::string(n, '9');
    ways.push_back(digits.between(least, most));
  }
  return b.choice(ways);
}

void add_range(GrammarBuilder& b, std::int64_t lo, std::int64_t hi, std::size_t decimals,
               std::vector<Expr>& ways) {
  if (lo > hi) return;
  if (hi >= 0)
    ways.push_back(positive(b, static_cast<std::uint64_t>(std::max<std::int64_t>(lo, 0)),
                            static_cast<std::uint64_t>(hi), decimals));
  if (lo < 0)
    ways.push_back(
        b.sequence({b.literal("-"), positive(b, static_cast<std::uint64_t>(-std::min<std::int64_t>(hi, -1)),
                                             static_cast<std::uint64_t>(-lo), decimals)}));
}

// The limits in units of the last decimal; where there is none, a round number beyond the other.
std::pair<std::int64_t, std::int64_t> scaled(const NumberLimits& limits, std::size_t decimals) {
  constexpr double kFar = 999'999'999'999, kMost = 9e15;
  const double scale = std::pow(10.0, static_cast<double>(decimals));
  const double least = limits.least.value_or(std::min(-kFar / scale, limits.most.value_or(0) - kFar / scale));
  const double most = limits.most.value_or(std::max(kFar / scale, limits.least.value_or(0) + kFar / scale));
  const auto check = [&](double x) {
    if (!(std::abs(x) <= kMost))
      throw_error(ErrorKind::unsupported,
                  "a number's limits beyond 9e15, or with so many decimals, aren't supported");
    return static_cast<std::int64_t>(x);
  };
  // What is as good as whole is meant so: 0.1 * 10 isn't exact.
  const auto near = [](double x) { return std::abs(x - std::round(x)) < 1e-6; };
  const double l = least * scale, m = most * scale;
  std::int64_t lo = check(near(l) ? std::round(l) : std::ceil(l));
  std::int64_t hi = check(near(m) ? std::round(m) : std::floor(m));
  if (limits.least && limits.above && near(l)) ++lo;
  if (limits.most && limits.below && near(m)) --hi;
  return {lo, hi};
}

std::size_t decimals_of(const std::optional<double>& x) {
  std::size_t n = 0;
  for (double scaled = x.value_or(0);
       n < 6 && std::abs(scaled - std::round(scaled)) > 1e-9 * std::max(1.0, std::abs(scaled)); ++n)
    scaled *= 10;
  return n;
}

Expr digits(GrammarBuilder& b, std::uint32_t least, std::uint32_t most) {
  return b.repeat(b.bytes(kDigits), least, most);
}

Expr whole_number(GrammarBuilder& b) {
  return b.sequence({b.optional(b.literal("-")),
                     b.choice({b.literal("0"), b.sequence({b.bytes("123456789"), digits(b, 0, 14)})})});
}

}  // namespace

Expr json_character(GrammarBuilder& b) {
  const Expr hex = b.bytes(kHex);
  const Expr code = b.choice({b.sequence({b.bytes("0123456789abcefABCEF"), hex, hex, hex}),
                              b.sequence({b.bytes("dD"), b.bytes("01234567"), hex, hex})});
  return b.choice(
      {b.character({{0x20, 0x21}, {0x23, 0x5b}, {0x5d, kLast}}),
       b.sequence({b.literal("\\"), b.choice({b.bytes("\"\\/bfnrt"), b.sequence({b.literal("u"), code})})})});
}

Expr json_character(GrammarBuilder& b, const Ranges& ranges) {
  Ranges plain;
  std::vector<Expr> ways;
  const auto add = [&](std::uint32_t lo, std::uint32_t hi) {
    if (lo <= hi) plain.emplace_back(lo, hi);
  };
  for (const auto& [lo, hi] : ranges) {
    for (std::uint32_t c = lo; c <= std::min(hi, 0x1fu); ++c)
      ways.push_back(b.literal(fmt::format("\\u{:04x}", c)));
    for (const std::uint32_t c : {0x22u, 0x5cu})
      if (lo <= c && c <= hi) ways.push_back(b.literal(std::string{'\\', static_cast<char>(c)}));
    if (lo <= '\n' && '\n' <= hi) ways.push_back(b.literal("\\n"));
    add(std::max(lo, 0x20u), std::min(hi, 0x21u));
    add(std::max(lo, 0x23u), std::min(hi, 0x5bu));
    add(std::max(lo, 0x5du), hi);
  }
  if (!plain.empty()) ways.push_back(b.character(plain));
  return b.choice(ways);
}

Expr json_pattern(GrammarBuilder& b, std::string_view pattern) { return Pattern(b, pattern).read(); }

std::optional<Expr> json_format(GrammarBuilder& b, std::string_view format) {
  static constexpr std::string_view kTime =
      "([01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(\\.\\d{1,6})?(Z|[+-]([01]\\d|2[0-3]):[0-5]\\d)";
  const auto whole = [&](std::string_view p) { return json_pattern(b, fmt::format("^{}$", p)); };
  static constexpr std::string_view kYear = "(000[1-9]|00[1-9]\\d|0[1-9]\\d\\d|[1-9]\\d{3})";
  static constexpr std::string_view kByte = "(25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
  static constexpr std::string_view kLabel = "[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?";
  const std::string date = fmt::format(
      "{}-((0[13578]|1[02])-(0[1-9]|[12]\\d|3[01])|(0[469]|11)-(0[1-9]|[12]\\d|30)|02-(0[1-9]|1\\d|2[0-8]))",
      kYear);
  if (format == "date") return whole(date);
  if (format == "time") return whole(kTime);
  if (format == "date-time") return whole(fmt::format("{}T{}", date, kTime));
  if (format == "uuid") return whole("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}");
  if (format == "ipv4") return whole(fmt::format("{0}\\.{0}\\.{0}\\.{0}", kByte));
  if (format == "ipv6") return whole("[0-9a-f]{1,4}(:[0-9a-f]{1,4}){7}");
  if (format == "hostname") return whole(fmt::format("{0}(\\.{0}){{0,4}}", kLabel));
  if (format == "email")
    return whole(fmt::format("[A-Za-z0-9_+-]+(\\.[A-Za-z0-9_+-]+){{0,3}}@{0}(\\.{0}){{1,3}}", kLabel));
  if (format == "uri")
    return whole(fmt::format("https?://{0}(\\.{0}){{0,4}}(/[A-Za-z0-9_.~-]*){{0,16}}(\\?[A-Za-z0-9_.~&=-]*)?",
                             kLabel));
  return std::nullopt;
}

Expr json_integer(GrammarBuilder& b, const NumberLimits& limits) {
  if (!limits.least && !limits.most) return whole_number(b);
  const auto [lo, hi] = scaled(limits, 0);
  std::vector<Expr> ways;
  add_range(b, lo, hi, 0, ways);
  return b.choice(ways);
}

Expr json_number(GrammarBuilder& b, const NumberLimits& limits) {
  if (!limits.least && !limits.most)
    return b.sequence({whole_number(b), b.optional(b.sequence({b.literal("."), digits(b, 1, 15)})),
                       b.optional(b.sequence({b.bytes("eE"), b.optional(b.bytes("+-")), digits(b, 1, 2)}))});
  std::vector<Expr> ways;
  const std::size_t most = std::max({std::size_t{2}, decimals_of(limits.least), decimals_of(limits.most)});
  for (std::size_t decimals = 0; decimals <= most; ++decimals) {
    const auto [lo, hi] = scaled(limits, decimals);
    add_range(b, lo, hi, decimals, ways);
  }
  return b.choice(ways);
}

}  // namespace steelyard
