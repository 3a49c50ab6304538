// steelyard run
#include <algorithm>
#include <memory>
#include <optional>

#include "app/chat_session.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/interrupt.h"
#include "app/output.h"
#include "app/repl.h"
#include "base/error.h"
#include "base/units.h"
#include "decoder/decoder.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/sampling_options.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model;
  std::vector<std::string> prompt;
  std::string system;
  bool raw = false, verbose = false, json = false;
  LoadFlags load;
  // Flags by the names of AnswerSettings; those given are applied in this order.
  std::vector<std::pair<std::string, std::string>> settings;
  std::vector<std::string> stop;
};

AnswerSettings answer_settings(const Flags& flags) {
  AnswerSettings settings;
  for (const auto& [name, value] : flags.settings)
    if (!value.empty()) settings.set(name, value);
  for (const auto& text : flags.stop) settings.set("stop", text);
  return settings;
}

// The prompt that needs no person: given as an argument, or from a pipe. Empty: a person will write.
std::optional<std::string> given_prompt(const Flags& flags) {
  std::string text;
  for (const auto& word : flags.prompt) text += (text.empty() ? "" : " ") + word;
  if (text == "-" || (flags.prompt.empty() && !stdin_is_terminal())) text = read_input("-");
  if (text.empty() && flags.prompt.empty() && stdin_is_terminal()) return std::nullopt;
  if (text.find_first_not_of(" \t\r\n") == std::string::npos)
    throw_error(ErrorKind::bad_input, "the prompt is empty");
  return text;
}

// Lines of the plan with what was really taken beside them.
void print_actual(LoadedModel& model) {
  const MemoryActual actual = model.decoder().measure();
  write_stderr(to_text(model.plan(), &actual.lines));
  if (const auto report = model.decoder().executable().report(); !report.empty())
    note("{}: {}", model.device_info().id, report);
  note("resident memory of the process: {}\n", size_text(actual.resident_bytes));
}

std::unique_ptr<LoadedModel> load(const Flags& flags) {
  const auto path = resolve_model(flags.model);
  PreparedModel prepared = prepare_model(path, flags.load.options());
  note_device(prepared, flags.verbose);
  if (flags.verbose) device_ceilings(*prepared.device);
  if (!prepared.tokenizer)
    throw_error(ErrorKind::unsupported,
                "{} has no vocabulary, so it can't be run on text; `steelyard bench` can measure it",
                flags.model);
  if (!prepared.template_error.empty())
    note("warning: the model's chat template can't be used ({}); prompts are completed as they are",
         prepared.template_error);
  if (flags.verbose)
    write_stderr(device_text(prepared.device->info()) + "\n" + to_text(prepared.plan) + "\n");
  Progress progress("loading " + path.filename().string(), !flags.verbose && !stderr_is_terminal());
  auto model = std::make_unique<LoadedModel>(
      std::move(prepared), [&](std::uint64_t done, std::uint64_t total) { progress.update(done, total); });
  progress.finish();
  if (flags.verbose) print_actual(*model);
  return model;
}

int answer_once(ChatSession& session, const Flags& flags, const std::string& prompt) {
  const InterruptScope scope(true);
  const auto reply = session.ask(prompt, [&](std::string_view text) {
    if (!flags.json) write_stdout(text);
  });
  const double load_seconds = session.model().load_seconds();
  if (flags.json) {
    nlohmann::ordered_json value = {{"model", flags.model}, {"response", reply.text}};
    value.update(timings_json(reply.answer, load_seconds));
    print_json(value);
  } else if (!reply.text.ends_with('\n')) {
    write_stdout("\n");
  }
  if (flags.verbose) write_stderr("\n" + timings_text(reply.answer, load_seconds));
  return reply.answer.reason == DoneReason::cancelled ? 130 : 0;
}

int run(const Flags& flags) {
  const auto prompt = given_prompt(flags);
  if (flags.json && !prompt) throw_error(ErrorKind::bad_input, "--json wants a prompt");
  const AnswerSettings settings = answer_settings(flags);
  const auto model = load(flags);
  ChatSession session(*model, settings, flags.raw);
  session.set_system(flags.system);
  if (!flags.system.empty() && session.raw()) note("warning: --system has no effect without a chat template");
  if (prompt) return answer_once(session, flags, *prompt);
  run_repl(session, flags.verbose);
  return 0;
}

void add_settings(CLI::App& command, Flags& flags) {
  const AnswerOptions defaults;
  flags.settings.reserve(number_options().size() + 1);  // the options keep references to its elements
  const auto add = [&](std::string_view name, const std::string& help) {
    std::string flag = "--" + std::string(name);
    std::replace(flag.begin(), flag.end(), '_', '-');
    if (name == "typical_p") flag = "--typical," + flag;
    command.add_option(flag, flags.settings.emplace_back(name, std::string()).second, help);
  };
  for (const NumberOption& option : number_options())
    add(option.name, fmt::format("{} (default: {:g})", option.meaning, option.of(defaults)));
  add("seed", "for the same answer again (default: random)");
  command.add_option("--stop", flags.stop, "end the answer before this text; may be given several times")
      ->take_all()
      ->allow_extra_args(false);
}

}  // namespace

void add_run(CLI::App& app, Action& action) {
  auto* command =
      add_command(app, "run", "chat with a model, or answer one prompt",
                  "  steelyard run smollm2                                  a conversation\n"
                  "  steelyard run smollm2 'Why is the sky blue?' --verbose  one answer, with timings\n"
                  "  cat question.txt | steelyard run smollm2 --json\n"
                  "  steelyard run gemma-3-270m-q4_k_m.gguf 'Once upon a time' --num-predict 100 --seed 1");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command->add_option("PROMPT", flags->prompt,
                      "the prompt; without one a conversation starts, or the prompt is read from a pipe");
  command->add_option("--system", flags->system, "the system message");
  command->add_flag("--raw", flags->raw, "complete the prompt as it is, without the chat template");
  command->add_flag("--verbose", flags->verbose, "show the memory plan, loading and timings");
  command->add_flag("--json", flags->json, "print the answer and its timings as JSON");
  add_settings(*command, *flags);
  flags->load.add(*command);
  command->callback([&action, flags] { action = [flags] { return run(*flags); }; });
}

}  // namespace steelyard
