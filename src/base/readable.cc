#include "base/readable.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/utf8.h"

namespace steelyard {

namespace {

// Terminals obey these too: C1 controls, line separators, and marks that turn the direction of writing.
bool is_command(std::uint32_t code) {
  return (code >= 0x80 && code < 0xa0) || (code >= 0x202a && code <= 0x202e) ||
         (code >= 0x2066 && code <= 0x2069) || code == 0x2028 || code == 0x2029;
}

}  // namespace

std::string readable(std::string_view text, std::size_t width) {
  std::string out;
  for (std::size_t i = 0; i < text.size();) {
    const Utf8Char next = decode_utf8(text.substr(i));
    const std::size_t length = next.valid ? next.length : 0;
    const auto byte = static_cast<unsigned char>(text[i]);
    if (out.size() + std::max<std::size_t>(length, 1) > width) return out + "…";
    if (byte == '\n') {
      out += "\\n";
    } else if (length > 0 && is_command(next.code)) {
      out += fmt::format("\\u{:04x}", next.code);
    } else if (length == 0 || byte < 0x20 || byte == 0x7f) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += text.substr(i, length);
    }
    i += std::max<std::size_t>(length, 1);
  }
  return out;
}

}  // namespace steelyard
