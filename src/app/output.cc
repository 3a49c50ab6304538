#include "app/output.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "app/terminal.h"
#include "base/error.h"
#include "base/readable.h"

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

}  // namespace

void write_stdout(std::string_view text) {
  const int error =
      stdout_is_terminal() ? write_all(STDOUT_FILENO, visible(text)) : write_all(STDOUT_FILENO, text);
  if (error == EPIPE) throw BrokenPipe{};
  if (error) throw_error(ErrorKind::io, "can't write the output: {}", std::strerror(error));
}

void print_json(const nlohmann::ordered_json& value) {
  write_stdout(value.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n");
}

void write_stderr(std::string_view text) { write_all(STDERR_FILENO, visible(text)); }

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

void write_terminal_stderr(std::string_view text) { write_all(STDERR_FILENO, text); }

}  // namespace steelyard
