// Methods of str.
#include <algorithm>

#include "base/utf8.h"
#include "jinja/interpreter.h"
#include "jinja/methods.h"
#include "jinja/python_text.h"
#include "jinja/tables.h"
#include "jinja/text_search.h"

namespace steelyard::jinja {

namespace {

// Results of methods of Markup stay Markup.
Value made(Interpreter& in, const Value& self, std::string text) {
  return in.heap().string(std::move(text), self.string().markup);
}

std::string_view text_argument(const Value& value, const char* method) {
  require_defined(value);
  if (!value.is(Kind::string)) fail("{}() argument must be str, not {}", method, type_name(value));
  return value.text();
}

void no_arguments(const char* name, const Arguments& arguments) { Parameters(name, arguments, {}); }

// A whole-text change without arguments.
template <std::string (*Change)(std::string_view)>
Value change(Interpreter& in, const Value& self, Arguments& arguments) {
  no_arguments("str method", arguments);
  in.heap().classify_bytes(self.text().size());
  in.heap().expect(3 * self.text().size());
  return made(in, self, Change(self.text()));
}

std::string casefold(std::string_view text) {
  std::string out;
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (code == 0xDF || code == 0x1E9E) {
      out += "ss";
    } else if (code == 0x3C2) {
      append_utf8(out, 0x3C3);
    } else {
      append_lower(out, code);
    }
  }
  return out;
}

// Whether every character is of a kind, and there is one.
template <bool (*Is)(std::uint32_t)>
Value all_are(Interpreter& in, const Value& self, Arguments& arguments) {
  no_arguments("str method", arguments);
  std::string_view text = self.text();
  in.heap().classify_bytes(text.size());
  for (std::size_t at = 0, length; at < text.size(); at += length)
    if (!Is(char_at(text, at, &length))) return Value::boolean(false);
  return Value::boolean(!text.empty());
}

bool is_alnum(std::uint32_t code) { return is_alpha(code) || is_numeric(code); }

Value is_ascii(Interpreter&, const Value& self, Arguments& arguments) {
  no_arguments("isascii", arguments);
  return Value::boolean(self.string().ascii());
}

Value is_printable_text(Interpreter& in, const Value& self, Arguments& arguments) {
  no_arguments("isprintable", arguments);
  in.heap().classify_bytes(self.text().size());
  std::string_view text = self.text();
  for (std::size_t at = 0, length; at < text.size(); at += length)
    if (!is_printable(char_at(text, at, &length))) return Value::boolean(false);
  return Value::boolean(true);
}

Value is_identifier(Interpreter& in, const Value& self, Arguments& arguments) {
  no_arguments("isidentifier", arguments);
  in.heap().classify_bytes(self.text().size());
  std::string_view text = self.text();
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (!is_word(code) || (at == 0 && is_numeric(code))) return Value::boolean(false);
  }
  return Value::boolean(!text.empty());
}

Value is_upper_text(Interpreter& in, const Value& self, Arguments&) {
  return Value::boolean(text_is_upper(in.heap(), self.text()));
}
Value is_lower_text(Interpreter& in, const Value& self, Arguments&) {
  return Value::boolean(text_is_lower(in.heap(), self.text()));
}

Value is_title_text(Interpreter& in, const Value& self, Arguments&) {
  in.heap().classify_bytes(self.text().size());
  bool cased = false, inside = false;
  std::string_view text = self.text();
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    bool big = is_upper(code) || is_title(code), small = is_lower(code);
    if ((big && inside) || (small && !inside)) return Value::boolean(false);
    inside = big || small;
    cased |= inside;
  }
  return Value::boolean(cased);
}

enum class Side { left, right, both };

template <Side side>
Value strip(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("strip", arguments, {"chars"});
  return made(in, self, stripped(in.heap(), self.text(), p[0], side != Side::right, side != Side::left));
}

// A prefix or suffix, or any of a tuple of them, within optional bounds.
template <bool start>
Value affix(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p(start ? "startswith" : "endswith", arguments, {"", " ", "  "});
  Value from = p[1] ? *p[1] : Value::none(), to = p[2] ? *p[2] : Value::none();
  Value part = p[1] || p[2] ? slice_of(in.heap(), self, from, to, Value::none()) : self;
  std::string_view text = part.text();
  auto matches = [&](const Value& wanted) {
    std::string_view w = text_argument(wanted, start ? "startswith" : "endswith");
    in.heap().step(1 + w.size() / 64);
    return start ? text.substr(0, w.size()) == w
                 : text.size() >= w.size() && text.substr(text.size() - w.size()) == w;
  };
  const Value& wanted = p.require(0);
  if (!wanted.is(Kind::tuple)) return Value::boolean(matches(wanted));
  return Value::boolean(std::any_of(wanted.items().begin(), wanted.items().end(), matches));
}

