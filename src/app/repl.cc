#include "app/repl.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <string_view>
#include <utility>

#include "app/answer_view.h"
#include "app/common.h"
#include "app/interrupt.h"
#include "app/line_editor.h"
#include "app/output.h"
#include "app/terminal.h"
#include "base/error.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"
#include "gguf/gguf.h"
#include "model/config.h"

namespace steelyard {
namespace {

constexpr std::string_view kFence = R"(""")";
constexpr std::string_view kHelp =
    R"(Write a question and press Enter. What is pasted is one message; so is what stands
between """ and """, over several lines.
  /set parameter NAME VALUE      {}
  /set system TEXT               the system message, from the next answer on
  /set verbose | quiet           timings after each answer, or not
  /set wordwrap | nowordwrap     break lines between words, or not
  /set history | nohistory       remember what is written here, or not
  /show info | parameters | system | template | license | plan
  /load MODEL                    go on with another model, in a new conversation
  /clear                         forget the conversation
  /bye                           leave (Ctrl-D does too)
  /help, /?                      this text
Ctrl-C stops an answer or drops a line; Ctrl-Z suspends the program.
Not built yet: /save, /set format, /set think, /show modelfile.
)";
constexpr std::array<std::string_view, 9> kCommands = {"bye",  "exit", "help", "?",   "clear",
                                                       "load", "save", "set",  "show"};

