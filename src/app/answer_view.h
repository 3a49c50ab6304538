// An answer on its way to the person who asked.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "app/chat_session.h"
#include "app/progress.h"
#include "app/word_wrap.h"

namespace steelyard {

// Shows how far a long prompt is read, then the answer's text on stdout: on a terminal with its control
// characters shown and, if wanted, broken between words; elsewhere byte by byte. One thread; an answer each.
class AnswerView {
 public:
  // `silent`: only the progress.
  explicit AnswerView(bool wrap, bool silent = false);

  void prompt_read(std::uint32_t read, std::uint32_t total) { progress_.update(read, total); }
  void text(std::string_view part);
  // Ends the line that the answer left open.
  void finish();

 private:
  Progress progress_;
  bool silent_;
  std::optional<WordWrap> wrap_;
  bool in_line_ = false;
};

}  // namespace steelyard
