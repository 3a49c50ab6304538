#include "base/utf8.h"

#include <cstring>

namespace steelyard {

namespace {

// Sequence length and allowed range of the second byte for a leading byte (Unicode 15, table 3-7).
struct Lead {
  std::uint32_t length;
  std::uint8_t low, high;
};

Lead classify(std::uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x80, 0x9F};
  if (byte < 0xF0) return {3, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0x90, 0xBF};
  if (byte < 0xF4) return {4, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 0x80, 0x8F};
  return {0, 0, 0};
}

}  // namespace

Utf8Char decode_utf8(std::string_view text) {
  std::uint8_t first = static_cast<std::uint8_t>(text[0]);
  if (first < 0x80) return {first, 1, true, false};
  Lead lead = classify(first);
  if (lead.length == 0) return {0xFFFD, 1, false, false};
  std::uint32_t code = first & (0xFF >> (lead.length + 1));
  for (std::uint32_t i = 1; i < lead.length; ++i) {
    if (i == text.size()) return {0xFFFD, i, false, true};
    std::uint8_t byte = static_cast<std::uint8_t>(text[i]);
    std::uint8_t low = i == 1 ? lead.low : 0x80, high = i == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) return {0xFFFD, i, false, false};
    code = code << 6 | (byte & 0x3F);
  }
  return {code, lead.length, true, false};
}

void append_utf8(std::string& out, std::uint32_t code) {
  if (code < 0x80) {
    out += static_cast<char>(code);
  } else if (code < 0x800) {
    out += static_cast<char>(0xC0 | code >> 6);
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    out += static_cast<char>(0xE0 | code >> 12);
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | code >> 18);
    out += static_cast<char>(0x80 | (code >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (code >> 6 & 0x3F));
    out += static_cast<char>(0x80 | (code & 0x3F));
  }
}

std::size_t valid_prefix(std::string_view text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::uint64_t eight;
    if (at + 8 <= text.size() && (std::memcpy(&eight, &text[at], 8), (eight & 0x8080808080808080u) == 0)) {
      at += 8;
      continue;
    }
    Utf8Char c = decode_utf8(text.substr(at));
    if (!c.valid) break;
    at += c.length;
  }
  return at;
}

std::size_t append_valid_utf8(std::string& out, std::string_view bytes) {
  while (!bytes.empty()) {
    std::size_t good = valid_prefix(bytes);
    out.append(bytes.substr(0, good));
    bytes.remove_prefix(good);
    if (bytes.empty()) break;
    Utf8Char c = decode_utf8(bytes);
    if (c.cut) return bytes.size();
    append_utf8(out, 0xFFFD);
    bytes.remove_prefix(c.length);
  }
  return 0;
}

std::string valid_utf8(std::string_view bytes) {
  std::string out;
  out.reserve(bytes.size());
  if (append_valid_utf8(out, bytes) > 0) append_utf8(out, 0xFFFD);
  return out;
}

}  // namespace steelyard