// Names of parameters, in lines under each other.
std::string parameter_names() {
  std::string text;
  std::size_t column = 0;
  auto names = answer_option_names();
  names.push_back("num_ctx (the tokens a conversation may reach)");
  for (const std::string_view name : names) {
    if (column + name.size() > 47) text += ",\n" + std::string(33, ' '), column = 0;
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
  const auto space = text.find_first_of(" \t\n");
  if (space == std::string::npos) return {text, {}};
  return {text.substr(0, space), trim(text.substr(space))};
}

std::string unquote(std::string text) {
  for (const std::string_view quote : {kFence, std::string_view("\""), std::string_view("'")})
    if (text.size() >= 2 * quote.size() && text.starts_with(quote) && text.ends_with(quote))
      return text.substr(quote.size(), text.size() - 2 * quote.size());
  return text;
}

[[noreturn]] void not_built(std::string_view what) {
  throw_error(ErrorKind::unsupported, "{} isn't built yet", what);
}

class Repl {
 public:
  Repl(std::unique_ptr<LoadedModel> model, ReplOptions options)
      : options_(std::move(options)),
        model_(std::move(model)),
        session_(*model_, options_.settings, options_.raw) {
    session_.set_system(options_.system);
    session_.set_beginning(options_.beginning);
  }

  void run() {
    // Between an answer and the editor's next line, too, Ctrl-C doesn't end the program.
    const InterruptScope idle(false);
    greet();
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
  void greet() const {
    print("{}\n", session_.raw()
                      ? "Write the beginning of a text; the model goes on. /help shows more, /bye leaves."
                      : "Write a message. /help shows more, /bye leaves.");
  }

  void take(const std::string& line) {
    const bool pasted = trim(line).find('\n') != std::string::npos;
    if (multi_line_.open() || !pasted) {
      const bool block = take_block(line, pasted);
      if (block) return;
    }
    if (!trim(line).empty()) editor_.remember(trim(line));
    const ReplLine parsed = parse_repl_line(line);
    guarded([&] {
      if (!parsed.command.empty())
        command(parsed);
      else if (!parsed.argument.empty())
        answer(parsed.argument);
    });
  }

  // A line of a """ block; the history has the block as one entry.
  bool take_block(const std::string& line, bool pasted) {
    if (pasted)
      multi_line_.take_pasted(line);
    else if (!multi_line_.take(line))
      return false;
    if (multi_line_.open()) return true;
    const std::string text = multi_line_.text();
    if (trim(text).empty()) return true;
    editor_.remember(text.find('\n') == std::string::npos ? fmt::format("{0}{1}{0}", kFence, text) : text);
    guarded([&] { answer(text); });
    return true;
  }

  // An error ends what was asked, not the conversation; without a model there is none.
  template <typename Fn>
  void guarded(Fn&& fn) {
    try {
      fn();
    } catch (const Error& e) {
      if (!model_) throw;
      note("error: {}", e.what());
    }
  }

  void answer(const std::string& prompt) {
    const InterruptScope scope(false);
    const QuietControlKeys keys;
    AnswerView view(options_.word_wrap);
    ChatSession::Reply reply;
    try {
      reply = session_.ask(
          prompt, [&](std::string_view text) { view.text(text); },
          [&](std::uint32_t read, std::uint32_t total) { view.prompt_read(read, total); });
    } catch (const Error&) {
      view.finish();
      throw;
    }
    view.finish();
    const std::string cut = cut_text(reply.answer, session_.settings().num_predict, session_.context());
    if (!cut.empty()) note("note: {}", cut);
    if (reply.dropped_turns > 0 && !std::exchange(told_of_dropping_, true))
      note(
          "note: the conversation outgrew its context of {} tokens: from here on its oldest turns are left "
          "out\n"
          "(/set parameter num_ctx NUMBER makes it larger)",
          session_.context());
    print("\n");
    if (options_.verbose) write_stderr(timings_text(reply.answer, -1));
  }

  void command(const ReplLine& line) {
    if (line.command == "bye" || line.command == "exit")
      running_ = false;
    else if (line.command == "help" || line.command == "?")
      write_stdout(fmt::format(kHelp, parameter_names()));
    else if (line.command == "clear")
      forget(), print("The conversation is forgotten.\n");
    else if (line.command == "set")
      set(line.argument);
    else if (line.command == "show")
      show(line.argument);
    else if (line.command == "load")
      load(line.argument);
    else if (line.command == "save")
      not_built("/save, which would keep the session in the store,");
    else
      throw_error(ErrorKind::bad_input, "there is no command /{}; /help lists them", line.command);
  }

  void forget() {
    session_.clear();
    told_of_dropping_ = false;
  }

  void load(const std::string& name) {
    if (name.empty()) throw_error(ErrorKind::bad_input, "/load wants the name of a model or file");
    exchange(name, 0);
    forget();
    options_.model = name;
    greet();
  }

  // The old model goes first, as there may be no room for two; it comes back when the new one can't be
  // loaded.
  void exchange(const std::string& name, std::uint32_t context) {
    const std::uint32_t before = model_->engine().context();
    model_.reset();
    try {
      model_ = options_.load(name, context);
    } catch (const Error& e) {
      note("error: {}; going back to {}", e.what(), options_.model);
      model_ = options_.load(options_.model, before);
    }
    session_.set_model(*model_);
    session_.limit_context(0);
  }

  void set(const std::string& argument) {
    const auto [what, value] = split_word(argument);
    if (what == "parameter") {
      const auto [name, number] = split_word(value);
      if (name == "num_ctx")
        set_context(number);
      else
        session_.settings().set(name, unquote(number));
    } else if (what == "system") {
      session_.set_system(unquote(value));
      if (session_.raw()) note("note: this model has no chat template, so a system message has no effect");
    } else if (what == "verbose" || what == "quiet") {
      options_.verbose = what == "verbose";
    } else if (what == "wordwrap" || what == "nowordwrap") {
      options_.word_wrap = what == "wordwrap";
    } else if (what == "history" || what == "nohistory") {
      editor_.keep_history(what == "history");
    } else if (what == "format" || what == "noformat" || what == "think" || what == "nothink") {
      not_built("/set " + what);
    } else {
      throw_error(
          ErrorKind::bad_input,
          "/set knows parameter, system, verbose, quiet, wordwrap, nowordwrap, history and nohistory");
    }
  }

  // Fewer tokens than the model was loaded with are a limit; for more it is loaded again.
  void set_context(const std::string& text) {
    std::uint32_t tokens = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), tokens);
    if (error != std::errc() || end != text.data() + text.size() || tokens < 8 || tokens > 1u << 24)
      throw_error(ErrorKind::bad_input, "num_ctx wants a whole number from 8 to {}, not '{}'", 1 << 24, text);
    if (tokens > model_->engine().context()) exchange(options_.model, tokens);
    session_.limit_context(tokens);
    print("The conversation may reach {} tokens.\n", session_.context());
  }

  void show(const std::string& what) {
    if (what == "info") {
      show_info();
    } else if (what == "parameters") {
      print("num_ctx            {}\n", session_.context());
      for (const auto& text : session_.settings().list(session_.model().answer_defaults()))
        print("{}\n", text);
    } else if (what == "system") {
      print("{}\n", session_.system().empty() ? "There is no system message." : session_.system());
    } else if (what == "template") {
      print("{}\n",
            model_->chat_template() ? model_->chat_template()->source() : "The model has no chat template.");
    } else if (what == "plan") {
      print("{}", to_text(model_->plan()));
    } else if (what == "license") {
      const auto license = GgufFile::open(model_->path()).metadata().find_string("general.license");
      print("{}\n", license ? *license : "The file names no license.");
    } else if (what == "modelfile") {
      not_built("/show modelfile");
    } else {
      throw_error(ErrorKind::bad_input, "/show knows info, parameters, system, template, license and plan");
    }
  }

  void show_info() const {
    const ModelConfig& c = model_->config();
    print("{}\n{}, {} layers, embedding {}, vocabulary {}\ncontext {} of {} trained, {} threads, {} mode\n",
          model_->path().string(), c.architecture, c.layers.size(), c.n_embd, c.vocab_size,
          session_.context(), c.context_train, model_->plan().threads, mode_name(model_->plan().mode));
  }

  ReplOptions options_;
  std::unique_ptr<LoadedModel> model_;
  ChatSession session_;
  bool running_ = true;
  bool told_of_dropping_ = false;
  LineEditor editor_;
  MultiLine multi_line_;
};

}  // namespace

ReplLine parse_repl_line(const std::string& line) {
  const std::string text = trim(line);
  if (!text.starts_with('/')) return {{}, text};
  auto [word, rest] = split_word(text.substr(1));
  const bool known = std::ranges::find(kCommands, word) != kCommands.end();
  const bool several = text.find('\n') != std::string::npos;
  // A path, a comment or a bare slash is text.
  const auto letter = [](unsigned char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); };
  if (!known && (several || word.empty() || !std::ranges::all_of(word, letter))) return {{}, text};
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
    text_ += rest.substr(end + kFence.size());
    open_ = false;
  } else {
    text_ += rest;
  }
  return true;
}

void MultiLine::take_pasted(const std::string& text) {
  std::string_view rest = text;
  if (rest.ends_with(kFence)) {
    rest.remove_suffix(kFence.size());
    open_ = false;
  }
  text_ += '\n';
  text_ += rest;
}

void run_repl(std::unique_ptr<LoadedModel> model, ReplOptions options) {
  Repl(std::move(model), std::move(options)).run();
}

}  // namespace steelyard
