#include "app/progress.h"

#include <algorithm>

#include "app/output.h"
#include "app/terminal.h"
#include "base/readable.h"
#include "base/units.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kMostBar = 24, kLeastBar = 8, kLeastName = 12;
constexpr auto kPassingShownAfter = std::chrono::milliseconds(500);

std::string duration_text(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

std::string rate_text(double rate, Progress::Unit unit) {
  if (unit == Progress::Unit::bytes) return fmt::format("{:.2f} GB/s", rate / 1e9);
  return fmt::format("{:.1f} tokens/s", rate);
}

std::string amount_text(std::uint64_t done, std::uint64_t total, Progress::Unit unit) {
  if (unit == Progress::Unit::bytes) return fmt::format("{} of {}", size_text(done), size_text(total));
  return fmt::format("{} of {} tokens", done, total);
}

struct Figures {
  std::string percent, amount, rate, left;
};
Figures figures(std::uint64_t done, std::uint64_t total, double rate, Progress::Unit unit) {
  const double part =
      100 * static_cast<double>(done) / static_cast<double>(std::max<std::uint64_t>(1, total));
  const double left = rate > 0 ? static_cast<double>(total - done) / rate : 0;
  return {fmt::format("{:3.0f} %", part), amount_text(done, total, unit), rate_text(rate, unit),
          rate > 0 ? duration_text(left) + " left" : std::string()};
}

}  // namespace

std::string progress_line(const std::string& what, std::uint64_t done, std::uint64_t total, double rate,
                          Progress::Unit unit, std::uint32_t columns) {
  const Figures f = figures(done, total, rate, unit);
  // From all of them to the percentage alone: the first with room for a name.
  std::string text;
  for (const auto& shown : {fmt::format("{}  {}  {}  {}", f.percent, f.amount, f.rate, f.left),
                            fmt::format("{}  {}  {}", f.percent, f.amount, f.left),
                            fmt::format("{}  {}", f.percent, f.left), f.percent}) {
    text = shown;
    if (columns_of(text) + kLeastName + 1 <= columns) break;
  }
  const std::uint32_t taken = columns_of(text) + 1;
  if (taken + 1 >= columns) return cut_to_columns(text, columns);
  const std::string name = cut_to_columns(what, columns - taken);
  const std::uint32_t used = taken + columns_of(name);
  if (used + kLeastBar + 3 > columns) return name + " " + text;
  const std::uint32_t width = std::min(kMostBar, columns - used - 3);
  const auto filled = static_cast<std::uint32_t>(done * width / std::max<std::uint64_t>(1, total));
  return fmt::format("{} [{}{}] {}", name, std::string(filled, '#'), std::string(width - filled, '.'), text);
}

Progress::Progress(std::string what, bool quiet, Unit unit, Kind kind)
    : what_(readable(what, 200)),
      quiet_(quiet),
      terminal_(stderr_is_terminal() && !terminal_is_dumb()),
      unit_(unit),
      kind_(kind) {}

double Progress::seconds(Clock::time_point now) const {
  return std::chrono::duration<double>(now - start_).count();
}

bool Progress::due(bool first, Clock::time_point now) const {
  if (kind_ == Kind::passing && now - start_ < kPassingShownAfter) return false;
  if (terminal_) return first || now - drawn_ >= std::chrono::milliseconds(80);
  return now - drawn_ >= std::chrono::seconds(5);
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  if (quiet_ || total == 0) return;
  const auto now = Clock::now();
  const bool first = total_ == 0;
  const bool last = done >= total && done_ < total_ && terminal_ && kind_ == Kind::stays;
  done_ = std::min(done, total);
  total_ = total;
  if (first) {
    start_ = now;
    first_ = done_;
    if (!terminal_) drawn_ = now;
    if (!terminal_ && kind_ == Kind::stays)
      note("{}: {}", what_, unit_ == Unit::bytes ? size_text(total) : fmt::format("{} tokens", total));
  }
  if (last || due(first, now)) draw(now);
}

void Progress::draw(Clock::time_point now) {
  drawn_ = now;
  const double rate = seconds(now) > 0 ? static_cast<double>(done_ - first_) / seconds(now) : 0;
  if (terminal_) {
    // A full line would move the cursor to the next in some terminals.
    const std::uint32_t columns = std::max(terminal_columns(), 2u) - 1;
    write_terminal_stderr(
        fmt::format("\r{}\x1b[K", progress_line(what_, done_, total_, rate, unit_, columns)));
    open_ = true;
  } else if (done_ < total_) {
    const Figures f = figures(done_, total_, rate, unit_);
    note("{}: {}, {}, {}, {}", what_, f.percent.substr(f.percent.find_first_not_of(' ')), f.amount, f.rate,
         f.left);
  }
}

void Progress::finish() {
  if (quiet_ || total_ == 0) return;
  const auto now = Clock::now();
  if (open_ && kind_ == Kind::passing) {
    write_terminal_stderr("\r\x1b[K");
  } else if (open_) {
    draw(now);
    write_terminal_stderr("\n");
  } else if (!terminal_ && kind_ == Kind::stays && done_ == total_) {
    note("{}: done in {:.2f} s, {}", what_, seconds(now),
         rate_text(seconds(now) > 0 ? static_cast<double>(total_) / seconds(now) : 0, unit_));
  }
  total_ = 0;
  open_ = false;
}

void StatusLine::show(const std::string& text) {
  if (!stderr_is_terminal() || terminal_is_dumb()) return;
  const std::uint32_t columns = std::max(terminal_columns(), 2u) - 1;
  write_terminal_stderr(fmt::format("\r{}\x1b[K", cut_to_columns(readable(text, 400), columns)));
  shown_ = true;
}

void StatusLine::wipe() {
  if (shown_) write_terminal_stderr("\r\x1b[K");
  shown_ = false;
}

}  // namespace steelyard
