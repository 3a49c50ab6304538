// UTF-8 by the book: decoding with the maximal-subpart rule (Unicode 15, §3.9, D93b).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace steelyard {

struct Utf8Char {
  uint32_t code;    // U+FFFD when invalid
  uint32_t length;  // bytes taken: the character, or the maximal invalid part (≥ 1)
  bool valid;
  bool cut;  // invalid only because the text ends inside a so far valid character
};

// `text` must not be empty.
Utf8Char decode_utf8(std::string_view text);
void append_utf8(std::string& out, uint32_t code);
// Bytes of the longest prefix that is valid UTF-8.
size_t valid_prefix(std::string_view text);

}  // namespace steelyard