Value remove_prefix(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("removeprefix", arguments, {""});
  std::string_view text = self.text(), gone = text_argument(p.require(0), "removeprefix");
  in.heap().copy_bytes(gone.size());
  return made(in, self, std::string(text.substr(text.substr(0, gone.size()) == gone ? gone.size() : 0)));
}

Value remove_suffix(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("removesuffix", arguments, {""});
  std::string_view text = self.text(), gone = text_argument(p.require(0), "removesuffix");
  in.heap().copy_bytes(gone.size());
  bool ends = text.size() >= gone.size() && text.substr(text.size() - gone.size()) == gone;
  return made(in, self, std::string(text.substr(0, text.size() - (ends ? gone.size() : 0))));
}

Value replace(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("replace", arguments, {"old", "new", "count"});
  std::string_view old = text_argument(p.require(0), "replace"), now = text_argument(p.require(1), "replace");
  return made(in, self, replaced(in.heap(), self.text(), old, now, p.integer(2, -1)));
}

Value split(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("split", arguments, {"sep", "maxsplit"});
  return in.heap().list(split_text(in.heap(), self.text(), p[0], p.integer(1, -1)));
}

Value right_split(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("rsplit", arguments, {"sep", "maxsplit"});
  return in.heap().list(right_split_text(in.heap(), self.text(), p[0], p.integer(1, -1)));
}

Value split_lines(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("splitlines", arguments, {"keepends"});
  std::vector<Value> lines;
  for (std::string_view line : lines_of(in.heap(), self.text(), p.flag(0, false)))
    lines.push_back(in.heap().string(std::string(line)));
  return in.heap().list(std::move(lines));
}

template <bool right>
Value partition(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("partition", arguments, {""});
  std::string_view text = self.text(), sep = text_argument(p.require(0), "partition");
  if (sep.empty()) fail("empty separator");
  std::size_t at = find_text(in.heap(), text, sep, right);
  auto part = [&](std::string_view piece) { return in.heap().string(std::string(piece)); };
  std::vector<Value> parts;
  if (at != std::string_view::npos) {
    parts = {part(text.substr(0, at)), part(sep), part(text.substr(at + sep.size()))};
  } else if (right) {
    parts = {part(""), part(""), self};
  } else {
    parts = {self, part(""), part("")};
  }
  return in.heap().list(std::move(parts), Kind::tuple);
}

// find, rfind, index, rindex: a character number, within optional bounds.
template <bool right, bool must>
Value find(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("find", arguments, {"", " ", "  "});
  std::string_view wanted = text_argument(p.require(0), "find");
  std::int64_t length = static_cast<std::int64_t>(self.string().chars);
  auto bound = [&](const Value* value, std::int64_t otherwise) {
    if (value == nullptr || value->is(Kind::none)) return otherwise;
    std::int64_t at = to_index(*value, "find");
    if (at < 0) at = std::max<std::int64_t>(at < -length ? 0 : at + length, 0);
    return at;
  };
  std::int64_t from = bound(p[1], 0), to = std::min(bound(p[2], length), length), found = -1;
  in.heap().step(1 + self.text().size() / 32);
  if (from <= to) {
    bool ascii = self.string().ascii();
    std::size_t begin = byte_offset(self.text(), static_cast<std::size_t>(from), ascii);
    std::size_t end = byte_offset(self.text(), static_cast<std::size_t>(to), ascii);
    std::string_view part = self.text().substr(begin, end - begin);
    std::size_t at = find_text(in.heap(), part, wanted, right);
    if (at != std::string_view::npos)
      found = from + static_cast<std::int64_t>(count_chars(part.substr(0, at)));
  }
  if (must && found < 0) fail("substring not found");
  return Value::integer(found);
}

Value count(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("count", arguments, {"", " ", "  "});
  Value from = p[1] ? *p[1] : Value::none(), to = p[2] ? *p[2] : Value::none();
  Value part = p[1] || p[2] ? slice_of(in.heap(), self, from, to, Value::none()) : self;
  std::string_view wanted = text_argument(p.require(0), "count");
  in.heap().step(1 + part.text().size() / 16);
  if (wanted.empty()) return Value::integer(static_cast<std::int64_t>(part.string().chars) + 1);
  std::int64_t times = 0;
  TextSearch search(in.heap(), wanted);
  for (std::size_t at = 0; (at = search.find(part.text(), at)) != std::string_view::npos; at += wanted.size())
    ++times;
  return Value::integer(times);
}

