// The command line: parses, runs one command, and turns what it throws into one sentence and an exit code:
// 0 done, 1 it failed, 2 wrong usage or input, 130 interrupted.
#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <new>
#include <string>
#include <string_view>
#include <system_error>

#include "app/commands.h"
#include "app/output.h"
#include "base/error.h"

namespace steelyard {
namespace {

constexpr int kFailed = 1, kBadUsage = 2, kInterrupted = 130;

int exit_code(ErrorKind kind) {
  if (kind == ErrorKind::bad_input) return kBadUsage;
  return kind == ErrorKind::cancelled ? kInterrupted : kFailed;
}

int fail(int code, const std::string& sentence) {
  note("error: {}", sentence);
  return code;
}

void add_commands(CLI::App& app, Action& action) {
  app.set_version_flag("--version", "steelyard " STEELYARD_VERSION);
  app.set_help_all_flag("--help-all", "help of every command");
  app.require_subcommand(1);
  app.failure_message([](const CLI::App*, const CLI::Error& e) { return std::string(e.what()); });
  for (auto* add : {add_run, add_serve, add_list, add_show, add_plan, add_bench, add_probe, add_eval,
                    add_tokenize, add_render, add_synth})
    add(app, action);
}

// `first`: the first word after the program's name.
int parse_error(const CLI::App& app, const CLI::ParseError& e, const std::string& first) {
  const CLI::App* command = &app;
  for (const CLI::App* sub : app.get_subcommands()) command = sub;
  const std::string where =
      command == &app ? "steelyard --help" : "steelyard " + command->get_name() + " --help";
  if (app.get_subcommands().empty() && !first.empty() && first[0] != '-')
    return fail(kBadUsage, fmt::format("there is no command '{}': `steelyard --help` lists them", first));
  if (app.get_subcommands().empty() && dynamic_cast<const CLI::RequiredError*>(&e))
    return fail(kBadUsage, "say what to do: `steelyard --help` lists the commands");
  return fail(kBadUsage, fmt::format("{} (see `{}`)", e.what(), where));
}

int run(int argc, char** argv) {
  CLI::App app(
      "Steelyard runs open-weight language models (GGUF files) near the speed limit of this machine.",
      "steelyard");
  app.footer("`steelyard COMMAND --help` shows a command's flags and examples.");
  Action action;
  add_commands(app, action);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    std::ostringstream out;
    app.exit(e, out, out);
    write_stdout(out.str());
    return 0;
  } catch (const CLI::ParseError& e) {
    return parse_error(app, e, argc > 1 ? argv[1] : "");
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
    return run(argc, argv);
  } catch (const BrokenPipe&) {
    return 0;
  } catch (const Error& e) {
    return fail(exit_code(e.kind()), e.what());
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
