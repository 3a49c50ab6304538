// The conversation at a terminal: lines, """ blocks and /commands.
#pragma once

#include <string>

#include "app/chat_session.h"

namespace steelyard {

// What a line asks for: a command and its argument, or a prompt (command empty).
struct ReplLine {
  std::string command;   // "set", "show", "clear", "bye", "help", or what else stood after the '/'
  std::string argument;  // the rest, without white space around it; or the prompt
};
ReplLine parse_repl_line(const std::string& line);

// Collects lines between two """; text on the same lines counts.
class MultiLine {
 public:
  bool open() const { return open_; }
  const std::string& text() const { return text_; }
  // True when `line` belongs to a block (begins, continues or ends one); then text() is whole once open() is
  // false.
  bool take(const std::string& line);
  void reset() { open_ = false, text_.clear(); }

 private:
  bool open_ = false;
  std::string text_;
};

// Until /bye or Ctrl-D. Ctrl-C stops an answer or drops a line.
void run_repl(ChatSession& session, bool verbose);

}  // namespace steelyard
