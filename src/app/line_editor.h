// Lines from a person at a terminal, with editing and a history kept in a file (libedit).
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace steelyard {

class LineEditor {
 public:
  // The history lives in ${XDG_STATE_HOME:-~/.local/state}/steelyard/history, to which every session appends;
  // without one that can be written it just isn't kept. $STEELYARD_NOHISTORY: it begins switched off.
  LineEditor();
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Ending { line, interrupt, end };  // Enter, Ctrl-C, Ctrl-D on an empty line
  struct Line {
    Ending ending;
    // Without the newline that ended it. Holds newlines where it was pasted as one (bracketed paste) or comes
    // from the history.
    std::string text;
  };
  // Ctrl-Z stops the program as in a shell; its line is there again when it goes on.
  Line read(const std::string& prompt);
  void remember(const std::string& text);
  void keep_history(bool on);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
