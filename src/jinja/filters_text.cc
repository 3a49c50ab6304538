// Filters on text and numbers.
#include <algorithm>
#include <cmath>

#include "jinja/interpreter.h"
#include "jinja/methods.h"
#include "jinja/python_text.h"
#include "jinja/tables.h"

namespace steelyard::jinja {

namespace {

// soft_str: strings stay what they are, everything else becomes str(value).
Value as_string(Interpreter& in, const Value& value) {
  return value.is(Kind::string) ? value : in.heap().string(in.text_of(value));
}

Value with_text(Interpreter& in, const Value& like, std::string text) {
  return in.heap().string(std::move(text), like.is(Kind::string) && like.string().markup);
}

template <std::string (*Change)(std::string_view)>
Value change(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("filter", arguments, {});
  Value text = as_string(in, self);
  in.heap().classify_bytes(text.text().size());
  in.heap().expect(3 * text.text().size());
  return with_text(in, text, Change(text.text()));
}

// The title filter: words begin after a hyphen, white space or an opening bracket.
std::string title_words(std::string_view text) {
  std::string out, rest;
  bool start = true;
  auto flush = [&] {
    out += to_lower(rest);
    rest.clear();
  };
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    bool separator =
        is_space(code) ||
        (code < 0x80 && std::string_view("-({[<").find(static_cast<char>(code)) != std::string_view::npos);
    if (start && !separator) {
      append_upper(out, code);
    } else if (separator) {
      flush();
      out += text.substr(at, length);
    } else {
      rest += text.substr(at, length);
    }
    start = separator;
  }
  flush();
  return out;
}

Value trim(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("trim", arguments, {"chars"});
  Value text = as_string(in, self);
  return with_text(in, text, stripped(in.heap(), text.text(), p[0], true, true));
}

Value replace(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("replace", arguments, {"old", "new", "count"});
  Value text = as_string(in, self);
  std::string old = in.text_of(p.require(0)), now = in.text_of(p.require(1));
  std::int64_t count = p[2] && !p[2]->is(Kind::none) ? p.integer(2, -1) : -1;
  return in.heap().string(replaced(in.heap(), text.text(), old, now, count));
}

Value indent(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("indent", arguments, {"width", "first", "blank"});
  Heap& heap = in.heap();
  require_defined(self);
  if (!self.is(Kind::string)) fail("'{}' object has no attribute 'splitlines'", type_name(self));
  Value margin = p[0] && p[0]->is(Kind::string)
                     ? *p[0]
                     : binary(in, Operator::multiply, heap.view(" "), Value::integer(p.integer(0, 4)));
  std::string text = in.text_of(self) + "\n";
  bool first = p.flag(1, false), blank = p.flag(2, false);
  std::string out;
  bool at_start = true;
  for (std::string_view line : lines_of(heap, text, false)) {
    if (!at_start) out += '\n';
    if ((at_start && first) || (!at_start && (blank || !line.empty()))) append_text(heap, out, margin);
    heap.expect(out.size() + line.size());
    heap.copy_bytes(line.size());
    out += line;
    at_start = false;
  }
  return with_text(in, self, std::move(out));
}

Value center(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("center", arguments, {"width"});
  Value text = as_string(in, self);
  return with_text(in, text, padded(in.heap(), text.text(), p.integer(0, 80), " ", 0));
}

Value truncate(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("truncate", arguments, {"length", "killwords", "end", "leeway"});
  auto size = length_of(self);
  if (!size) fail("object of type '{}' has no len()", type_name(self));
  Value text = as_string(in, self), end = p[2] ? *p[2] : in.heap().view("...");
  if (!end.is(Kind::string)) fail("truncate() needs a string to end with");
  std::int64_t length = p.integer(0, 255), leeway = p[3] && !p[3]->is(Kind::none) ? p.integer(3, 5) : 5;
  std::int64_t end_chars = static_cast<std::int64_t>(end.string().chars);
  if (length < end_chars) fail("expected length >= {}, got {}", end_chars, length);
  if (leeway < 0) fail("expected leeway >= 0, got {}", leeway);
  std::int64_t chars = static_cast<std::int64_t>(*size);
  if (chars <= length || chars - length <= leeway) return self;
  if (!self.is(Kind::string)) fail("'{}' can't be cut like a text", type_name(self));
  in.heap().copy_bytes(text.text().size());
  std::size_t keep =
      byte_offset(text.text(), static_cast<std::size_t>(length - end_chars), text.string().ascii());
  std::string cut(text.text().substr(0, keep));
  if (!p.flag(1, false)) cut = cut.substr(0, cut.rfind(' '));
  return with_text(in, text, cut + std::string(end.text()));
}

Value word_count(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("wordcount", arguments, {});
  Value text = as_string(in, self);
  in.heap().classify_bytes(text.text().size());
  std::int64_t words = 0;
  bool inside = false;
  for (std::size_t at = 0, length; at < text.text().size(); at += length) {
    bool word = is_word(char_at(text.text(), at, &length));
    words += word && !inside;
    inside = word;
  }
  return Value::integer(words);
}

Value format(Interpreter& in, const Value& self, Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.named.empty())
    fail("can't handle positional and keyword arguments at the same time");
  Value text = as_string(in, self);
  if (arguments.named.empty())
    return in.heap().string(
        percent_format(in, text.text(), in.heap().list(arguments.positional, Kind::tuple)));
  DictObject* dict = in.heap().new_dict();
  for (const auto& [name, value] : arguments.named)
    dict->set(in.heap(), in.heap().string(std::string(name)), value);
  return in.heap().string(percent_format(in, text.text(), Value(Kind::dict, dict)));
}

