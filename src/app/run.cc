// steelyard run
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "api/stored_defaults.h"
#include "app/answer_view.h"
#include "app/chat_session.h"
#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/progress.h"
#include "app/repl.h"
#include "app/terminal.h"
#include "base/error.h"
#include "base/readable.h"
#include "base/units.h"
#include "decoder/decoder.h"
#include "engine/answer_defaults.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"
#include "store/ollama.h"
#include "store/store.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model;
  std::vector<std::string> prompt;
  std::string system;
  bool raw = false, verbose = false, json = false, no_word_wrap = false, no_stdin = false;
  LoadFlags load;
  // Flags by the names of AnswerSettings; those given are applied in this order.
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::string> stop;
};

AnswerSettings answer_settings(const Flags& flags) {
  AnswerSettings settings;
  for (const auto& [name, value] : flags.settings)
    if (!value.empty()) settings.set(name, value);  // the parser lets no empty one pass
  for (const auto& text : flags.stop)
    if (!text.empty()) settings.set("stop", text);  // as the API takes it
  return settings;
}

// Text that was piped in beside a prompt; empty when nothing was. A terminal, /dev/null and a closed input
// have none and aren't waited for; a pipe is, as nobody can know whether its writer has something to say yet.
std::string piped_text() {
  struct stat status {};
  if (::fstat(STDIN_FILENO, &status) != 0) return {};
  if (!S_ISREG(status.st_mode) && !S_ISFIFO(status.st_mode)) return {};
  pollfd waiting{STDIN_FILENO, POLLIN, 0};
  if (::poll(&waiting, 1, 3000) == 0)
    note("waiting for the text that is piped in; with --no-stdin or </dev/null it isn't read");
  return read_input("-");
}

bool is_blank(const std::string& text) { return text.find_first_not_of(" \t\r\n") == std::string::npos; }

// The prompt that needs no person: given as an argument, from a pipe, or both. Empty: a person will write.
std::optional<std::string> given_prompt(const Flags& flags) {
  std::string words;
  for (const auto& word : flags.prompt) words += (words.empty() ? "" : " ") + word;
  if (flags.prompt.empty() && stdin_is_terminal()) return std::nullopt;
  std::string text;
  if (words == "-" || (flags.prompt.empty() && !flags.no_stdin)) {
    text = read_input("-");
  } else {
    if (!flags.no_stdin) text = piped_text();
    while (text.ends_with('\n') || text.ends_with('\r')) text.pop_back();
    text = is_blank(text) ? words : is_blank(words) ? text : text + "\n\n" + words;
  }
  if (is_blank(text)) throw_usage("the prompt is empty");
  return text;
}

// Lines of the plan with what was really taken beside them.
void print_actual(LoadedModel& model) {
  const MemoryActual actual = model.decoder().measure();
  write_stderr(to_text(model.plan(), &actual.lines));
  for (const std::string& report : model.reports()) note("{}", report);
  note("resident memory of the process: {}\n", size_text(actual.resident_bytes));
}

// What a model of the store brings along; a file has nothing.
ModelDefaults brought_along(const std::string& name) {
  std::error_code ignored;
  if (std::filesystem::is_regular_file(name, ignored) || !ModelStore::valid_name(name)) return {};
  try {
    return ModelStore::from_environment().defaults(name);
  } catch (const Error&) {  // it is found otherwise, or not at all
    return {};
  }
}

