#include "app/top_terminal.h"

#include <ncurses.h>
#include <stdio.h>

#include <algorithm>
#include <cstdlib>

#include "base/error.h"

namespace steelyard {
namespace {

constexpr int kCtrlC = 3;

SCREEN* open_screen() {
  SCREEN* screen = newterm(nullptr, stdout, stdin);
  const char* name = std::getenv("TERM");
  if (!screen)
    throw_error(ErrorKind::io, "the terminal '{}' isn't known: set TERM, or use --once", name ? name : "");
  return screen;
}

TopKey key_of(int c) {
  switch (c) {
    case 'q':
    case kCtrlC:
      return TopKey::quit;
    case 'f':
    case ' ':
      return TopKey::freeze;
    case 's':
      return TopKey::sort;
    case 'm':
      return TopKey::map;
    case KEY_UP:
    case 'k':
      return TopKey::up;
    case KEY_DOWN:
    case 'j':
      return TopKey::down;
    default:
      return TopKey::none;
  }
}

}  // namespace

TopTerminal::TopTerminal() {
  set_term(open_screen());
  raw();  // Ctrl-C is a key: the terminal is given back before the end
  noecho();
  keypad(stdscr, TRUE);
  curs_set(0);
}

TopTerminal::~TopTerminal() { endwin(); }

void TopTerminal::draw(const TopData& data, const TopView& view) {
  erase();
  const auto width = static_cast<std::size_t>(std::max(1, COLS)),
             height = static_cast<std::size_t>(std::max(2, LINES));
  int row = 0;
  for (const TopLine& line : top_lines(data, view, width, height)) {
    if (line.bright) attron(A_BOLD);
    if (line.chosen) attron(A_REVERSE);
    mvaddnstr(row++, 0, line.text.c_str(), static_cast<int>(line.text.size()));
    attroff(A_BOLD | A_REVERSE);
  }
  refresh();
}

TopKey TopTerminal::key(std::chrono::steady_clock::time_point until) {
  const auto left =
      std::chrono::duration_cast<std::chrono::milliseconds>(until - std::chrono::steady_clock::now());
  wtimeout(stdscr, static_cast<int>(std::max<std::int64_t>(1, left.count())));
  return key_of(getch());
}

}  // namespace steelyard
