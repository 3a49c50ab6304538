// What commands print: results on stdout, everything else on stderr. One thread at a time.
//
// Names and texts come from files and models, so control characters in them are shown, not obeyed: on stderr
// always, on stdout where it is a terminal. Pipes and files get every byte as it is.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace steelyard {

// Thrown when the reader of stdout has gone; main() then ends quietly.
struct BrokenPipe {};

// Writes all of it to stdout, unbuffered; whole UTF-8 characters. Throws BrokenPipe, or Error(io) when the
// disk is full and the like.
void write_stdout(std::string_view text);

template <typename... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
  write_stdout(fmt::format(format, std::forward<Args>(args)...));
}
// An indented object and a newline; bytes that aren't UTF-8 come out as U+FFFD.
void print_json(const nlohmann::ordered_json& value);

// To stderr; failures are ignored.
void write_stderr(std::string_view text);
// Lines for stderr. Names and texts of foreign files may be in them, so control characters are escaped and
// very long lines cut.
void write_note(std::string_view text);
// The program's own control sequences.
void write_terminal_stderr(std::string_view text);
template <typename... Args>
void note(fmt::format_string<Args...> format, Args&&... args) {
  write_note(fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace steelyard
