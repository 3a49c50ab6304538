#include "base/readable.h"

#include <fmt/format.h>

#include <cstdint>

#include "base/utf8.h"

namespace steelyard {
namespace {

// What terminals obey: controls (C1 too), line separators, and marks that turn the direction of writing.
bool is_control(std::uint32_t code) {
  return code < 0x20 || (code >= 0x7f && code < 0xa0) || (code >= 0x202a && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0x2028 || code == 0x2029;
}

// The character at the front as it may be shown, and the bytes it takes.
struct Shown {
  std::string text;  // empty: as it stands
  std::size_t length;
};
Shown show_next(std::string_view text) {
  const Utf8Char next = decode_utf8(text);
  if (next.valid && !is_control(next.code)) return {{}, next.length};
  const auto byte = static_cast<unsigned char>(text[0]);
  if (!next.valid || next.code < 0x80) return {fmt::format("\\x{:02x}", byte), 1};
  return {fmt::format("\\u{:04x}", next.code), next.length};
}

}  // namespace

std::string readable(std::string_view text, std::size_t width) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    Shown next = show_next(text.substr(i));
    if (out.size() + next.length > width) return out + "…";
    if (text[i] == '\n') next.text = "\\n";
    out += next.text.empty() ? text.substr(i, next.length) : next.text;
    i += next.length;
  }
  return out;
}

std::string visible(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '\n' || text[i] == '\t') {
      out += text[i++];
      continue;
    }
    const Shown next = show_next(text.substr(i));
    out += next.text.empty() ? text.substr(i, next.length) : next.text;
    i += next.length;
  }
  return out;
}

}  // namespace steelyard
