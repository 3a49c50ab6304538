#include "app/line_editor.h"

#include <histedit.h>
#include <langinfo.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <cwchar>
#include <filesystem>
#include <string_view>

#include "app/terminal.h"

namespace steelyard {
namespace fs = std::filesystem;

struct LineEditor::Impl {
  EditLine* editor = nullptr;
  History* history = nullptr;
  std::string prompt, file, last;
  bool interrupted = false;
  bool keep = true;
  bool can_paste = false;  // the terminal may mark what is pasted

  // Asks the terminal to mark pasted text, or not: programs that run after this one don't expect marks.
  void marks(bool on) const {
    if (!can_paste) return;
    std::fputs(on ? "\x1b[?2004h" : "\x1b[?2004l", stdout);
    std::fflush(stdout);
  }
};

namespace {

constexpr int kEntries = 1000;

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

// The file, open for reading and appending, readable by its owner only; no other session writes to it
// meanwhile.
class LockedFile {
 public:
  explicit LockedFile(const std::string& path) : file_(std::fopen(path.c_str(), "a+")) {
    if (!file_) return;
    ::fchmod(::fileno(file_), 0600);
    while (::flock(::fileno(file_), LOCK_EX) != 0 && errno == EINTR) {
    }
    std::fseek(file_, 0, SEEK_END);
  }
  ~LockedFile() {
    if (file_) std::fclose(file_);
  }
  LockedFile(const LockedFile&) = delete;
  LockedFile& operator=(const LockedFile&) = delete;
  std::FILE* get() const { return file_; }

 private:
  std::FILE* file_;
};

// Through a history of its own: libedit's "save the last N" has saved one more for years.
void append(const std::string& text, std::FILE* file) {
  History* one = history_init();
  HistEvent event;
  history(one, &event, H_SETSIZE, 1);
  history(one, &event, H_ENTER, text.c_str());
  history(one, &event, H_SAVE_FP, file);
  history_end(one);
}

// Entries are only appended; once there are far more than are used, the file begins again with the last.
void shorten(History* entries, const std::string& path) {
  std::error_code error;
  if (fs::file_size(path, error) < (1u << 20) || error) return;
  const LockedFile file(path);
  if (!file.get() || ::ftruncate(::fileno(file.get()), 0) != 0) return;
  HistEvent event;
  history(entries, &event, H_SAVE_FP, file.get());
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

// Ctrl-C reaches the editor as a key, so that it drops the line instead of ending the program.
template <typename Impl>
unsigned char drop_line(EditLine* editor, int) {
  impl_of<Impl>(editor).interrupted = true;
  return CC_EOF;
}

// Ctrl-Z is a key too: the terminal is put back as the shell had it, then the job stops, as the terminal
// itself would make it stop.
template <typename Impl>
unsigned char suspend(EditLine* editor, int) {
  const Impl& impl = impl_of<Impl>(editor);
  impl.marks(false);
  std::fputs("\n", stdout);
  std::fflush(stdout);
  el_set(editor, EL_PREP_TERM, 0);
  ::kill(0, SIGTSTP);
  el_set(editor, EL_PREP_TERM, 1);
  impl.marks(true);
  return CC_REDISPLAY;
}

// What the terminal sends between its marks goes into the line as it is, newlines too.
unsigned char paste(EditLine* editor, int) {
  static constexpr std::wstring_view kEnd = L"\x1b[201~";
  std::wstring text;
  wchar_t key = 0;
  while (!text.ends_with(kEnd) && el_wgetc(editor, &key) == 1)
    if (key != L'\0') text += key;
  if (text.ends_with(kEnd)) text.resize(text.size() - kEnd.size());
  std::wstring lines;
  for (std::size_t i = 0; i < text.size(); ++i) {  // terminals send Enter's key for a newline
    if (text[i] == L'\r' && i + 1 < text.size() && text[i + 1] == L'\n') continue;
    lines += text[i] == L'\r' ? L'\n' : text[i];
  }
  return el_winsertstr(editor, lines.c_str()) == 0 ? CC_REFRESH : CC_ERROR;
}

template <typename Impl>
void bind_keys(EditLine* editor) {
  el_set(editor, EL_EDITOR, "emacs");
  el_set(editor, EL_ADDFN, "drop-line", "Drop the line", &drop_line<Impl>);
  el_set(editor, EL_ADDFN, "suspend", "Stop the program", &suspend<Impl>);
  el_set(editor, EL_ADDFN, "paste", "Insert what was pasted", &paste);
  el_set(editor, EL_BIND, "^C", "drop-line", nullptr);
  el_set(editor, EL_BIND, "^Z", "suspend", nullptr);
  el_set(editor, EL_BIND, "\\e[200~", "paste", nullptr);
  el_set(editor, EL_BIND, "^R", "em-inc-search-prev", nullptr);
  el_set(editor, EL_SETTY, "-d", "-isig", nullptr);
}

}  // namespace

LineEditor::LineEditor() : impl_(std::make_unique<Impl>()) {
  want_utf8();
  Impl& i = *impl_;
  i.can_paste = stdout_is_terminal() && !terminal_is_dumb();
  i.editor = el_init("steelyard", stdin, stdout, stderr);
  i.history = history_init();
  HistEvent event;
  history(i.history, &event, H_SETSIZE, kEntries);
  history(i.history, &event, H_SETUNIQUE, 1);
  if (const char* off = std::getenv("STEELYARD_NOHISTORY"); off && *off) i.keep = false;
  i.file = history_file();
  if (!i.file.empty() && history(i.history, &event, H_LOAD, i.file.c_str()) >= 0) shorten(i.history, i.file);
  el_set(i.editor, EL_CLIENTDATA, &i);
  el_set(
      i.editor, EL_PROMPT, +[](EditLine* e) { return const_cast<char*>(impl_of<Impl>(e).prompt.c_str()); });
  el_set(i.editor, EL_HIST, history, i.history);
  bind_keys<Impl>(i.editor);
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
  el_resize(impl_->editor);  // the window may have another size now
  impl_->marks(true);
  const char* text = el_gets(impl_->editor, &count);
  impl_->marks(false);
  const bool ended = impl_->interrupted || !text || count <= 0;
  if (ended) {
    std::fputs("\n", stdout);
    std::fflush(stdout);
  }
  if (impl_->interrupted) {
    el_reset(impl_->editor);
    return {Ending::interrupt, {}};
  }
  if (ended) return {Ending::end, {}};
  std::string line(text, static_cast<std::size_t>(count));
  if (line.ends_with('\n')) line.pop_back();
  return {Ending::line, std::move(line)};
}

void LineEditor::remember(const std::string& text) {
  if (!impl_->keep || text == impl_->last) return;
  impl_->last = text;
  HistEvent event;
  history(impl_->history, &event, H_ENTER, text.c_str());
  if (impl_->file.empty()) return;
  const LockedFile file(impl_->file);
  if (file.get()) append(text, file.get());
}

void LineEditor::keep_history(bool on) { impl_->keep = on; }

}  // namespace steelyard
