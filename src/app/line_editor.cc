#include "app/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <unistd.h>

#include <clocale>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>

namespace steelyard {
namespace fs = std::filesystem;

struct LineEditor::Impl {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string prompt, file;
  bool interrupted = false;
};

namespace {

std::string history_file() {
  fs::path state;
  if (const char* dir = std::getenv("XDG_STATE_HOME"); dir && *dir)
    state = dir;
  else if (const char* home = std::getenv("HOME"); home && *home)
    state = fs::path(home) / ".local" / "state";
  else
    return {};
  std::error_code error;
  fs::create_directories(state / "steelyard", error);
  return error ? std::string() : (state / "steelyard" / "history").string();
}

// libedit reads wide characters by the locale; a bare system's "C" would break everything beyond ASCII.
void want_utf8() {
  std::setlocale(LC_CTYPE, "");
  if (std::strcmp(nl_langinfo(CODESET), "UTF-8") != 0) std::setlocale(LC_CTYPE, "C.UTF-8");
}

// The client data of the editor is its Impl.
template <typename Impl>
Impl& impl_of(EditLine* editor) {
  void* data = nullptr;
  el_get(editor, EL_CLIENTDATA, &data);
  return *static_cast<Impl*>(data);
}

}  // namespace

LineEditor::LineEditor() : impl_(std::make_unique<Impl>()) {
  want_utf8();
  Impl& i = *impl_;
  i.editor = el_init("steelyard", stdin, stdout, stderr);
  i.history = history_init();
  HistEvent event;
  history(i.history, &event, H_SETSIZE, 1000);
  history(i.history, &event, H_SETUNIQUE, 1);
  i.file = history_file();
  if (!i.file.empty()) history(i.history, &event, H_LOAD, i.file.c_str());
  el_set(i.editor, EL_CLIENTDATA, &i);
  el_set(
      i.editor, EL_PROMPT, +[](EditLine* e) { return const_cast<char*>(impl_of<Impl>(e).prompt.c_str()); });
  el_set(i.editor, EL_HIST, history, i.history);
  el_set(i.editor, EL_EDITOR, "emacs");
  // Ctrl-C reaches the editor as a key, so that it drops the line instead of ending the program.
  el_set(
      i.editor, EL_ADDFN, "drop-line", "Drop the line", +[](EditLine* e, int) -> unsigned char {
        impl_of<Impl>(e).interrupted = true;
        return CC_EOF;
      });
  el_set(i.editor, EL_BIND, "^C", "drop-line", nullptr);
  el_set(i.editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(i.editor, EL_SETTY, "-d", "-isig", nullptr);
  el_source(i.editor, nullptr);
}

LineEditor::~LineEditor() {
  history_end(impl_->history);
  el_end(impl_->editor);
}

LineEditor::Line LineEditor::read(const std::string& prompt) {
  impl_->prompt = prompt;
  impl_->interrupted = false;
  int count = 0;
  const char* text = el_gets(impl_->editor, &count);
  if (impl_->interrupted) {
    std::fputs("\n", stdout);
    std::fflush(stdout);
    el_reset(impl_->editor);
    return {Ending::interrupt, {}};
  }
  if (!text || count <= 0) return {Ending::end, {}};
  std::string line(text, static_cast<std::size_t>(count));
  if (line.ends_with('\n')) line.pop_back();
  return {Ending::line, std::move(line)};
}

void LineEditor::remember(const std::string& text) {
  HistEvent event;
  history(impl_->history, &event, H_ENTER, text.c_str());
  if (!impl_->file.empty()) history(impl_->history, &event, H_SAVE, impl_->file.c_str());
}

}  // namespace steelyard