Value to_json_filter(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("tojson", arguments, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = p.flag(0, false);
  style.sort_keys = p.flag(3, false);
  if (p[1] && !p[1]->is(Kind::none)) {
    style.item_separator = ',';
    if (p[1]->is(Kind::string)) {
      style.indent = std::string(p[1]->text());
    } else {
      std::int64_t width = std::max<std::int64_t>(p.integer(1, 0), 0);
      in.heap().expect(static_cast<std::size_t>(width));
      style.indent = std::string(static_cast<std::size_t>(width), ' ');
    }
  }
  if (p[2] && !p[2]->is(Kind::none)) {
    std::vector<Value> both = to_vector(in.heap(), *p[2]);
    if (both.size() != 2 || !both[0].is(Kind::string) || !both[1].is(Kind::string))
      fail("tojson: separators must be two strings");
    style.item_separator = both[0].text();
    style.key_separator = both[1].text();
  }
  return in.heap().string(to_json(in.heap(), self, style));
}

Value string(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("string", arguments, {});
  return as_string(in, self);
}

Value escape(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("escape", arguments, {});
  if (self.is(Kind::string) && self.string().markup) return self;
  std::string text = in.text_of(self);
  in.heap().expect(6 * text.size());
  return in.heap().string(escaped(in.heap(), text), true);
}

Value force_escape(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("forceescape", arguments, {});
  std::string text = in.text_of(self);
  in.heap().expect(6 * text.size());
  return in.heap().string(escaped(in.heap(), text), true);
}

Value safe(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("safe", arguments, {});
  return in.heap().string(in.text_of(self), true);
}

// urllib.parse.quote with "/" kept, or "+" for spaces and nothing kept.
std::string quoted(Heap& heap, std::string_view text, bool query) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  heap.read_bytes(text.size());
  heap.expect(3 * text.size());
  std::string out;
  for (char c : text) {
    bool plain = (c >= '0' && c <= '9') ||
                 ((c | 0x20) >= 'a' && (c | 0x20) <= 'z' && static_cast<std::uint8_t>(c) < 0x80) ||
                 c == '_' || c == '.' || c == '-' || c == '~' || (c == '/' && !query);
    if (plain) {
      out += c;
    } else if (c == ' ' && query) {
      out += '+';
    } else {
      const auto byte = static_cast<std::uint8_t>(c);
      out += '%';
      out += kHex[byte >> 4];
      out += kHex[byte & 15];
    }
  }
  return out;
}

