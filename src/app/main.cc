// The command line: parses, runs one command, and turns what it throws into one sentence and an exit code: 0
// it is done, 1 it failed (for what the files hold or the machine can't), 2 the command line is wrong, 130
// interrupted.
#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <memory>
#include <new>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <vector>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/output.h"
#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

constexpr int kFailed = 1, kBadUsage = 2, kInterrupted = 130;
constexpr const char* kVersion = "steelyard " STEELYARD_VERSION;

int fail(int code, const std::string& sentence) {
  note("error: {}", readable(sentence, 2000));
  return code;
}

void add_help(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("help", "this text, or a command's flags and examples");
  auto name = std::make_shared<std::string>();
  command->add_option("COMMAND", *name, "the command");
  command->callback([&app, &action, name] {
    action = [&app, name] {
      std::string title = "steelyard";
      const CLI::App* of = &app;
      for (const CLI::App* sub : app.get_subcommands({}))
        if (sub->get_name() == *name) of = sub;
      if (of == &app && !name->empty())
        throw_usage("there is no command '{}': `steelyard help` lists them", readable(*name));
      if (of != &app) title += " " + *name;
      write_stdout(of->get_formatter()->make_help(of, title, CLI::AppFormatMode::Normal));
      return 0;
    };
  });
}

void add_version(CLI::App& app, Action& action) {
  auto* command = app.add_subcommand("version", "the program's version");
  command->callback([&action] { action = [] { return print("{}\n", kVersion), 0; }; });
}

void add_commands(CLI::App& app, Action& action) {
  set_up_parser(app);
  app.set_version_flag("-v,--version", kVersion, "the program's version");
  app.set_help_flag("-h,--help", "this text");
  app.set_help_all_flag("--help-all", "help of every command");
  app.require_subcommand(1);
  for (auto* add :
       {add_run,      add_serve,  add_pull,     add_create, add_list,  add_show,   add_rm,     add_cp,
        add_ps,       add_stop,   add_top,      add_plan,   add_bench, add_doctor, add_probe,  add_eval,
        add_tokenize, add_render, add_quantize, add_synth,  add_key,   add_help,   add_version})
    add(app, action);
  for (CLI::App* command : app.get_subcommands({})) command->group("Commands");
}

int run(std::vector<std::string> typed) {
  CLI::App app(
      "Steelyard runs open-weight language models (GGUF files) near the speed limit of this machine.",
      "steelyard");
  app.footer(
      "`steelyard help COMMAND` shows a command's flags and examples. Exit codes: 0 done, 1 it failed, 2 "
      "the\n"
      "command line is wrong, 130 interrupted.");
  Action action;
  add_commands(app, action);
  std::vector<std::string> words = normal_words(app, typed);
  std::reverse(words.begin(), words.end());  // as the parser takes them
  try {
    app.parse(std::move(words));
  } catch (const CLI::Success& e) {  // --help, --version
    std::ostringstream out;
    app.exit(e, out, out);
    write_stdout(out.str());
    return 0;
  } catch (const CLI::ParseError& e) {
    return fail(kBadUsage, usage_sentence(app, e, typed));
  }
  return action();
}

// The program was called otherwise before. Its variables have no effect any more, which must not go
// unnoticed.
void warn_of_old_variables() {
  constexpr std::string_view kOld = "STRATA_", kNew = "STEELYARD_";
  constexpr std::string_view kKnown[] = {"MODELS",    "HOST",       "CPU_ISA", "CUDA_POISON", "TEST_DEVICE",
                                         "TEST_DATA", "MODELS_DIR", "BINARY",  "PYTHON"};
  for (const std::string_view name : kKnown)
    if (const char* value = std::getenv(fmt::format("{}{}", kOld, name).c_str()); value && *value)
      note("note: {}{} has no effect; its name is {}{} now", kOld, name, kNew, name);
}

int guarded(int argc, char** argv) {
  try {
    warn_of_old_variables();
    return run({argv + std::min(argc, 1), argv + argc});
  } catch (const BrokenPipe&) {
    return 0;
  } catch (const UsageError& e) {
    return fail(kBadUsage, e.what());
  } catch (const Error& e) {
    return fail(e.kind() == ErrorKind::cancelled ? kInterrupted : kFailed, e.what());
  } catch (const std::bad_alloc&) {
    return fail(kFailed, "there is not enough memory; try a smaller --context or a smaller model");
  } catch (const std::system_error& e) {
    if (e.code() != std::errc::resource_unavailable_try_again) return fail(kFailed, e.what());
    return fail(kFailed,
                fmt::format("the system refused to start a thread ({}); allow more memory and processes",
                            e.code().message()));
  } catch (const std::exception& e) {
    return fail(kFailed, e.what());
  }
}

}  // namespace
}  // namespace steelyard

int main(int argc, char** argv) {
  std::signal(SIGPIPE, SIG_IGN);  // a write to a closed pipe fails with EPIPE instead
  return steelyard::guarded(argc, argv);
}
