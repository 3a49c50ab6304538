// Text operations that filters and methods share: splitting, stripping, padding, replacing.
#include <algorithm>

#include "jinja/methods.h"
#include "jinja/python_text.h"
#include "jinja/text_search.h"

namespace steelyard::jinja {

namespace {

// Start of the character that ends before `end`.
std::size_t before(std::string_view text, std::size_t end) {
  do --end;
  while (end > 0 && (text[end] & 0xC0) == 0x80);
  return end;
}

std::string_view separator_text(const Value& separator) {
  require_defined(separator);
  if (!separator.is(Kind::string)) fail("must be str or None, not {}", type_name(separator));
  if (separator.text().empty()) fail("empty separator");
  return separator.text();
}

bool given(const Value* value) { return value != nullptr && !value->is(Kind::none); }

void add_piece(Heap& heap, std::vector<Value>& out, std::string_view piece) {
  heap.step();
  out.push_back(heap.string(std::string(piece)));
}

}  // namespace

std::string stripped(Heap& heap, std::string_view text, const Value* chars, bool left, bool right) {
  const std::size_t before_it = text.size();
  if (!given(chars)) {
    if (left) text = strip_left(text);
    if (right) text = strip_right(text);
    heap.classify_bytes(before_it - text.size());
    heap.copy_bytes(text.size());
    return std::string(text);
  }
  require_defined(*chars);
  if (!chars->is(Kind::string)) fail("strip arg must be None or str, not {}", type_name(*chars));
  std::vector<std::uint32_t> set;
  heap.classify_bytes(2 * chars->text().size());
  heap.expect(4 * chars->text().size());
  for (std::size_t i = 0, n; i < chars->text().size(); i += n) set.push_back(char_at(chars->text(), i, &n));
  std::sort(set.begin(), set.end());
  auto unwanted = [&](std::size_t at) {
    std::size_t n;
    return std::binary_search(set.begin(), set.end(), char_at(text, at, &n));
  };
  std::size_t begin = 0, end = text.size(), length;
  while (left && begin < end) {
    if (!unwanted(begin)) break;
    char_at(text, begin, &length);
    begin += length;
  }
  while (right && end > begin) {
    std::size_t last = before(text, end);
    if (!unwanted(last)) break;
    end = last;
  }
  heap.classify_bytes(text.size() - (end - begin));
  heap.copy_bytes(end - begin);
  return std::string(text.substr(begin, end - begin));
}

std::string replaced(Heap& heap, std::string_view text, std::string_view old, std::string_view now,
                     std::int64_t count) {
  std::string out;
  std::uint64_t left = count < 0 ? UINT64_MAX : static_cast<std::uint64_t>(count);
  heap.step(1 + text.size() / 16);
  auto add = [&](std::string_view piece) {
    heap.expect(out.size() + piece.size());
    heap.step(1 + piece.size() / 64);
    out += piece;
  };
  std::size_t at = 0;
  if (old.empty()) {  // between all characters
    for (std::size_t length; at < text.size() && left > 0; at += length, --left) {
      add(now);
      char_at(text, at, &length);
      out += text.substr(at, length);
    }
    if (left > 0) add(now);
    add(text.substr(at));
    return out;
  }
  TextSearch search(heap, old);
  for (std::size_t found; left > 0 && (found = search.find(text, at)) != std::string_view::npos; --left) {
    add(text.substr(at, found - at));
    add(now);
    at = found + old.size();
  }
  add(text.substr(at));
  return out;
}

std::vector<Value> split_text(Heap& heap, std::string_view text, const Value* separator, std::int64_t most) {
  std::vector<Value> out;
  std::uint64_t left = most < 0 ? UINT64_MAX : static_cast<std::uint64_t>(most);
  heap.step(1 + text.size() / 16);
  if (given(separator)) {
    std::string_view sep = separator_text(*separator);
    std::size_t at = 0;
    TextSearch search(heap, sep);
    for (std::size_t found; left > 0 && (found = search.find(text, at)) != std::string_view::npos; --left) {
      add_piece(heap, out, text.substr(at, found - at));
      at = found + sep.size();
    }
    add_piece(heap, out, text.substr(at));
    return out;
  }
  heap.classify_bytes(text.size());
  for (text = strip_left(text); !text.empty(); text = strip_left(text)) {
    if (left-- == 0) {
      add_piece(heap, out, text);
      break;
    }
    std::size_t at = 0, length;
    while (at < text.size() && !is_space(char_at(text, at, &length))) at += length;
    add_piece(heap, out, text.substr(0, at));
    text = text.substr(at);
  }
  return out;
}

std::vector<Value> right_split_text(Heap& heap, std::string_view text, const Value* separator,
                                    std::int64_t most) {
  std::vector<Value> out;
  std::uint64_t left = most < 0 ? UINT64_MAX : static_cast<std::uint64_t>(most);
  heap.step(1 + text.size() / 16);
  if (given(separator)) {
    std::string_view sep = separator_text(*separator);
    TextSearch search(heap, sep, true);
    for (std::size_t found; left > 0 && (found = search.rfind(text)) != std::string_view::npos; --left) {
      add_piece(heap, out, text.substr(found + sep.size()));
      text = text.substr(0, found);
    }
    add_piece(heap, out, text);
  } else {
    heap.classify_bytes(text.size());
    for (text = strip_right(text); !text.empty(); text = strip_right(text)) {
      if (left-- == 0) {
        add_piece(heap, out, text);
        break;
      }
      std::size_t at = text.size(), length;
      while (at > 0) {
        std::size_t last = before(text, at);
        if (is_space(char_at(text, last, &length))) break;
        at = last;
      }
      add_piece(heap, out, text.substr(at));
      text = text.substr(0, at);
    }
  }
  std::reverse(out.begin(), out.end());
  return out;
}

std::vector<std::string_view> lines_of(Heap& heap, std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  heap.step(1 + text.size() / 16);
  std::size_t begin = 0, length;
  for (std::size_t at = 0; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (!is_line_end(code)) continue;
    if (code == '\r' && at + 1 < text.size() && text[at + 1] == '\n') length = 2;
    heap.charge(sizeof(std::string_view));
    lines.push_back(text.substr(begin, at - begin + (keep_ends ? length : 0)));
    begin = at + length;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

std::string padded(Heap& heap, std::string_view text, std::int64_t width, std::string_view fill, int where) {
  heap.copy_bytes(text.size());
  std::int64_t have = static_cast<std::int64_t>(count_chars(text));
  if (width <= have) return std::string(text);
  std::size_t missing = static_cast<std::size_t>(width - have), unit = fill.size(), total;
  if (__builtin_mul_overflow(missing, unit, &total)) fail("the template needs too much memory");
  heap.expect(total + text.size());
  heap.step(missing / 8 + total / 64);
  // Python's center puts the odd one left when the width is odd.
  std::size_t left = where < 0   ? 0
                     : where > 0 ? missing
                                 : missing / 2 + (missing & static_cast<std::size_t>(width) & 1);
  std::string out;
  for (std::size_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (std::size_t i = left; i < missing; ++i) out += fill;
  return out;
}

namespace {

template <bool upper>
bool all_cased(std::string_view text) {
  bool cased = false;
  for (std::size_t at = 0, length; at < text.size(); at += length) {
    std::uint32_t code = char_at(text, at, &length);
    if (is_title(code) || (upper ? is_lower(code) : is_upper(code))) return false;
    cased |= upper ? is_upper(code) : is_lower(code);
  }
  return cased;
}

}  // namespace

bool text_is_upper(Heap& heap, std::string_view text) {
  heap.classify_bytes(text.size());
  return all_cased<true>(text);
}
bool text_is_lower(Heap& heap, std::string_view text) {
  heap.classify_bytes(text.size());
  return all_cased<false>(text);
}

std::size_t find_text(Heap& heap, std::string_view text, std::string_view wanted, bool right) {
  if (wanted.empty()) return right ? text.size() : 0;
  TextSearch search(heap, wanted, right);
  return right ? search.rfind(text) : search.find(text, 0);
}

}  // namespace steelyard::jinja
