// "…" % values and "…".format(…).
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/utf8.h"
#include "jinja/interpreter.h"
#include "jinja/methods.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

namespace {

// Wide enough for every double written out, and what Python itself allows is far beyond use.
constexpr int kMaxPrecision = 400;

std::string c_format(double value, int precision, char type, bool alternate) {
  if (precision > kMaxPrecision) fail("a format's precision is too large");
  std::string pattern = alternate ? "%#.*" : "%.*";
  pattern += type;
  char buffer[1024];
  int length = std::snprintf(buffer, sizeof buffer, pattern.c_str(), precision, value);
  return std::string(buffer, static_cast<std::size_t>(std::clamp(length, 0, 1023)));
}

// `sign`: with a minus for negative values.
std::string digits_in_base(std::int64_t value, int base, bool upper, bool sign) {
  const std::string_view letters = upper ? "0123456789ABCDEF" : "0123456789abcdef";
  std::uint64_t magnitude = static_cast<std::uint64_t>(value);
  if (value < 0) magnitude = 0 - magnitude;
  std::string out;
  do {
    out += letters[magnitude % static_cast<std::uint64_t>(base)];
    magnitude /= static_cast<std::uint64_t>(base);
  } while (magnitude != 0);
  if (sign && value < 0) out += '-';
  std::reverse(out.begin(), out.end());
  return out;
}

// How one value is laid out; both notations end up here.
struct Layout {
  std::string fill = " ";
  char align = '\0';  // < > ^ =
  char sign = '-';
  bool alternate = false;
  std::int64_t width = 0;
  char grouping = '\0';
  int precision = -1;
  char type = '\0';
};

// A number's digits (with a sign of their own when negative) under the layout's sign, grouping and width.
std::string lay_out_number(Heap& heap, std::string digits, std::string prefix, const Layout& layout) {
  bool negative = !digits.empty() && digits[0] == '-';
  if (negative) digits.erase(0, 1);
  std::string sign = negative ? "-" : layout.sign == '-' ? "" : std::string(1, layout.sign);
  if (layout.grouping != '\0') {
    std::size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
    if (layout.type == 'e' || layout.type == 'g' || layout.type == '\0')
      whole = std::min(digits.find_first_not_of("0123456789"), digits.size());
    std::size_t group =
        layout.type == 'x' || layout.type == 'X' || layout.type == 'b' || layout.type == 'o' ? 4 : 3;
    for (std::size_t at = whole; at > group; at -= group) digits.insert(at - group, 1, layout.grouping);
  }
  std::string head = sign + prefix;
  char align = layout.align == '\0' ? '>' : layout.align;
  if (align == '=') {
    std::string body =
        padded(heap, digits, layout.width - static_cast<std::int64_t>(head.size()), layout.fill, 1);
    return head + body;
  }
  std::int64_t have = static_cast<std::int64_t>(head.size() + digits.size());
  if (align == '^' && layout.width > have) {
    std::int64_t left = (layout.width - have) / 2;
    return padded(heap, padded(heap, head + digits, have + left, layout.fill, 1), layout.width, layout.fill,
                  -1);
  }
  return padded(heap, head + digits, layout.width, layout.fill, align == '<' ? -1 : 1);
}

std::string lay_out_text(Heap& heap, std::string_view text, const Layout& layout) {
  if (layout.precision >= 0)
    text = text.substr(0, byte_offset(text, static_cast<std::size_t>(layout.precision), false));
  heap.copy_bytes(text.size());
  std::int64_t have = static_cast<std::int64_t>(count_chars(text));
  if (layout.align == '^' && layout.width > have) {
    std::int64_t left = (layout.width - have) / 2;
    return padded(heap, padded(heap, text, have + left, layout.fill, 1), layout.width, layout.fill, -1);
  }
  return padded(heap, text, layout.width, layout.fill, layout.align == '>' ? 1 : -1);
}

std::string integer_text(Heap& heap, std::int64_t value, const Layout& layout) {
  int base = 10;
  std::string prefix;
  if (layout.type == 'x' || layout.type == 'X') base = 16;
  if (layout.type == 'o') base = 8;
  if (layout.type == 'b') base = 2;
  if (layout.alternate && base != 10) prefix = std::string("0") + layout.type;
  return lay_out_number(heap, digits_in_base(value, base, layout.type == 'X', true), prefix, layout);
}

std::string real_text(Heap& heap, double value, const Layout& layout) {
  char type = layout.type;
  std::string digits;
  if (std::isnan(value) || std::isinf(value)) {
    digits = repr_of(value);
    if (type == 'F' || type == 'E' || type == 'G') digits = to_upper(digits);
    if (type == '%') digits += '%';
  } else if (type == '%') {
    digits = c_format(value * 100, layout.precision < 0 ? 6 : layout.precision, 'f', layout.alternate) + "%";
  } else if (type == '\0') {
    digits =
        layout.precision < 0 ? repr_of(value) : c_format(value, std::max(layout.precision, 1), 'g', false);
    bool plain = digits.find_first_not_of("-0123456789") == std::string::npos;
    if (plain) digits += ".0";
  } else {
    digits = c_format(value, layout.precision < 0 ? 6 : layout.precision, type == 'n' ? 'g' : type,
                      layout.alternate);
  }
  return lay_out_number(heap, digits, "", layout);
}

// ---------------------------------------------------------------------------------------------- "%" notation

class PercentFormat {
 public:
  PercentFormat(Heap& heap, std::string_view format, const Value& values)
      : heap_(heap), format_(format), values_(values) {}

