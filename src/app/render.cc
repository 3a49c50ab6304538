// steelyard render
#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/error.h"
#include "gguf/gguf.h"
#include "text/chat_template.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

struct Flags {
  std::vector<std::string> arguments;
  std::string template_file;
};

Json parse_vars(const std::string& file) {
  const std::string text = read_input(file);
  Json vars;
  try {
    vars = Json::parse(text);
  } catch (const Json::exception& e) {
    throw_error(ErrorKind::bad_input, "{} is not JSON: {}", file == "-" ? "standard input" : file, e.what());
  }
  if (!vars.is_object())
    throw_error(ErrorKind::bad_input, "{} must hold a JSON object with the template's variables, not {}",
                file, vars.type_name());
  return vars;
}

// bos_token and eos_token as the vocabulary has them, unless the variables say otherwise.
std::string template_of_model(const std::string& model, Json& vars) {
  const GgufFile file = GgufFile::open(resolve_model(model));
  const Vocabulary vocabulary = Vocabulary::from_metadata(file.metadata());
  if (vocabulary.chat_template().empty())
    throw_error(ErrorKind::bad_input, "{} has no chat template: give one with --template FILE", model);
  const auto set = [&](const char* name, TokenId id) {
    if (!vars.contains(name) && id != kNoToken) vars[name] = std::string(vocabulary.text(id));
  };
  set("bos_token", vocabulary.bos());
  set("eos_token", vocabulary.eos());
  return vocabulary.chat_template();
}

int render(const Flags& flags) {
  const bool from_model = flags.template_file.empty();
  const std::size_t wanted = from_model ? 2 : 1;
  if (flags.arguments.size() != wanted)
    throw_usage("{}", from_model ? "render wants MODEL and VARS.json, or --template FILE and VARS.json"
                                 : "with --template, render wants just VARS.json");
  Json vars = parse_vars(flags.arguments.back());
  const std::string source =
      from_model ? template_of_model(flags.arguments[0], vars) : read_input(flags.template_file);
  write_stdout(ChatTemplate(source).render(vars));
  return 0;
}

}  // namespace

void add_render(CLI::App& app, Action& action) {
  auto* command =
      add_command(app, "render", "print the exact prompt that a chat template makes of its variables",
                  "  echo '{\"messages\": [{\"role\": \"user\", \"content\": \"Hi\"}], "
                  "\"add_generation_prompt\": true}' |\n"
                  "    steelyard render smollm2 -\n"
                  "  steelyard render --template chat.jinja vars.json");
  auto flags = std::make_shared<Flags>();
  command
      ->add_option("ARGUMENTS", flags->arguments,
                   "[MODEL] VARS: a GGUF file or name (left out with --template), then a JSON file with the "
                   "template's "
                   "variables: messages, tools, add_generation_prompt, …; - for standard input")
      ->required()
      ->expected(1, 2)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--template", flags->template_file, "a template file instead of a model's own")
      ->type_name("FILE");
  command->callback([&action, flags] { action = [flags] { return render(*flags); }; });
}

}  // namespace steelyard
