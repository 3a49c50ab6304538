// UTF-8 by the book: decoding with the maximal-subpart rule (Unicode 15, §3.9, D93b).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace steelyard {

struct Utf8Char {
  std::uint32_t code;    // U+FFFD when invalid
  std::uint32_t length;  // bytes taken: the character, or the maximal invalid part (≥ 1)
  bool valid;
  bool cut;  // invalid only because the text ends inside a so far valid character
};

// `text` must not be empty.
Utf8Char decode_utf8(std::string_view text);
void append_utf8(std::string& out, std::uint32_t code);
// Bytes of the longest prefix that is valid UTF-8.
std::size_t valid_prefix(std::string_view text);
// Appends `bytes` as valid UTF-8: each maximal invalid part becomes U+FFFD. Returns how many bytes at the end
// are an unfinished character, which is left out.
std::size_t append_valid_utf8(std::string& out, std::string_view bytes);
// Valid UTF-8 from any bytes, by the same rule; an unfinished character at the end becomes U+FFFD too.
std::string valid_utf8(std::string_view bytes);

}  // namespace steelyard