Value url_encode(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("urlencode", arguments, {});
  bool pairs = is_iterable(self) && !self.is(Kind::string) && !self.is(Kind::undefined);
  std::string out;
  if (!pairs) return in.heap().string(quoted(in.heap(), in.text_of(self), false));
  Value items = self;
  if (self.is(Kind::dict)) {
    Arguments none;
    items = find_method(self, "items")(in, self, none);
  }
  for (const Value& pair : to_vector(in.heap(), items)) {
    std::vector<Value> both = to_vector(in.heap(), pair);
    if (both.size() != 2) fail("urlencode needs pairs");
    if (!out.empty()) out += '&';
    out += quoted(in.heap(), in.text_of(both[0]), true) + "=" + quoted(in.heap(), in.text_of(both[1]), true);
    in.heap().expect(out.size());
  }
  return in.heap().string(std::move(out));
}

Value strip_tags(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters("striptags", arguments, {});
  std::string text = in.text_of(self), out;
  in.heap().read_bytes(2 * text.size());
  bool comments = true, tags = true;  // one may still end
  for (std::size_t at = 0; at < text.size();) {
    std::size_t comment = std::string::npos, end = std::string::npos;
    if (comments && text.compare(at, 4, "<!--") == 0) {
      comment = text.find("-->", at);
      comments = comment != std::string::npos;
    }
    if (comment != std::string::npos) {
      end = comment + 3;
    } else if (tags && text[at] == '<') {
      end = text.find('>', at);
      tags = end != std::string::npos;
    }
    if (end == std::string::npos) {
      out += text[at++];
    } else {
      at = comment != std::string::npos ? end : end + 1;
    }
  }
  std::string joined;
  for (const Value& word : split_text(in.heap(), out, nullptr, -1)) {
    if (!joined.empty()) joined += ' ';
    joined += word.text();
  }
  return in.heap().string(std::move(joined));
}

Value default_value(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("default", arguments, {"default_value", "boolean"});
  bool missing = self.is(Kind::undefined) || (p.flag(1, false) && !truth(self));
  return !missing ? self : p[0] ? *p[0] : in.heap().view("");
}

// -------------------------------------------------------------------------------------------------- numbers

std::optional<Value> whole(double value) {
  if (!(std::fabs(value) < 9.2233720368547e18)) return std::nullopt;
  return Value::integer(static_cast<std::int64_t>(value));
}

Value to_int(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("int", arguments, {"default", "base"});
  require_defined(self);
  Value otherwise = p[0] ? *p[0] : Value::integer(0);
  if (self.is_integral()) return Value::integer(self.integer());
  if (self.is(Kind::real)) {
    if (std::isfinite(self.number()) && std::fabs(self.number()) >= 9.22e18)
      fail("an integer needs more than 64 bits");
    return whole(self.number()).value_or(otherwise);
  }
  if (!self.is(Kind::string)) return otherwise;
  in.heap().read_bytes(4 * self.text().size());
  std::int64_t base = p.integer(1, 10);
  bool usable = base == 0 || (base >= 2 && base <= 36);
  if (auto value = usable ? parse_int(self.text(), static_cast<int>(base)) : std::nullopt)
    return Value::integer(*value);
  auto value = parse_float(self.text());
  return value ? whole(*value).value_or(otherwise) : otherwise;
}

Value to_float(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("float", arguments, {"default"});
  require_defined(self);
  if (self.is_number()) return Value::real(self.number());
  if (self.is(Kind::string)) in.heap().read_bytes(4 * self.text().size());
  auto value = self.is(Kind::string) ? parse_float(self.text()) : std::nullopt;
  return value ? Value::real(*value) : p[0] ? *p[0] : Value::real(0);
}

Value absolute(Interpreter&, const Value& self, Arguments& arguments) {
  Parameters("abs", arguments, {});
  require_defined(self);
  if (self.is(Kind::real)) return Value::real(std::fabs(self.number()));
  if (!self.is_integral()) fail("bad operand type for abs(): '{}'", type_name(self));
  return self.integer() < 0 ? negated(self, true) : Value::integer(self.integer());
}

// round() to digits after the point, ties to even on the exact value.
double round_to(double value, std::int64_t precision) {
  if (!std::isfinite(value) || precision > 320) return value;
  if (precision < -320) return 0.0 * value;
  if (precision < 0) {
    long double unit = std::pow(10.0L, static_cast<long double>(-precision));
    return static_cast<double>(std::nearbyint(static_cast<long double>(value) / unit) * unit);
  }
  char buffer[800];
  std::snprintf(buffer, sizeof buffer, "%.*f", static_cast<int>(precision), value);
  return std::strtod(buffer, nullptr);
}

