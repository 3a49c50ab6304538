// Python's view of text: characters, cases, white space, repr, numbers. Strings are valid UTF-8 throughout.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "jinja/unicode_tables.h"

namespace steelyard::jinja {

Category category(std::uint32_t code);
bool is_space(std::uint32_t code);      // str.isspace of one character
bool is_line_end(std::uint32_t code);   // where str.splitlines cuts
bool is_printable(std::uint32_t code);  // str.isprintable
bool is_alpha(std::uint32_t code);
bool is_decimal(std::uint32_t code);
bool is_digit(std::uint32_t code);
bool is_numeric(std::uint32_t code);
bool is_upper(std::uint32_t code);
bool is_lower(std::uint32_t code);
bool is_title(std::uint32_t code);
bool is_word(std::uint32_t code);  // \w of Python's re

// The character at `text[at]` (a start of one) and its bytes.
std::uint32_t char_at(std::string_view text, std::size_t at, std::size_t* length);
std::size_t count_chars(std::string_view text);
// Byte offset of character number `index`, text.size() beyond the end.
std::size_t byte_offset(std::string_view text, std::size_t index, bool ascii);

void append_upper(std::string& out, std::uint32_t code);
void append_lower(std::string& out, std::uint32_t code);
void append_title(std::string& out, std::uint32_t code);
std::string to_upper(std::string_view text);
std::string to_lower(std::string_view text);  // with the final sigma rule
std::string to_title(std::string_view text);
std::string capitalized(std::string_view text);
std::string swap_case(std::string_view text);

std::string_view strip_left(std::string_view text);
std::string_view strip_right(std::string_view text);

std::string repr_of(std::string_view text);
std::string repr_of(double value);
// For messages: as much of a text as a reader needs, and its repr().
std::string_view cut_text(std::string_view text);
std::string repr_cut(std::string_view text);
// int(text, base) and float(text); nullopt where Python raises ValueError (or needs more than 64 bits).
std::optional<std::int64_t> parse_int(std::string_view text, int base);
std::optional<double> parse_float(std::string_view text);

}  // namespace steelyard::jinja
