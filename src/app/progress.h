// How far something long has come, on stderr.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace steelyard {

// On a terminal one line with a bar, rate and time left, as wide as the terminal is at each update;
// elsewhere, and on a terminal that can't go back in its line, lines of their own every few seconds. One
// thread at a time.
class Progress {
 public:
  enum class Unit : std::uint8_t { bytes, tokens };
  enum class Kind : std::uint8_t {
    stays,   // its beginning and its end are said
    passing  // only said while it takes long; the line is wiped at the end
  };
  explicit Progress(std::string what, bool quiet = false, Unit unit = Unit::bytes, Kind kind = Kind::stays);
  void update(std::uint64_t done, std::uint64_t total);
  // Ends the bar's line. Also done by the destructor, so that an error starts on a line of its own.
  void finish();
  ~Progress() { finish(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

 private:
  using Clock = std::chrono::steady_clock;
  bool due(bool first, Clock::time_point now) const;
  void draw(Clock::time_point now);
  double seconds(Clock::time_point now) const;

  std::string what_;
  bool quiet_, terminal_;
  Unit unit_;
  Kind kind_;
  bool open_ = false;  // the bar's line isn't ended yet
  Clock::time_point start_{};
  Clock::time_point drawn_{};
  std::uint64_t first_ = 0, done_ = 0, total_ = 0;
};

// The bar's line in at most `columns` columns: what doesn't fit is shortened or left out, the name last.
// `rate`: of the unit, a second.
std::string progress_line(const std::string& what, std::uint64_t done, std::uint64_t total, double rate,
                          Progress::Unit unit, std::uint32_t columns);

// A line that says what is being done, such as the test of a bench; shown on a terminal only, until it is
// replaced or wiped.
class StatusLine {
 public:
  StatusLine() = default;
  ~StatusLine() { wipe(); }
  StatusLine(const StatusLine&) = delete;
  StatusLine& operator=(const StatusLine&) = delete;
  void show(const std::string& text);
  void wipe();

 private:
  bool shown_ = false;
};

}  // namespace steelyard