Value round_integer(std::int64_t value, std::int64_t precision) {
  if (precision >= 0) return Value::integer(value);
  if (precision < -18) return Value::integer(0);
  std::int64_t unit = 1;
  for (std::int64_t i = precision; i < 0; ++i) unit *= 10;
  std::int64_t rest = value % unit;
  if (rest < 0) rest += unit;
  __int128 down = static_cast<__int128>(value) - rest;
  bool up = rest > unit - rest || (rest == unit - rest && (down / unit) % 2 != 0);
  __int128 rounded = up ? down + unit : down;
  if (rounded > INT64_MAX || rounded < INT64_MIN) fail("an integer needs more than 64 bits");
  return Value::integer(static_cast<std::int64_t>(rounded));
}

Value round_filter(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("round", arguments, {"precision", "method"});
  std::int64_t precision = p.integer(0, 0);
  std::string method = p[1] ? in.text_of(*p[1]) : "common";
  if (method != "common" && method != "ceil" && method != "floor")
    fail("method must be common, ceil or floor");
  require_defined(self);
  if (!self.is_number()) fail("type {} doesn't define __round__ method", type_name(self));
  if (method == "common")
    return self.is_integral() ? round_integer(self.integer(), precision)
                              : Value::real(round_to(self.number(), precision));
  double unit = std::pow(10.0, static_cast<double>(precision));
  double scaled = self.number() * unit;
  return Value::real((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / unit);
}

Value file_size(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("filesizeformat", arguments, {"binary"});
  bool binary_units = p.flag(0, false);
  require_defined(self);
  if (self.is(Kind::string)) in.heap().read_bytes(4 * self.text().size());
  std::optional<double> number = self.is_number()        ? self.number()
                                 : self.is(Kind::string) ? parse_float(self.text())
                                                         : std::nullopt;
  if (!number) fail("could not convert to float");
  double bytes = *number, base = binary_units ? 1024 : 1000;
  if (bytes == 1) return in.heap().string("1 Byte");
  if (bytes < base) return in.heap().string(fmt::format("{} Bytes", static_cast<std::int64_t>(bytes)));
  static constexpr std::string_view kLetters = "kMGTPEZY";
  std::size_t i = 0;
  double unit = base * base;
  for (; i + 1 < kLetters.size() && bytes >= unit; ++i) unit *= base;
  std::string letter(1, binary_units && i == 0 ? 'K' : kLetters[i]);
  return in.heap().string(fmt::format("{:.1f} {}{}", base * bytes / unit, letter, binary_units ? "iB" : "B"));
}

Value unsupported(Interpreter&, const Value&, Arguments&) { fail("this filter is not supported"); }

}  // namespace

void add_text_filters(FunctionTable& table) {
  table.insert({{"upper", change<to_upper>},
                {"lower", change<to_lower>},
                {"capitalize", change<capitalized>},
                {"title", change<title_words>},
                {"trim", trim},
                {"replace", replace},
                {"indent", indent},
                {"center", center},
                {"truncate", truncate},
                {"wordcount", word_count},
                {"format", format},
                {"tojson", to_json_filter},
                {"string", string},
                {"escape", escape},
                {"e", escape},
                {"forceescape", force_escape},
                {"safe", safe},
                {"urlencode", url_encode},
                {"striptags", strip_tags},
                {"default", default_value},
                {"d", default_value},
                {"int", to_int},
                {"float", to_float},
                {"abs", absolute},
                {"round", round_filter},
                {"filesizeformat", file_size},
                {"random", unsupported},
                {"urlize", unsupported},
                {"wordwrap", unsupported},
                {"xmlattr", unsupported},
                {"pprint", unsupported}});
}

const FunctionTable& filters() {
  static const FunctionTable table = [] {
    FunctionTable made;
    add_text_filters(made);
    add_sequence_filters(made);
    return made;
  }();
  return table;
}

Function find_filter(std::string_view name) { return in_table(filters(), name); }

}  // namespace steelyard::jinja
