#include "jinja/lexer.h"

#include <algorithm>
#include <array>
#include <optional>

#include "base/utf8.h"
#include "jinja/python_text.h"
#include "jinja/value.h"

namespace steelyard::jinja {

namespace {

bool is_digit_char(char c) { return c >= '0' && c <= '9'; }

// Line ends become \n; one at the very end is dropped.
std::string normalize(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (std::size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : owned_(normalize(source)), text_(owned_) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) data();
    add(Token::Type::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void stop(std::string message) const { throw Failure{std::move(message), line_}; }
  bool starts(std::string_view what) const { return text_.substr(at_, what.size()) == what; }
  void add(Token::Type type, std::string text) { tokens_.push_back({type, line_, std::move(text)}); }

  void advance(std::size_t bytes) {
    line_ += static_cast<int>(std::count(text_.begin() + at_, text_.begin() + at_ + bytes, '\n'));
    line_start_ = bytes > 0 ? text_[at_ + bytes - 1] == '\n' : line_start_;
    at_ += bytes;
  }

  std::size_t spaces_at(std::size_t from) const {
    std::size_t at = from, length;
    while (at < text_.size() && is_space(char_at(text_, at, &length))) at += length;
    return at - from;
  }

  // Bytes of "{% raw %}" at `from` (with whatever white space control), 0 when it isn't there.
  std::size_t raw_tag(std::size_t from) const {
    std::size_t at = from + 2;
    if (at < text_.size() && (text_[at] == '-' || text_[at] == '+')) ++at;
    at += spaces_at(at);
    if (text_.substr(at, 3) != "raw") return 0;
    at += 3;
    at += spaces_at(at);
    if (text_.substr(at, 3) == "-%}") return at + 3 + spaces_at(at + 3) - from;
    return text_.substr(at, 2) == "%}" ? at + 2 - from : 0;
  }

  // Adds the text before a tag, with the end of it stripped as the tag's sign asks.
  void add_data(std::string_view text, char sign, bool variable) {
    if (sign == '-') {
      text = strip_right(text);
    } else if (sign != '+' && !variable) {  // lstrip_blocks
      std::size_t line = text.rfind('\n') + 1;
      std::string_view tail = text.substr(line);
      bool only_spaces = !tail.empty() && strip_right(tail).empty();
      if ((line > 0 || line_start_) && only_spaces) text = text.substr(0, line);
    }
    if (!text.empty()) add(Token::Type::data, std::string(text));
  }

  void data() {
    std::size_t tag = at_;
    while ((tag = text_.find('{', tag)) != std::string_view::npos) {
      char next = tag + 1 < text_.size() ? text_[tag + 1] : '\0';
      if (next == '{' || next == '%' || next == '#') break;
      ++tag;
    }
    if (tag == std::string_view::npos) {
      add(Token::Type::data, std::string(text_.substr(at_)));
      at_ = text_.size();
      return;
    }
    char kind = text_[tag + 1];
    char sign = tag + 2 < text_.size() ? text_[tag + 2] : '\0';
    bool signed_tag = sign == '-' || sign == '+';
    std::size_t raw = kind == '%' ? raw_tag(tag) : 0;
    add_data(text_.substr(at_, tag - at_), sign, kind == '{');
    advance(tag - at_);
    if (raw > 0) {
      advance(raw);
      return raw_block();
    }
    std::size_t begin = signed_tag ? 3 : 2;
    if (kind == '#') {
      advance(begin);
      return comment();
    }
    add(kind == '{' ? Token::Type::variable_begin : Token::Type::block_begin, "");
    advance(begin);
    code(kind == '{');
  }

  void comment() {
    std::size_t end = text_.find("#}", at_);
    if (end == std::string_view::npos) stop("a comment is not closed");
    char sign = end > at_ ? text_[end - 1] : '\0';
    advance(end + 2 - at_);
    after_tag(sign);
  }

  // After "%}" or "#}": a minus before it eats white space, a plus nothing, else one line end goes
  // (trim_blocks).
  void after_tag(char sign) {
    if (sign == '-') {
      advance(spaces_at(at_));
    } else if (sign != '+' && starts("\n")) {
      advance(1);
    }
  }

  void raw_block() {
    for (std::size_t tag = at_; (tag = text_.find("{%", tag)) != std::string_view::npos; ++tag) {
      std::size_t at = tag + 2;
      char sign = at < text_.size() ? text_[at] : '\0';
      if (sign == '-' || sign == '+') ++at;
      at += spaces_at(at);
      if (text_.substr(at, 6) != "endraw") continue;
      at += 6;
      at += spaces_at(at);
      char close = at < text_.size() ? text_[at] : '\0';
      bool closing_sign = close == '-' || close == '+';
      if (text_.substr(at + closing_sign, 2) != "%}") continue;
      add_data(text_.substr(at_, tag - at_), sign, false);
      advance(at + closing_sign + 2 - at_);
      return after_tag(closing_sign ? close : '\0');
    }
    stop("missing end of raw directive");
  }

  // Tokens up to the end of a {{ … }} or {% … %}.
  void code(bool variable) {
    std::string brackets;
    while (true) {
      if (at_ >= text_.size()) {
        if (!brackets.empty()) stop(fmt::format("a '{}' is not closed", brackets.back()));
        return;  // the parser finds the tag unfinished
      }
      if (brackets.empty() && end_of_code(variable)) return;
      if (std::size_t spaces = spaces_at(at_)) {
        advance(spaces);
        continue;
      }
      if (!number() && !word() && !quoted()) op(brackets);
    }
  }

  bool end_of_code(bool variable) {
    char first = text_[at_];
    bool sign = first == '-' || (first == '+' && !variable);
    std::string_view close = variable ? "}}" : "%}";
    if (text_.substr(at_ + sign, 2) != close) return false;
    add(variable ? Token::Type::variable_end : Token::Type::block_end, "");
    advance(2 + sign);
    if (!variable || first == '-') after_tag(sign ? first : '\0');
    return true;
  }

  // (\d+_)*\d+
  std::size_t digits(std::size_t from) const {
    std::size_t at = from;
    while (at < text_.size() && is_digit_char(text_[at])) {
      ++at;
      if (at + 1 < text_.size() && text_[at] == '_' && is_digit_char(text_[at + 1])) ++at;
    }
    return at - from;
  }

  bool number() {
    if (!is_digit_char(text_[at_])) return false;
    if (std::size_t length = real_length()) {
      add(Token::Type::real, std::string(text_.substr(at_, length)));
      advance(length);
      return true;
    }
    std::size_t length = integer_length();
    add(Token::Type::integer, std::string(text_.substr(at_, length)));
    advance(length);
    return true;
  }

  std::size_t real_length() const {
    if (at_ > 0 && text_[at_ - 1] == '.') return 0;
    std::size_t at = at_ + digits(at_);
    std::size_t whole = at;
    if (at < text_.size() && text_[at] == '.')
      if (std::size_t fraction = digits(at + 1)) at += 1 + fraction;
    bool real = at > whole;
    if (at < text_.size() && (text_[at] | 0x20) == 'e') {
      std::size_t exponent = at + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) ++exponent;
      if (std::size_t length = digits(exponent)) {
        at = exponent + length;
        real = true;
      }
    }
    return real ? at - at_ : 0;
  }

  std::size_t integer_length() const {
    auto run = [&](std::size_t from, auto allowed) {
      std::size_t at = from;
      while (at < text_.size()) {
        std::size_t digit = at + (text_[at] == '_');
        if (digit >= text_.size() || !allowed(text_[digit])) break;
        at = digit + 1;
      }
      return at - from;
    };
    if (text_[at_] != '0') return 1 + run(at_ + 1, is_digit_char);
    char mark = at_ + 1 < text_.size() ? static_cast<char>(text_[at_ + 1] | 0x20) : '\0';
    std::size_t length = 0;
    if (mark == 'b') length = run(at_ + 2, [](char c) { return c == '0' || c == '1'; });
    if (mark == 'o') length = run(at_ + 2, [](char c) { return c >= '0' && c <= '7'; });
    if (mark == 'x')
      length =
          run(at_ + 2, [](char c) { return is_digit_char(c) || ((c | 0x20) >= 'a' && (c | 0x20) <= 'f'); });
    if (length > 0) return length + 2;
    return 1 + run(at_ + 1, [](char c) { return c == '0'; });
  }

  bool word() {
    std::size_t at = at_, length;
    while (at < text_.size() && is_word(char_at(text_, at, &length))) at += length;
    if (at == at_) return false;
    add(Token::Type::name, std::string(text_.substr(at_, at - at_)));
    advance(at - at_);
    return true;
  }

  bool quoted() {
    char quote = text_[at_];
    if (quote != '\'' && quote != '"') return false;
    std::size_t at = at_ + 1;
    while (at < text_.size() && text_[at] != quote) at += text_[at] == '\\' ? 2 : 1;
    if (at >= text_.size()) stop(fmt::format("unexpected char '{}'", quote));
    std::string value = unescape(text_.substr(at_ + 1, at - at_ - 1));
    add(Token::Type::string, std::move(value));
    advance(at + 1 - at_);
    return true;
  }

  // Python's escapes in a plain string literal.
  std::string unescape(std::string_view raw) const {
    std::string out;
    for (std::size_t i = 0; i < raw.size();) {
      if (raw[i] != '\\') {
        out += raw[i++];
        continue;
      }
      char c = raw[i + 1];
      i += 2;
      static constexpr std::string_view kNames = "\\'\"abfnrtv", kValues = "\\'\"\a\b\f\n\r\t\v";
      if (std::size_t known = kNames.find(c); known != std::string_view::npos) {
        out += kValues[known];
      } else if (c == '\n') {
        // a continued line
      } else if (c == 'x' || c == 'u' || c == 'U') {
        i += hex_escape(out, raw.substr(i), c == 'x' ? 2 : c == 'u' ? 4 : 8);
      } else if (c >= '0' && c <= '7') {
        std::uint32_t code = static_cast<std::uint32_t>(c - '0');
        for (int n = 0; n < 2 && i < raw.size() && raw[i] >= '0' && raw[i] <= '7'; ++n)
          code = code * 8 + static_cast<std::uint32_t>(raw[i++] - '0');
        append_utf8(out, code);
      } else if (c == 'N') {
        stop("\\N{...} escapes are not supported");
      } else {
        out += '\\';
        out += c;  // first byte of a character: the rest follows by itself
      }
    }
    return out;
  }

  std::size_t hex_escape(std::string& out, std::string_view digits, std::size_t count) const {
    std::uint32_t code = 0;
    for (std::size_t i = 0; i < count; ++i) {
      char c = i < digits.size() ? digits[i] : '\0';
      std::uint32_t digit = is_digit_char(c) ? static_cast<std::uint32_t>(c - '0')
                            : (c | 0x20) >= 'a' && (c | 0x20) <= 'f'
                                ? static_cast<std::uint32_t>((c | 0x20) - 'a' + 10)
                                : 16;
      if (digit == 16) stop("a string has an unfinished escape");
      code = code << 4 | digit;
    }
    bool surrogate = code >= 0xD800 && code < 0xE000;
    if (code > 0x10FFFF) stop("a string escape is no Unicode character");
    append_utf8(out, surrogate ? 0xFFFD : code);
    return count;
  }

  void op(std::string& brackets) {
    static constexpr std::array<std::string_view, 7> kPairs{"//", "**", "==", "!=", ">=", "<=", ""};
    char c = text_[at_];
    std::string_view found;
    for (std::string_view pair : kPairs)
      if (!pair.empty() && starts(pair)) found = pair;
    if (found.empty() && std::string_view("+-/*%~[](){}><=.:|,;").find(c) != std::string_view::npos)
      found = text_.substr(at_, 1);
    if (found.empty()) {
      std::size_t length;
      char_at(text_, at_, &length);
      stop(fmt::format("unexpected char {}", repr_of(text_.substr(at_, length))));
    }
    if (c == '(' || c == '[' || c == '{') brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
    if (c == ')' || c == ']' || c == '}') {
      if (brackets.empty()) stop(fmt::format("unexpected '{}'", c));
      if (brackets.back() != c) stop(fmt::format("unexpected '{}', expected '{}'", c, brackets.back()));
      brackets.pop_back();
    }
    add(Token::Type::op, std::string(found));
    advance(found.size());
  }

  std::string owned_;
  std::string_view text_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_start_ = true;  // the last thing matched ended with a line end
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace steelyard::jinja
