// What commands print: results on stdout, everything else on stderr. One thread at a time.
#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>

namespace steelyard {

// Thrown when the reader of stdout has gone; main() then ends quietly.
struct BrokenPipe {};

// Writes all of it to stdout, unbuffered. Throws BrokenPipe, or Error(io) when the disk is full and the like.
void write_stdout(std::string_view text);

template <typename... Args>
void print(fmt::format_string<Args...> format, Args&&... args) {
  write_stdout(fmt::format(format, std::forward<Args>(args)...));
}
// An indented object and a newline; bytes that aren't UTF-8 come out as U+FFFD.
void print_json(const nlohmann::ordered_json& value);

// To stderr, as it is; failures are ignored.
void write_stderr(std::string_view text);
// Lines for stderr. Names and texts of foreign files may be in them, so control characters are escaped and
// very long lines cut.
void write_note(std::string_view text);
template <typename... Args>
void note(fmt::format_string<Args...> format, Args&&... args) {
  write_note(fmt::format(format, std::forward<Args>(args)...));
}

bool stdin_is_terminal();
bool stdout_is_terminal();
bool stderr_is_terminal();

// Progress of something counted in bytes, on stderr: on a terminal one bar with rate and time left, elsewhere
// a line at the start, every few seconds, and at the end.
class Progress {
 public:
  explicit Progress(std::string what, bool quiet = false);
  void update(std::uint64_t done, std::uint64_t total);
  // Ends the bar's line. Also done by the destructor, so that an error starts on a line of its own.
  void finish();
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  void draw(std::uint64_t done, std::uint64_t total, double seconds);

  std::string what_;
  bool quiet_;
  bool terminal_;
  bool open_ = false;  // the bar's line isn't ended yet
  Clock::time_point start_ = Clock::now();
  Clock::time_point drawn_{};
  std::uint64_t done_ = 0, total_ = 0;
};

}  // namespace steelyard