Value join(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("join", arguments, {""});
  std::string out;
  bool first = true;
  Cursor cursor(in.heap(), p.require(0));
  for (Value item; cursor.next(item); first = false) {
    if (!item.is(Kind::string)) fail("sequence item: expected str instance, {} found", type_name(item));
    if (!first) append_text(in.heap(), out, self);
    append_text(in.heap(), out, item);
  }
  return made(in, self, std::move(out));
}

template <int where>  // -1 ljust, 0 center, 1 rjust
Value justify(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("justify", arguments, {"width", "fillchar"});
  std::string_view fill = p[1] ? text_argument(*p[1], "justify") : " ";
  in.heap().copy_bytes(fill.size());
  if (count_chars(fill) != 1) fail("The fill character must be exactly one character long");
  p.require(0);
  return made(in, self, padded(in.heap(), self.text(), p.integer(0, 0), fill, where));
}

Value zero_fill(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("zfill", arguments, {""});
  p.require(0);
  std::string_view text = self.text();
  bool sign = !text.empty() && (text[0] == '+' || text[0] == '-');
  std::int64_t width = p.integer(0, 0);
  std::string digits = padded(in.heap(), text.substr(sign), width == INT64_MIN ? 0 : width - sign, "0", 1);
  return made(in, self, std::string(text.substr(0, sign)) + digits);
}

Value expand_tabs(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("expandtabs", arguments, {"tabsize"});
  std::int64_t size = p.integer(0, 8), column = 0;
  std::string out;
  in.heap().read_bytes(self.text().size());
  for (char c : self.text()) {
    if (c == '\t') {
      if (size <= 0) continue;
      std::size_t spaces = static_cast<std::size_t>(size - column % size);
      in.heap().expect(out.size() + spaces);
      in.heap().step(1 + spaces / 64);
      out.append(spaces, ' ');
      column = 0;
    } else {
      out += c;
      if ((c & 0xC0) != 0x80) ++column;
      if (size > 0 && column == size) column = 0;
      if (c == '\n' || c == '\r') column = 0;
    }
  }
  return made(in, self, std::move(out));
}

Value format(Interpreter& in, const Value& self, Arguments& arguments) {
  return made(in, self, brace_format(in, self.text(), arguments));
}

Value format_map(Interpreter& in, const Value& self, Arguments& arguments) {
  Parameters p("format_map", arguments, {""});
  if (!p.require(0).is(Kind::dict)) fail("format_map() argument must be a mapping");
  Arguments named;
  in.heap().step(p[0]->dict().items.size());
  for (const auto& [key, value] : p[0]->dict().items)
    if (key.is(Kind::string)) named.named.emplace_back(key.text(), value);
  return made(in, self, brace_format(in, self.text(), named));
}

Value unsupported(Interpreter&, const Value&, Arguments&) { fail("this method of str is not supported"); }

}  // namespace

const FunctionTable& string_methods() {
  static const FunctionTable methods = {
      {"upper", change<to_upper>},
      {"lower", change<to_lower>},
      {"title", change<to_title>},
      {"capitalize", change<capitalized>},
      {"swapcase", change<swap_case>},
      {"casefold", change<casefold>},
      {"isalpha", all_are<is_alpha>},
      {"isalnum", all_are<is_alnum>},
      {"isdecimal", all_are<is_decimal>},
      {"isdigit", all_are<is_digit>},
      {"isnumeric", all_are<is_numeric>},
      {"isspace", all_are<is_space>},
      {"isascii", is_ascii},
      {"isprintable", is_printable_text},
      {"isidentifier", is_identifier},
      {"isupper", is_upper_text},
      {"islower", is_lower_text},
      {"istitle", is_title_text},
      {"strip", strip<Side::both>},
      {"lstrip", strip<Side::left>},
      {"rstrip", strip<Side::right>},
      {"startswith", affix<true>},
      {"endswith", affix<false>},
      {"removeprefix", remove_prefix},
      {"removesuffix", remove_suffix},
      {"replace", replace},
      {"split", split},
      {"rsplit", right_split},
      {"splitlines", split_lines},
      {"partition", partition<false>},
      {"rpartition", partition<true>},
      {"find", find<false, false>},
      {"rfind", find<true, false>},
      {"index", find<false, true>},
      {"rindex", find<true, true>},
      {"count", count},
      {"join", join},
      {"ljust", justify<-1>},
      {"center", justify<0>},
      {"rjust", justify<1>},
      {"zfill", zero_fill},
      {"expandtabs", expand_tabs},
      {"format", format},
      {"format_map", format_map},
      {"encode", unsupported},
      {"translate", unsupported},
      {"maketrans", unsupported},
  };
  return methods;
}

}  // namespace steelyard::jinja