  std::string run() {
    heap_.read_bytes(format_.size());
    while (at_ < format_.size()) {
      std::size_t percent = std::min(format_.find('%', at_), format_.size());
      out_ += format_.substr(at_, percent - at_);
      at_ = percent + 1;
      if (percent < format_.size()) directive();
      heap_.expect(out_.size());
      heap_.step();
    }
    // Python takes whatever can be subscripted for a mapping, and a mapping needn't be used.
    bool mapping = values_.is(Kind::dict) || values_.is(Kind::list) || values_.is(Kind::range) ||
                   values_.is(Kind::undefined);
    std::size_t given = values_.is(Kind::tuple) ? values_.items().size() : 1;
    if (!mapping && used_ < given) fail("not all arguments converted during string formatting");
    return std::move(out_);
  }

 private:
  char now() const {
    if (at_ >= format_.size()) fail("incomplete format");
    return format_[at_];
  }

  Value next_value() {
    std::size_t given = values_.is(Kind::tuple) ? values_.items().size() : 1;
    if (used_ >= given) fail("not enough arguments for format string");
    return values_.is(Kind::tuple) ? values_.items()[used_++] : (++used_, values_);
  }

  std::int64_t number() {
    if (now() == '*') {
      ++at_;
      return to_index(next_value(), "* wants int");
    }
    std::int64_t value = 0;
    for (; at_ < format_.size() && format_[at_] >= '0' && format_[at_] <= '9'; ++at_)
      value = std::min<std::int64_t>(value * 10 + (format_[at_] - '0'), INT32_MAX);
    return value;
  }

  void directive() {
    if (now() == '%') {
      out_ += format_[at_++];
      return;
    }
    std::optional<Value> keyed = key();
    Layout layout;
    layout.align = '>';
    layout.sign = '-';
    bool zero = false;
    for (; std::string_view("-+ #0").find(now()) != std::string_view::npos; ++at_) {
      if (now() == '-') layout.align = '<';
      if (now() == '+') layout.sign = '+';
      if (now() == ' ' && layout.sign != '+') layout.sign = ' ';
      if (now() == '#') layout.alternate = true;
      if (now() == '0') zero = true;
    }
    layout.width = number();
    if (layout.width < 0) {
      layout.align = '<';
      layout.width = layout.width == INT64_MIN ? 0 : -layout.width;
    }
    if (now() == '.') {
      ++at_;
      layout.precision = static_cast<int>(std::clamp<std::int64_t>(number(), 0, INT32_MAX));
    }
    while (now() == 'h' || now() == 'l' || now() == 'L') ++at_;
    layout.type = now();
    ++at_;
    Value value = keyed ? *keyed : next_value();
    if (zero && layout.align != '<') layout.fill = '0';
    out_ += convert(value, layout);
  }

  std::optional<Value> key() {
    if (now() != '(') return std::nullopt;
    std::size_t end = ++at_, depth = 1;
    for (; end < format_.size(); ++end) {
      depth += format_[end] == '(';
      depth -= format_[end] == ')';
      if (depth == 0) break;
    }
    if (end >= format_.size()) fail("incomplete format key");
    if (!values_.is(Kind::dict)) fail("format requires a mapping");
    std::string_view name = format_.substr(at_, end - at_);
    at_ = end + 1;
    const Value* found = values_.dict().find(heap_, name);
    if (found == nullptr) fail("there is no value for format key {}", repr_cut(name));
    return *found;
  }

  std::string convert(const Value& value, Layout layout) {
    std::string text;
    switch (layout.type) {
      case 's':
        append_text(heap_, text, value);
        break;
      case 'r':
      case 'a':
        append_repr(heap_, text, value);
        break;
      case 'c':
        text = character(value);
        break;
      case 'd':
      case 'i':
      case 'u':
      case 'x':
      case 'X':
      case 'o':
        return integer(value, layout);
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
        if (!value.is_number()) {
          require_defined(value);
          fail("must be real number, not {}", type_name(value));
        }
        if (layout.fill == "0") layout.align = '=';
        return real_text(heap_, value.number(), layout);
      default:
        fail("unsupported format character '{}'", layout.type);
    }
    layout.fill = ' ';
    return lay_out_text(heap_, text, layout);
  }

