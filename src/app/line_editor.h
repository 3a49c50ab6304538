// Lines from a person at a terminal, with editing and a history kept in a file (libedit).
#pragma once

#include <memory>
#include <optional>
#include <string>

namespace steelyard {

class LineEditor {
 public:
  // The history lives in ${XDG_STATE_HOME:-~/.local/state}/steelyard/history; without one that can be written
  // it just isn't kept.
  LineEditor();
  ~LineEditor();
  LineEditor(const LineEditor&) = delete;
  LineEditor& operator=(const LineEditor&) = delete;

  enum class Ending { line, interrupt, end };  // Enter, Ctrl-C, Ctrl-D on an empty line
  struct Line {
    Ending ending;
    std::string text;  // without the newline
  };
  Line read(const std::string& prompt);
  void remember(const std::string& text);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
