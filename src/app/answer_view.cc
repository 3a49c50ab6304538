#include "app/answer_view.h"

#include "app/output.h"
#include "app/terminal.h"
#include "base/readable.h"

namespace steelyard {

AnswerView::AnswerView(bool wrap, bool silent)
    : progress_("reading the prompt", false, Progress::Unit::tokens, Progress::Kind::passing),
      silent_(silent) {
  if (wrap && stdout_is_terminal())
    wrap_.emplace([](std::string_view text) { write_stdout(text); }, terminal_columns);
}

void AnswerView::text(std::string_view part) {
  progress_.finish();
  if (silent_ || part.empty()) return;
  in_line_ = part.back() != '\n';
  if (wrap_)
    wrap_->add(visible(part));
  else
    write_stdout(part);
}

void AnswerView::finish() {
  progress_.finish();
  if (silent_) return;
  if (wrap_) wrap_->finish();
  if (in_line_) write_stdout("\n");
  in_line_ = false;
}

}  // namespace steelyard
