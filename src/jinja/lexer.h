// Cuts a template into tokens as jinja2's lexer does with trim_blocks and lstrip_blocks on and
// keep_trailing_newline off.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard::jinja {

struct Token {
  enum class Type : std::uint8_t {
    data,
    variable_begin,
    variable_end,
    block_begin,
    block_end,
    name,
    string,   // text: the value
    integer,  // text: the digits as written
    real,
    op,  // text: the operator
    end,
  };
  Type type;
  int line;
  std::string text;
};

// `source` is valid UTF-8. Throws Failure with the line.
std::vector<Token> tokenize(std::string_view source);

}  // namespace steelyard::jinja
