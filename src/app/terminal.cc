#include "app/terminal.h"

#include <locale.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include <wchar.h>

#include <cstdlib>
#include <cstring>

#include "base/utf8.h"

namespace steelyard {

bool stdin_is_terminal() { return ::isatty(STDIN_FILENO); }
bool stdout_is_terminal() { return ::isatty(STDOUT_FILENO); }
bool stderr_is_terminal() { return ::isatty(STDERR_FILENO); }

bool terminal_is_dumb() {
  const char* name = std::getenv("TERM");
  return name == nullptr || *name == '\0' || std::strcmp(name, "dumb") == 0;
}

std::uint32_t terminal_columns() {
  for (const int fd : {STDERR_FILENO, STDOUT_FILENO, STDIN_FILENO}) {
    winsize size{};
    if (::ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  }
  return 80;
}

std::uint32_t columns_of(std::uint32_t code) {
  // The C library knows the widths, but only in a locale that knows the characters.
  static const locale_t utf8 = ::newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  if (code < 0x7f || !utf8) return 1;
  const locale_t before = ::uselocale(utf8);
  const int columns = ::wcwidth(static_cast<wchar_t>(code));
  ::uselocale(before);
  return columns < 0 ? 1 : static_cast<std::uint32_t>(columns);
}

std::uint32_t columns_of(std::string_view text) {
  std::uint32_t sum = 0;
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    sum += columns_of(next.code);
    text.remove_prefix(next.length);
  }
  return sum;
}

std::string cut_to_columns(std::string_view text, std::uint32_t columns) {
  if (columns_of(text) <= columns) return std::string(text);
  std::string out;
  std::uint32_t sum = 1;  // of the "…"
  while (!text.empty()) {
    const Utf8Char next = decode_utf8(text);
    if ((sum += columns_of(next.code)) > columns) break;
    out += text.substr(0, next.length);
    text.remove_prefix(next.length);
  }
  return columns > 0 ? out + "…" : std::string();
}

QuietControlKeys::QuietControlKeys() {
  termios mode{};
  // Only where this is the job in the foreground: another must not be stopped for touching the terminal.
  if (::tcgetattr(STDIN_FILENO, &mode) != 0 || ::tcgetpgrp(STDIN_FILENO) != ::getpgrp()) return;
  if ((mode.c_lflag & ECHOCTL) == 0) return;
  mode.c_lflag &= ~static_cast<tcflag_t>(ECHOCTL);
  changed_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
}

QuietControlKeys::~QuietControlKeys() {
  termios mode{};
  if (!changed_ || ::tcgetattr(STDIN_FILENO, &mode) != 0 || ::tcgetpgrp(STDIN_FILENO) != ::getpgrp()) return;
  mode.c_lflag |= ECHOCTL;
  ::tcsetattr(STDIN_FILENO, TCSANOW, &mode);
}

}  // namespace steelyard