  std::string character(const Value& value) {
    if (value.is(Kind::string) && value.string().chars == 1) return std::string(value.text());
    if (!value.is_integral()) fail("%c requires int or char");
    std::int64_t code = value.integer();
    if (code < 0 || code > 0x10FFFF) fail("%c arg not in range(0x110000)");
    std::string out;
    append_utf8(out, code >= 0xD800 && code < 0xE000 ? 0xFFFD : static_cast<std::uint32_t>(code));
    return out;
  }

  std::string integer(const Value& value, Layout layout) {
    require_defined(value);
    bool hexadecimal = layout.type == 'x' || layout.type == 'X' || layout.type == 'o';
    if (!value.is_integral() && (hexadecimal || !value.is(Kind::real)))
      fail("%{} format: a number is required, not {}", layout.type, type_name(value));
    if (value.is(Kind::real) && !(std::fabs(value.number()) < 9.2e18))
      fail("a number is too large for an integer");
    std::int64_t number = value.is(Kind::real) ? static_cast<std::int64_t>(value.number()) : value.integer();
    int base = layout.type == 'o' ? 8 : hexadecimal ? 16 : 10;
    std::string digits = digits_in_base(number, base, layout.type == 'X', false);
    if (layout.precision > static_cast<int>(digits.size()))
      digits = padded(heap_, digits, layout.precision, "0", 1);
    std::string prefix = layout.alternate && hexadecimal ? std::string("0") + layout.type : "";
    if (layout.fill == "0") layout.align = '=';
    return lay_out_number(heap_, number < 0 ? '-' + digits : digits, prefix, layout);
  }

  Heap& heap_;
  std::string_view format_;
  Value values_;
  std::size_t at_ = 0, used_ = 0;
  std::string out_;
};

// -------------------------------------------------------------------------------------------- "{}" notation

Layout parse_layout(std::string_view spec) {
  Layout layout;
  std::size_t at = 0, length = 0;
  auto is_align = [](char c) { return c == '<' || c == '>' || c == '^' || c == '='; };
  if (!spec.empty()) char_at(spec, 0, &length);
  if (length > 0 && length < spec.size() && is_align(spec[length])) {
    layout.fill = spec.substr(0, length);
    layout.align = spec[length];
    at = length + 1;
  } else if (!spec.empty() && is_align(spec[0])) {
    layout.align = spec[0];
    at = 1;
  }
  auto now = [&] { return at < spec.size() ? spec[at] : '\0'; };
  if (now() == '+' || now() == '-' || now() == ' ') layout.sign = spec[at++];
  if (now() == '#') layout.alternate = true, ++at;
  if (now() == '0') {
    if (layout.align == '\0') layout.fill = '0', layout.align = '=';
    ++at;
  }
  auto number = [&] {
    std::int64_t value = 0;
    for (; now() >= '0' && now() <= '9'; ++at)
      value = std::min<std::int64_t>(value * 10 + (now() - '0'), INT32_MAX);
    return value;
  };
  layout.width = number();
  if (now() == ',' || now() == '_') layout.grouping = spec[at++];
  if (now() == '.') {
    ++at;
    if (now() < '0' || now() > '9') fail("Format specifier missing precision");
    layout.precision = static_cast<int>(number());
  }
  if (at < spec.size()) layout.type = spec[at++];
  if (at < spec.size()) fail("Invalid format specifier");
  return layout;
}

std::string format_value(Heap& heap, const Value& value, std::string_view spec) {
  std::string text;
  if (spec.empty()) {
    append_text(heap, text, value);
    return text;
  }
  bool plain = value.is(Kind::string) || value.is_number();
  if (!plain) fail("unsupported format string passed to {}.__format__", type_name(value));
  Layout layout = parse_layout(spec);
  std::string_view real_types = "eEfFgGn%", integer_types = "bcdoxXn";
  auto of = [&](std::string_view types) { return types.find(layout.type) != std::string_view::npos; };
  if (value.is(Kind::string)) {
    if ((layout.type != '\0' && layout.type != 's') || layout.align == '=' || layout.sign != '-' ||
        layout.grouping)
      fail("Unknown format code for object of type 'str'");
    return lay_out_text(heap, value.text(), layout);
  }
  if (value.is(Kind::boolean) && layout.type == '\0') {
    layout.type = 'd';
  } else if (layout.type == '\0' && value.is(Kind::real)) {
    return real_text(heap, value.number(), layout);
  }
  if (value.is_integral() && (layout.type == '\0' || of(integer_types))) {
    if (layout.precision >= 0) fail("Precision not allowed in integer format specifier");
    if (layout.type == 'c') fail("the format code 'c' is not supported");
    return integer_text(heap, value.integer(), layout);
  }
  if (!of(real_types))
    fail("Unknown format code '{}' for object of type '{}'", layout.type, type_name(value));
  return real_text(heap, value.number(), layout);
}

class BraceFormat {
 public:
  BraceFormat(Interpreter& in, const Arguments& arguments) : in_(in), arguments_(arguments) {}

