// steelyard create
#include <filesystem>
#include <memory>
#include <string>
#include <utility>

#include "api/request_parts.h"
#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/steps.h"
#include "base/process.h"
#include "store/create.h"
#include "store/mixture.h"
#include "store/modelfile.h"
#include "store/pull.h"
#include "store/store.h"

namespace steelyard {
namespace {

struct Flags {
  std::string name, file = "Modelfile", quantize;
};

// FROM names a file where there is one, seen from the Modelfile; else a model of the store.
void take_from(NewModel& wanted, const std::string& from, const std::string& modelfile) {
  const std::filesystem::path beside = std::filesystem::path(modelfile).parent_path() / from;
  std::error_code ignored;
  const bool says_file = from.starts_with('.') || from.starts_with('/') || from.ends_with(".gguf");
  if (std::filesystem::is_regular_file(beside, ignored) || says_file)
    wanted.file = beside;
  else
    wanted.from = from;
}

int create(const Flags& flags) {
  Modelfile m = parse_modelfile(read_input(flags.file));
  if (!m.parameters.empty()) api::read_options({{"options", m.parameters}});  // throws what is wrong with one
  NewModel wanted;
  wanted.name = flags.name;
  take_from(wanted, m.from, flags.file == "-" ? "" : flags.file);
  wanted.chat_template = std::move(m.chat_template);
  wanted.system = std::move(m.system);
  wanted.licenses = std::move(m.licenses);
  if (!m.parameters.empty()) wanted.parameters = m.parameters.dump();
  if (!m.messages.empty()) wanted.messages = m.messages.dump();
  wanted.quantize = flags.quantize;
  wanted.threads = cpu_share().threads;
  const ModelStore store = ModelStore::from_environment();
  return follow_steps([&](const OnStep& on_step, const std::stop_token& stop) {
    create_model(store, wanted, on_step, stop);
  });
}

}  // namespace

void add_create(CLI::App& app, Action& action) {
  auto* command = add_command(app, "create", "make a model of a Modelfile",
                              "  steelyard create brief -f Modelfile\n"
                              "  printf 'FROM llama3.2\\nSYSTEM be brief\\n' | steelyard create brief -f -\n"
                              "  steelyard create small -f Modelfile --quantize q4_k_m");
  auto flags = std::make_shared<Flags>();
  command->add_option("NAME", flags->name, "the new model's name")->required();
  command
      ->add_option(
          "-f,--file", flags->file,
          "the Modelfile: FROM (a GGUF file or a model), PARAMETER, TEMPLATE, SYSTEM, MESSAGE, LICENSE")
      ->type_name("FILE")
      ->capture_default_str();
  takes(command->add_option("-q,--quantize", flags->quantize, "with smaller weights, such as q4_k_m"), "TYPE",
        [](const std::string& text) { parse_mixture(text); });
  command->callback([&action, flags] { action = [flags] { return create(*flags); }; });
}

}  // namespace steelyard
