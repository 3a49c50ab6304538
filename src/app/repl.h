// The conversation at a terminal: lines, """ blocks and /commands.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "app/chat_session.h"
#include "engine/loaded_model.h"

namespace steelyard {

// What a line asks for: a command and its argument, or a prompt (command empty).
struct ReplLine {
  std::string command;   // "set", "show", "clear", "bye", "help", or what else stood after the '/'
  std::string argument;  // the rest, without white space around it; or the prompt
};
// A line of several lines (pasted) is a command only if it begins with the name of one.
ReplLine parse_repl_line(const std::string& line);

// Collects lines between two """; text on the same lines counts, before and behind them.
class MultiLine {
 public:
  bool open() const { return open_; }
  const std::string& text() const { return text_; }
  // True when `line` belongs to a block (begins, continues or ends one); then text() is whole once open() is
  // false.
  bool take(const std::string& line);
  // Pasted text in an open block: it's text as it stands, but for """ at its very end.
  void take_pasted(const std::string& text);
  void reset() { open_ = false, text_.clear(); }

 private:
  bool open_ = false;
  std::string text_;
};

struct ReplOptions {
  AnswerSettings settings;
  std::string system;
  nlohmann::ordered_json beginning = nlohmann::ordered_json::array();  // messages
  std::string model;                                                   // as the user named it
  bool raw = false, verbose = false, word_wrap = true;
  // Loads a model; context 0: as the command line says.
  std::function<std::unique_ptr<LoadedModel>(const std::string& model, std::uint32_t context)> load;
};

// Until /bye or Ctrl-D. Ctrl-C stops an answer or drops a line.
void run_repl(std::unique_ptr<LoadedModel> model, ReplOptions options);

}  // namespace steelyard
