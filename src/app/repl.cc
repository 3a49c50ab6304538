#include "app/repl.h"

#include "app/common.h"
#include "app/interrupt.h"
#include "app/line_editor.h"
#include "app/output.h"
#include "base/error.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"
#include "model/config.h"

namespace steelyard {
namespace {

constexpr std::string_view kFence = R"(""")";
constexpr std::string_view kHelp =
    R"(Write a question and press Enter. """ begins and ends a text of several lines.
  /set parameter NAME VALUE   {}
  /set system TEXT            the system message, from the next answer on
  /set verbose | quiet        timings after each answer, or not
  /show info | parameters | system | template | plan
  /clear                      forget the conversation
  /bye                        leave (Ctrl-D does too)
Ctrl-C stops an answer.
)";

// Names of parameters, in lines under each other.
std::string parameter_names() {
  std::string text;
  std::size_t column = 0;
  for (const std::string_view name : answer_option_names()) {
    if (column > 64) text += ",\n" + std::string(30, ' '), column = 0;
    text += fmt::format("{}{}", column ? ", " : "", name);
    column += name.size() + 2;
  }
  return text;
}

std::string trim(std::string_view text) {
  const auto first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r\n") - first + 1));
}

// The first word and the rest.
std::pair<std::string, std::string> split_word(const std::string& text) {
  const auto space = text.find_first_of(" \t");
  if (space == std::string::npos) return {text, {}};
  return {text.substr(0, space), trim(text.substr(space))};
}

std::string unquote(std::string text) {
  for (const std::string_view quote : {kFence, std::string_view("\""), std::string_view("'")})
    if (text.size() >= 2 * quote.size() && text.starts_with(quote) && text.ends_with(quote))
      return text.substr(quote.size(), text.size() - 2 * quote.size());
  return text;
}

class Repl {
 public:
  Repl(ChatSession& session, bool verbose) : session_(session), verbose_(verbose) {}

  void run() {
    // Between an answer and the editor's next line, too, Ctrl-C doesn't end the program.
    const InterruptScope idle(false);
    print("{}\n", session_.raw()
                      ? "Write the beginning of a text; the model goes on. /help shows more, /bye leaves."
                      : "Write a message. /help shows more, /bye leaves.");
    while (running_) {
      const LineEditor::Line line = editor_.read(multi_line_.open() ? "... " : ">>> ");
      if (line.ending == LineEditor::Ending::end) break;
      if (line.ending == LineEditor::Ending::interrupt) {
        multi_line_.reset();
        note("/bye or Ctrl-D leaves");
      } else {
        take(line.text);
      }
    }
  }

 private:
  void take(const std::string& line) {
    if (!trim(line).empty()) editor_.remember(line);
    if (multi_line_.take(line)) {
      if (!multi_line_.open()) guarded([&] { answer(multi_line_.text()); });
      return;
    }
    const ReplLine parsed = parse_repl_line(line);
    guarded([&] {
      if (!parsed.command.empty())
        command(parsed);
      else if (!parsed.argument.empty())
        answer(parsed.argument);
    });
  }

  // An error ends what was asked, not the conversation.
  template <typename Fn>
  void guarded(Fn&& fn) {
    try {
      fn();
    } catch (const Error& e) {
      note("error: {}", e.what());
    }
  }

  void answer(const std::string& prompt) {
    const InterruptScope scope(false);
    const auto reply = session_.ask(prompt, [](std::string_view text) { write_stdout(text); });
    write_stdout(reply.text.ends_with('\n') ? "\n" : "\n\n");
    if (verbose_) write_stderr(timings_text(reply.answer, -1));
  }

  void command(const ReplLine& line) {
    if (line.command == "bye" || line.command == "exit")
      running_ = false;
    else if (line.command == "help" || line.command == "?")
      write_stdout(fmt::format(kHelp, parameter_names()));
    else if (line.command == "clear")
      session_.clear(), print("The conversation is forgotten.\n");
    else if (line.command == "set")
      set(line.argument);
    else if (line.command == "show")
      show(line.argument);
    else
      throw_error(ErrorKind::bad_input, "there is no command /{}; /help lists them", line.command);
  }

  void set(const std::string& argument) {
    const auto [what, value] = split_word(argument);
    if (what == "parameter") {
      const auto [name, number] = split_word(value);
      session_.settings().set(name, unquote(number));
    } else if (what == "system") {
      session_.set_system(unquote(value));
      if (session_.raw()) note("note: this model has no chat template, so a system message has no effect");
    } else if (what == "verbose" || what == "quiet") {
      verbose_ = what == "verbose";
    } else {
      throw_error(ErrorKind::bad_input, "/set knows parameter, system, verbose and quiet");
    }
  }

  void show(const std::string& what) {
    LoadedModel& model = session_.model();
    if (what == "info") {
      const ModelConfig& c = model.config();
      print("{}\n{}, {} layers, embedding {}, vocabulary {}\ncontext {} of {} trained, {} threads, {} mode\n",
            model.path().string(), c.architecture, c.layers.size(), c.n_embd, c.vocab_size,
            model.engine().context(), c.context_train, model.plan().threads, mode_name(model.plan().mode));
    } else if (what == "parameters") {
      for (const auto& text : session_.settings().list()) print("{}\n", text);
    } else if (what == "system") {
      print("{}\n", session_.system().empty() ? "There is no system message." : session_.system());
    } else if (what == "template") {
      print("{}\n",
            model.chat_template() ? model.chat_template()->source() : "The model has no chat template.");
    } else if (what == "plan") {
      print("{}", to_text(model.plan()));
    } else {
      throw_error(ErrorKind::bad_input, "/show knows info, parameters, system, template and plan");
    }
  }

  ChatSession& session_;
  bool verbose_;
  bool running_ = true;
  LineEditor editor_;
  MultiLine multi_line_;
};

}  // namespace

ReplLine parse_repl_line(const std::string& line) {
  const std::string text = trim(line);
  if (!text.starts_with('/')) return {{}, text};
  auto [word, rest] = split_word(text.substr(1));
  // A path or a bare slash is text.
  if (word.empty() || word.find('/') != std::string::npos) return {{}, text};
  return {std::move(word), std::move(rest)};
}

bool MultiLine::take(const std::string& line) {
  std::string_view rest = line;
  if (!open_) {
    if (!rest.starts_with(kFence)) return false;
    open_ = true;
    text_.clear();
    rest.remove_prefix(kFence.size());
  } else {
    text_ += '\n';
  }
  if (const auto end = rest.find(kFence); end != std::string_view::npos) {
    text_ += rest.substr(0, end);
    open_ = false;
  } else {
    text_ += rest;
  }
  return true;
}

void run_repl(ChatSession& session, bool verbose) { Repl(session, verbose).run(); }

}  // namespace steelyard
