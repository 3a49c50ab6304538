#include "app/output.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/error.h"
#include "base/readable.h"
#include "base/units.h"

namespace steelyard {
namespace {

// 0, or the errno of the failure.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    text.remove_prefix(static_cast<std::size_t>(n));
  }
  return 0;
}

std::string duration_text(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  if (s >= 3600) return fmt::format("{}:{:02}:{:02}", s / 3600, s / 60 % 60, s % 60);
  return fmt::format("{}:{:02}", s / 60, s % 60);
}

}  // namespace

void write_stdout(std::string_view text) {
  const int error = write_all(STDOUT_FILENO, text);
  if (error == EPIPE) throw BrokenPipe{};
  if (error) throw_error(ErrorKind::io, "can't write the output: {}", std::strerror(error));
}

void print_json(const nlohmann::ordered_json& value) {
  write_stdout(value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void write_stderr(std::string_view text) { write_all(STDERR_FILENO, text); }

void write_note(std::string_view text) {
  constexpr std::size_t kMostOfALine = 4096;
  std::string out;
  for (bool more = true; more;) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    out += readable(text.substr(0, end), kMostOfALine) + '\n';
    more = end < text.size();
    text.remove_prefix(more ? end + 1 : end);
  }
  write_stderr(out);
}

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO); }
bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO); }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO); }

Progress::Progress(std::string what, bool quiet)
    : what_(std::move(what)), quiet_(quiet), terminal_(stderr_is_terminal()) {}

void Progress::update(std::uint64_t done, std::uint64_t total) {
  if (quiet_ || total == 0) return;
  const auto now = Clock::now();
  const bool first = total_ == 0;
  const bool last = done >= total && done_ < total_;
  const auto pause = terminal_ ? std::chrono::milliseconds(80) : std::chrono::milliseconds(5000);
  done_ = std::min(done, total);
  total_ = total;
  if (first) {
    start_ = now;
    if (!terminal_) note("{}: {}", what_, size_text(total));
  }
  if (!last && !(first && terminal_) && (first || now - drawn_ < pause)) {
    if (first) drawn_ = now;
    return;
  }
  drawn_ = now;
  draw(done_, total_, std::chrono::duration<double>(now - start_).count());
}

void Progress::draw(std::uint64_t done, std::uint64_t total, double seconds) {
  const double part = static_cast<double>(done) / static_cast<double>(total);
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double left = rate > 0 ? static_cast<double>(total - done) / rate : 0;
  const std::string figures = fmt::format("{:3.0f} %  {} of {}  {:.2f} GB/s", 100 * part, size_text(done),
                                          size_text(total), rate / 1e9);
  if (!terminal_) {
    if (done < total) note("{}: {}, {} left", what_, figures, duration_text(left));
    return;
  }
  constexpr int kWidth = 24;
  const int filled = static_cast<int>(part * kWidth);
  const std::string bar = std::string(filled, '#') + std::string(kWidth - filled, '.');
  write_stderr(fmt::format("\r{} [{}] {}  {} left\x1b[K", what_, bar, figures, duration_text(left)));
  open_ = true;
}

void Progress::finish() {
  if (quiet_ || total_ == 0) return;
  const double seconds = std::chrono::duration<double>(Clock::now() - start_).count();
  if (open_) {
    draw(done_, total_, seconds);
    write_stderr("\n");
  } else if (!terminal_ && done_ == total_) {
    note("{}: done in {:.2f} s, {:.2f} GB/s", what_, seconds,
         seconds > 0 ? static_cast<double>(total_) / seconds / 1e9 : 0.0);
  }
  total_ = 0;
  open_ = false;
}

}  // namespace steelyard
