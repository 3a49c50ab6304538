#include "grammar/gbnf.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/utf8.h"

namespace steelyard {
namespace {

using Expr = GrammarBuilder::Expr;
using Ranges = GrammarBuilder::Ranges;
constexpr std::uint32_t kLast = 0x10ffff;

class Reader {
 public:
  explicit Reader(std::string_view text) : text_(text) {}

  Grammar read() {
    for (skip(true); at_ < text_.size(); skip(true)) rule();
    const auto root = rules_.find("root");
    if (root == rules_.end() || !defined_.contains("root")) wrong("has no rule \"root\"");
    for (const auto& [name, its] : rules_)
      if (!defined_.contains(name)) wrong(fmt::format("uses {} and doesn't define it", name));
    return b_.finish(root->second);
  }

 private:
  [[noreturn]] void wrong(std::string_view what) const {
    const auto line =
        1 + std::count(text_.begin(),
                       text_.begin() + static_cast<std::ptrdiff_t>(std::min(at_, text_.size())), '\n');
    throw_error(ErrorKind::bad_input, "the grammar {} (line {})", what, line);
  }
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  // Spaces and comments; ends of lines only where `lines`.
  void skip(bool lines) {
    while (at_ < text_.size()) {
      const char c = text_[at_];
      if (c == '#') {
        while (at_ < text_.size() && text_[at_] != '\n') ++at_;
      } else if (c == ' ' || c == '\t' || (lines && (c == '\n' || c == '\r'))) {
        ++at_;
      } else {
        return;
      }
    }
  }
  static bool in_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; }

  std::string name() {
    const std::size_t from = at_;
    while (in_name(peek())) ++at_;
    if (at_ == from) wrong("lacks a name where one must be");
    return std::string(text_.substr(from, at_ - from));
  }
  std::uint32_t rule_named(const std::string& its) {
    const auto found = rules_.find(its);
    return found != rules_.end() ? found->second : rules_.emplace(its, b_.new_rule()).first->second;
  }

  void rule() {
    const std::string its = name();
    skip(false);
    if (text_.substr(at_, 3) != "::=") wrong(fmt::format("lacks ::= after {}", its));
    at_ += 3;
    if (!defined_.insert(its).second) wrong(fmt::format("defines {} twice", its));
    skip(true);
    b_.define(rule_named(its), choice(0));
    skip(false);
    if (peek() == '\r') ++at_;
    if (at_ < text_.size() && !take('\n')) wrong("has something that can't be read");
  }

  Expr choice(int depth) {
    if (depth > 100) wrong("has too many groups within groups");
    std::vector<Expr> ways{sequence(depth)};
    while (take('|')) {
      skip(true);
      ways.push_back(sequence(depth));
    }
    return b_.choice(ways);
  }

  Expr sequence(int depth) {
    std::vector<Expr> parts;
    while (true) {
      skip(depth > 0);
      const char c = peek();
      if (c != '"' && c != '[' && c != '(' && c != '.' && !in_name(c)) break;
      parts.push_back(counted(item(depth)));
    }
    return b_.sequence(parts);
  }

  Expr item(int depth) {
    if (take('"')) return text();
    if (take('[')) return b_.character(set());
    if (take('.')) return b_.character({{0, kLast}});
    if (!take('(')) return b_.call(rule_named(name()));
    skip(true);
    const Expr inner = choice(depth + 1);
    skip(true);
    if (!take(')')) wrong("has an unmatched (");
    return inner;
  }

  Expr text() {
    std::string all;
    while (!take('"')) {
      if (at_ >= text_.size() || peek() == '\n') wrong("has a text without an end");
      append_utf8(all, character());
    }
    return b_.literal(all);
  }

  std::uint32_t character() {
    if (!take('\\')) {
      const Utf8Char c = decode_utf8(text_.substr(at_));
      at_ += c.length;
      return c.code;
    }
    const char e = peek();
    ++at_;
    switch (e) {
      case 'n':
        return '\n';
      case 't':
        return '\t';
      case 'r':
        return '\r';
      case 'x':
        return hex(2);
      case 'u':
        return hex(4);
      case 'U':
        return hex(8);
      case '"':
      case '\\':
      case '[':
      case ']':
      case '-':
      case '^':
        return static_cast<unsigned char>(e);
      default:
        wrong("has an escape that isn't known");
    }
  }
  std::uint32_t hex(int digits) {
    std::uint32_t code = 0;
    for (; digits > 0; --digits, ++at_) {
      const char c = peek();
      if (!std::isxdigit(static_cast<unsigned char>(c))) wrong("has an escape that can't be read");
      code = code * 16 + static_cast<std::uint32_t>(
                             std::isdigit(static_cast<unsigned char>(c)) ? c - '0' : (c | 32) - 'a' + 10);
    }
    if (code > kLast) wrong("has an escape that is no character");
    return code;
  }

  Ranges set() {
    const bool inverted = take('^');
    std::vector<std::pair<std::uint32_t, std::uint32_t>> all;
    while (!take(']')) {
      if (at_ >= text_.size()) wrong("has an unmatched [");
      const std::uint32_t from = character();
      std::uint32_t to = from;
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') ++at_, to = character();
      if (to < from) wrong("has a range whose end comes before its beginning");
      all.emplace_back(from, to);
    }
    if (!inverted) return all;
    std::sort(all.begin(), all.end());
    Ranges others;
    std::uint32_t from = 0;
    for (const auto& [lo, hi] : all) {
      if (lo > from) others.emplace_back(from, lo - 1);
      from = std::max(from, hi + 1);
    }
    if (from <= kLast) others.emplace_back(from, kLast);
    return others;
  }

  std::uint32_t number() {
    std::uint32_t n = 0;
    skip(true);
    if (!std::isdigit(static_cast<unsigned char>(peek()))) wrong("has a count that can't be read");
    for (; std::isdigit(static_cast<unsigned char>(peek())); ++at_) {
      n = n * 10 + static_cast<std::uint32_t>(peek() - '0');
      if (n > 100'000) wrong("has a count above 100000");
    }
    skip(true);
    return n;
  }

  Expr counted(Expr what) {
    for (int i = 0;; ++i) {
      if (i > 8) wrong("has too many counts of one thing");
      std::uint32_t least = 0, most = GrammarBuilder::kUnbounded;
      if (take('+')) {
        least = 1;
      } else if (take('?')) {
        most = 1;
      } else if (take('{')) {
        skip(true);
        least = peek() == ',' ? 0 : number();
        if (!take(','))
          most = least;
        else if (skip(true); peek() != '}')
          most = number();
        if (!take('}')) wrong("has a count that can't be read");
      } else if (!take('*')) {
        return what;
      }
      what = b_.repeat(what, least, most);
    }
  }

  std::string_view text_;
  std::size_t at_ = 0;
  GrammarBuilder b_;
  std::map<std::string, std::uint32_t> rules_;
  std::set<std::string> defined_;
};

}  // namespace

Grammar gbnf_grammar(std::string_view text) {
  if (text.size() > 1 << 18) throw_error(ErrorKind::bad_input, "the grammar is longer than 256 KiB");
  return Reader(text).read();
}

}  // namespace steelyard
