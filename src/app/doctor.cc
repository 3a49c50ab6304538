// steelyard doctor
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/doctor_measure.h"
#include "app/doctor_ollama.h"
#include "app/output.h"
#include "base/error.h"
#include "doctor/causes.h"
#include "doctor/facts.h"
#include "doctor/foreign_log.h"
#include "doctor/report.h"
#include "engine/loaded_model.h"

namespace steelyard {
namespace {

using doctor::Facts;
using doctor::Finding;

struct Flags {
  std::string model, log, ollama;
  std::uint32_t depth = 128;
  bool apply = false, json = false;
  LoadFlags load;
};

int report(const Facts& facts, bool json) {
  const auto findings = doctor::find_causes(facts);
  if (json)
    print_json(doctor::to_json(facts, findings));
  else
    write_stdout(doctor::to_text(facts, findings));
  return doctor::exit_code(findings);
}

int examine_log(const Flags& flags) {
  const auto log = doctor::read_log(read_input(flags.log));
  if (!log.understood())
    throw_error(ErrorKind::bad_input,
                "{} holds no line of a model that Ollama or llama.cpp loaded (\"offloaded … layers to GPU\", "
                "\"buffer size\", \"eval time\"); "
                "Ollama's is shown by `journalctl -u ollama` or lies in ~/.ollama/logs/server.log",
                flags.log == "-" ? "standard input" : flags.log);
  return report(facts_of(log), flags.json);
}

// The same load with what a finding says.
LoadFlags changed(LoadFlags load, const Finding& finding) {
  for (const auto& [flag, value] : finding.flags) {
    if (flag == "--device") load.device = value;
    if (flag == "--placement") load.placement = value;
    if (flag == "--kv-type") load.kv_type = value;
    if (flag == "--threads") load.threads = static_cast<std::uint32_t>(std::stoul(value));
    if (flag == "--context") load.context = static_cast<std::uint32_t>(std::stoul(value));
  }
  return load;
}

std::string flags_text(const Finding& finding) {
  std::string text;
  for (const auto& [flag, value] : finding.flags)
    text += fmt::format("{}{} {}", text.empty() ? "" : " ", flag, value);
  return text;
}

ModelOptions options_of(const LoadFlags& load) { return load.options(); }

// The best change that is a flag of this program, measured.
nlohmann::ordered_json apply(const Flags& flags, const std::filesystem::path& path, const Facts& before) {
  const auto findings = doctor::find_causes(before);
  const auto best =
      std::ranges::find_if(findings, [](const Finding& f) { return !f.flags.empty() && f.price.empty(); });
  if (best == findings.end()) {
    if (!flags.json) print("\nthere is no flag to apply\n");
    return nullptr;
  }
  const Facts after = measure_model(path, options_of(changed(flags.load, *best)), flags.depth, flags.json);
  if (!flags.json)
    print("\napplied {}: {:.1f} tokens/s, before {:.1f}{}\n", flags_text(*best), after.tokens_per_second,
          before.tokens_per_second,
          best->predicted > 0 ? fmt::format(", predicted {:.1f}", best->predicted) : "");
  return {{"flags", flags_text(*best)},
          {"cause", doctor::info(best->cause).name},
          {"tokens_per_second", after.tokens_per_second},
          {"before", before.tokens_per_second},
          {"predicted",
           best->predicted > 0 ? nlohmann::ordered_json(best->predicted) : nlohmann::ordered_json()}};
}

int examine_model(const Flags& flags) {
  const auto path = resolve_model(flags.model);
  const Facts facts = measure_model(path, options_of(flags.load), flags.depth, flags.json);
  const auto findings = doctor::find_causes(facts);
  if (!flags.json) write_stdout(doctor::to_text(facts, findings));
  nlohmann::ordered_json applied;
  if (flags.apply) applied = apply(flags, path, facts);
  if (flags.json) {
    auto value = doctor::to_json(facts, findings);
    value["applied"] = std::move(applied);
    print_json(value);
  }
  return doctor::exit_code(findings);
}

int examine(const Flags& flags) {
  if (!flags.ollama.empty()) {
    if (!flags.log.empty() || flags.apply) throw_usage("--ollama asks a server: leave --log and --apply out");
    return report(ask_ollama(flags.ollama, flags.model), flags.json);
  }
  if (!flags.log.empty()) {
    if (!flags.model.empty()) throw_usage("--log says what was loaded: leave {} out", flags.model);
    return examine_log(flags);
  }
  if (!flags.model.empty()) return examine_model(flags);
  if (flags.apply) throw_usage("--apply needs a model");
  return report(measure_machine(), flags.json);
}

}  // namespace

void add_doctor(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "doctor",
      "say why a model is slow, and what to change\n"
      "Loads it, measures a token's time by part and device, looks at the machine, and ranks changes with\n"
      "the speed that each should bring. Without a model: the machine alone. --log reads what Ollama or\n"
      "llama.cpp logged instead. The text holds no paths and no names of users: it can be pasted.\n"
      "Exit codes: 0 nothing is wrong, 10 and more the number of the first finding's cause\n"
      "(docs/why-is-it-slow.md has them), 1 and 2 as everywhere.",
      "  steelyard doctor smollm2\n"
      "  steelyard doctor llama-8b.gguf --placement stages --apply\n"
      "  steelyard doctor\n"
      "  journalctl -u ollama | steelyard doctor --log -\n"
      "  steelyard doctor --ollama http://127.0.0.1:11434\n"
      "  steelyard doctor --log tests/data/logs/two_gpus.log");
  auto flags = std::make_shared<Flags>();
  takes(command->add_option("MODEL", flags->model, "a GGUF file, or a name from `steelyard list`"), "NAME",
        [](const std::string& text) {
          if (text.empty()) throw_usage("the model's name is empty");
        });
  takes(command->add_option("--log", flags->log,
                            "read a log of Ollama or llama.cpp instead ('-': standard input)"),
        "FILE", [](const std::string& text) {
          if (text.empty()) throw_usage("--log takes a file's name");
        });
  takes(command->add_option("--ollama", flags->ollama,
                            "ask and time a running server of Ollama's kind instead"),
        "URL", [](const std::string& text) {
          if (text.empty()) throw_usage("--ollama takes an address, such as http://127.0.0.1:11434");
        });
  takes_number(
      command->add_option("--depth", flags->depth, "tokens in the conversation while it is measured"), 1,
      1 << 20)
      ->capture_default_str();
  command->add_flag("--apply", flags->apply,
                    "load it once more with the best change, and say what that brought");
  command->add_flag("--json", flags->json, "print JSON");
  flags->load.add_with_devices(*command);
  command->callback([&action, flags] { action = [flags] { return examine(*flags); }; });
}

}  // namespace steelyard