  std::string run(std::string_view format, int depth) {
    if (depth > 1) fail("Max string recursion exceeded");
    in_.heap().read_bytes(4 * format.size());
    std::string out;
    for (std::size_t at = 0; at < format.size();) {
      in_.heap().expect(out.size());
      in_.heap().step();
      char c = format[at];
      if (c != '{' && c != '}') {
        std::size_t next = std::min(format.find_first_of("{}", at), format.size());
        out += format.substr(at, next - at);
        at = next;
        continue;
      }
      if (at + 1 < format.size() && format[at + 1] == c) {
        out += c;
        at += 2;
        continue;
      }
      if (c == '}') fail("Single '}}' encountered in format string");
      std::size_t end = field_end(format, at + 1);
      out += field(format.substr(at + 1, end - at - 1), depth);
      at = end + 1;
    }
    return out;
  }

 private:
  static std::size_t field_end(std::string_view format, std::size_t begin) {
    int open = 1;
    for (std::size_t at = begin; at < format.size(); ++at) {
      open += format[at] == '{';
      open -= format[at] == '}';
      if (open == 0) return at;
    }
    fail("expected '}}' before end of string");
  }

  std::string field(std::string_view text, int depth) {
    std::size_t name_end = 0;
    for (bool brackets = false; name_end < text.size(); ++name_end) {
      if (text[name_end] == '[') brackets = true;
      if (text[name_end] == ']') brackets = false;
      if (!brackets && (text[name_end] == ':' || text[name_end] == '!')) break;
    }
    Value value = find(text.substr(0, name_end));
    std::string_view rest = text.substr(name_end);
    if (!rest.empty() && rest[0] == '!') {
      char conversion = rest.size() > 1 ? rest[1] : '\0';
      if (conversion != 's' && conversion != 'r' && conversion != 'a') fail("Unknown conversion specifier");
      if (rest.size() > 2 && rest[2] != ':') fail("expected ':' after conversion specifier");
      std::string converted;
      if (conversion == 's') {
        append_text(in_.heap(), converted, value);
      } else {
        append_repr(in_.heap(), converted, value);
      }
      value = in_.heap().string(std::move(converted));
      rest.remove_prefix(2);
    }
    std::string spec = rest.empty() ? "" : run(rest.substr(1), depth + 1);
    return format_value(in_.heap(), value, spec);
  }

  Value find(std::string_view name) {
    std::size_t head = std::min(name.find_first_of(".["), name.size());
    Value value = first(name.substr(0, head));
    for (std::size_t at = head; at < name.size();) {
      if (name[at] == '.') {
        std::size_t end = std::min(name.find_first_of(".[", at + 1), name.size());
        value = in_.attribute(value, name.substr(at + 1, end - at - 1));
        at = end;
      } else {
        std::size_t end = name.find(']', at);
        if (name[at] != '[' || end == std::string_view::npos) fail("Missing ']' in format string");
        std::string_view key = name.substr(at + 1, end - at - 1);
        bool digits = !key.empty() && key.find_first_not_of("0123456789") == std::string_view::npos;
        auto index = digits ? parse_int(key, 10) : std::nullopt;
        value = in_.item(value, index ? Value::integer(*index) : in_.heap().string(std::string(key)));
        at = end + 1;
      }
    }
    return value;
  }

  Value first(std::string_view name) {
    if (name.empty() || name.find_first_not_of("0123456789") == std::string_view::npos) {
      std::size_t index = automatic_;
      if (name.empty()) {
        ++automatic_;
      } else {
        index = static_cast<std::size_t>(parse_int(name, 10).value_or(INT64_MAX));
      }
      if (index >= arguments_.positional.size())
        fail("Replacement index {} out of range for positional args tuple", index);
      return arguments_.positional[index];
    }
    in_.heap().take_items(arguments_.named.size());
    for (const auto& [key, value] : arguments_.named)
      if (key == name) return value;
    fail("there is no argument {} for the format string", repr_cut(name));
  }

  Interpreter& in_;
  const Arguments& arguments_;
  std::size_t automatic_ = 0;
};

}  // namespace

std::string percent_format(Interpreter& in, std::string_view format, const Value& values) {
  return PercentFormat(in.heap(), format, values).run();
}

std::string brace_format(Interpreter& in, std::string_view format, const Arguments& arguments) {
  return BraceFormat(in, arguments).run(format, 0);
}

}  // namespace steelyard::jinja