// The model of this name; a context of 0: as the flags say, else as the model does.
std::unique_ptr<LoadedModel> load(const Flags& flags, const std::string& name, std::uint32_t context) {
  const auto path = resolve_model(name);
  ModelOptions options = flags.load.options();
  if (options.context == 0) options.context = api::parse_parameters(brought_along(name).parameters).num_ctx;
  if (context > 0) options.context = context;
  PreparedModel prepared = prepare_model(path, options);
  note_device(prepared, flags.verbose);
  if (flags.verbose)
    for (const PlacedPart& part : placed_parts(prepared)) device_ceilings(*part.device);
  if (!prepared.tokenizer)
    throw_error(ErrorKind::unsupported,
                "{} has no vocabulary, so it can't be run on text; `steelyard bench` can measure it", name);
  if (!prepared.template_error.empty())
    note("warning: the model's chat template can't be used ({}); prompts are completed as they are",
         prepared.template_error);
  if (flags.verbose) write_stderr(devices_text(prepared) + "\n" + to_text(prepared.plan) + "\n");
  Progress progress("loading " + path.filename().string(), !flags.verbose && !stderr_is_terminal());
  auto model = std::make_unique<LoadedModel>(
      std::move(prepared), [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
  progress.finish();
  if (flags.verbose) print_actual(*model);
  return model;
}

void print_reply(const Flags& flags, const ChatSession::Reply& reply, double load_seconds) {
  if (flags.json) {
    nlohmann::ordered_json value = {{"model", flags.model}, {"response", reply.text}};
    value.update(timings_json(reply.answer, load_seconds));
    print_json(value);
  } else if (reply.text.empty()) {
    write_stdout("\n");
  }
}

int answer_once(ChatSession& session, const Flags& flags, const std::string& prompt) {
  const InterruptScope scope(true);
  const QuietControlKeys keys;
  AnswerView view(!flags.no_word_wrap, flags.json);
  const auto reply = session.ask(
      prompt, [&](std::string_view text) { view.text(text); },
      [&](std::uint32_t read, std::uint32_t total) { view.prompt_read(read, total); });
  view.finish();
  const double load_seconds = session.model().load_seconds();
  print_reply(flags, reply, load_seconds);
  const std::string cut = cut_text(reply.answer, session.settings().num_predict, session.context());
  if (!cut.empty()) note("note: {}", cut);
  if (flags.verbose) write_stderr("\n" + timings_text(reply.answer, load_seconds));
  return reply.answer.reason == DoneReason::cancelled ? 130 : 0;
}

int run(const Flags& flags) {
  const auto prompt = given_prompt(flags);
  if (flags.json && !prompt) throw_usage("--json wants a prompt");
  const ModelDefaults defaults = brought_along(flags.model);
  AnswerSettings settings = answer_settings(flags);
  api::add_missing(settings, api::parse_parameters(defaults.parameters));
  const std::string system = flags.system.empty() ? defaults.system : flags.system;
  auto model = load(flags, flags.model, 0);
  if (!flags.system.empty() && (flags.raw || !model->chat_template()))
    note("warning: --system has no effect without a chat template");
  if (prompt) {
    ChatSession session(*model, settings, flags.raw);
    session.set_system(system);
    session.set_beginning(api::parse_first_messages(defaults.messages));
    return answer_once(session, flags, *prompt);
  }
  run_repl(std::move(model), {.settings = settings,
                              .system = system,
                              .beginning = api::parse_first_messages(defaults.messages),
                              .model = flags.model,
                              .raw = flags.raw,
                              .verbose = flags.verbose,
                              .word_wrap = !flags.no_word_wrap,
                              .load = [&flags](const std::string& name, std::uint32_t context) {
                                return load(flags, name, context);
                              }});
  return 0;
}

// What people type for an option besides its own name.
std::string flag_names(std::string_view option) {
  std::string flag = "--" + std::string(option);
  std::replace(flag.begin(), flag.end(), '_', '-');
  if (option == "num_predict") return "-n," + flag + ",--n-predict,--max-tokens";
  if (option == "temperature") return flag + ",--temp";
  if (option == "typical_p") return flag + ",--typical";
  return option == "seed" ? "-s," + flag : flag;
}

void add_settings(CLI::App& command, Flags& flags) {
  const AnswerOptions defaults;
  flags.settings.reserve(number_options().size() + 1);  // the options keep references to its elements
  const auto add = [&](std::string_view name, const std::string& help) {
    return command.add_option(flag_names(name), flags.settings.emplace_back(name, std::string()).second,
                              help);
  };
  for (const NumberOption& option : number_options())
    takes_number(
        add(option.name, fmt::format("{} (default: {}{:g})", option.meaning,
                                     file_may_say(option.name) ? "as the model's file says, else " : "",
                                     option.of(defaults))),
        option.low, option.high, option.whole());
  takes(add("seed", "for the same answer again (default: random)"), "N", [](const std::string& value) {
    std::int64_t seed = 0;
    if (!CLI::detail::lexical_cast(value, seed))
      throw_usage("wants a whole number, not '{}'", readable(value));
  });
  takes_several(
      command.add_option("--stop", flags.stop, "end the answer before this text; may be given several times"),
      "TEXT");
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "run", "chat with a model, or answer one prompt",
      "  steelyard run smollm2                                  a conversation\n"
      "  steelyard run smollm2 'Why is the sky blue?' --verbose  one answer, with timings\n"
      "  cat question.txt | steelyard run smollm2 --json\n"
      "  cat log.txt | steelyard run smollm2 'What failed?'         the log, a blank line, the question\n"
      "  steelyard run gemma-3-270m-q4_k_m.gguf 'Once upon a time' --num-predict 100 --seed 1");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command
      ->add_option(
          "PROMPT", flags->prompt,
          "the prompt; without one a conversation starts, or the prompt is read from a pipe. With one, text "
          "from a pipe or file on standard input comes before it")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--system", flags->system, "the system message")->type_name("TEXT");
  command->add_flag("--raw", flags->raw, "complete the prompt as it is, without the chat template");
  command->add_flag("--verbose", flags->verbose, "show the memory plan, loading and timings");
  command->add_flag("--json", flags->json, "print the answer and its timings as JSON");
  command->add_flag(
      "--no-stdin", flags->no_stdin,
      "with a prompt: leave standard input alone, as in a `while read` loop (</dev/null does too)");
  command->add_flag("--nowordwrap,--no-word-wrap", flags->no_word_wrap,
                    "don't break an answer's lines between words on a terminal");
  add_settings(*command, *flags);
  flags->load.add_with_devices(*command);
  command->callback([&action, flags] { action = [flags] { return run(*flags); }; });
}

}  // namespace steelyard
