// What the program knows of the terminal it talks to.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace steelyard {

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();
// TERM says that it can't move its cursor ("dumb"), or nothing.
bool terminal_is_dumb();
// Its width now, in columns; 80 where it doesn't say.
std::uint32_t terminal_columns();

// Columns that a character or UTF-8 text without control characters takes: two for wide ones, none for those
// that join the one before.
std::uint32_t columns_of(std::uint32_t code);
std::uint32_t columns_of(std::string_view text);
// The text, or its beginning and "…" when it takes more columns.
std::string cut_to_columns(std::string_view text, std::uint32_t columns);

// While one lives, keys such as Ctrl-C aren't echoed as "^C" into what is being shown.
class QuietControlKeys {
 public:
  QuietControlKeys();
  ~QuietControlKeys();
  QuietControlKeys(const QuietControlKeys&) = delete;
  QuietControlKeys& operator=(const QuietControlKeys&) = delete;

 private:
  bool changed_ = false;
};

}  // namespace steelyard
