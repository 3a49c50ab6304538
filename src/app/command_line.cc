#include "app/command_line.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "app/help_format.h"
#include "base/edit_distance.h"
#include "base/readable.h"

namespace steelyard {
namespace {

// What people know from other programs of this kind, and what there is here instead.
struct Foreign {
  std::string_view name, answer;
};
constexpr Foreign kForeignCommands[] = {
    {"push", "pushing models isn't built: they stay on this machine"},
    {"launch", "launching other programs isn't built: point them at `steelyard serve`"},
    {"signin", "there is nothing to sign in to: Steelyard only uses this machine"},
    {"signout", "there is nothing to sign out of: Steelyard only uses this machine"},
};
constexpr std::string_view kPlacement =
    "isn't there: --placement lays a model's layers over several devices (`steelyard plan MODEL --devices "
    "2x3090` "
    "shows on paper what devices would do)";
constexpr Foreign kForeignFlags[] = {
    {"--format", "isn't built yet: answers can't be held to JSON or a schema"},
    {"--think", "isn't built yet: thinking stays in the answer's text"},
    {"--hidethinking", "isn't built yet: thinking stays in the answer's text"},
    {"--keepalive",
     "does nothing for a model that `run` loads and leaves: see `steelyard serve --keep-alive`"},
    {"--ngl", kPlacement},
    {"--n-gpu-layers", kPlacement},
    {"--devices", kPlacement},
    {"--tensor-split", kPlacement},
    {"--split-mode", kPlacement},
    {"-m", "isn't needed: the model is the first argument"},
    {"--model", "isn't needed: the model is the first argument"},
    {"-p", "isn't needed: the prompt comes after the model"},
    {"--prompt", "isn't needed: the prompt comes after the model"},
    {"-f", "isn't there: pipe the file into `run`, as in `steelyard run MODEL < FILE`"},
    {"--file", "isn't there: pipe the file into `run`, as in `steelyard run MODEL < FILE`"},
};

const Foreign* find_foreign(std::span<const Foreign> all, std::string_view name) {
  const auto found = std::ranges::find(all, name, &Foreign::name);
  return found == all.end() ? nullptr : &*found;
}

// Where `known` has something as near to `asked` as a third of its letters.
std::optional<std::string> nearest(const std::vector<std::string>& known, const std::string& asked) {
  std::optional<std::string> best;
  std::size_t least = std::max<std::size_t>(1, asked.size() / 3) + 1;
  for (const std::string& name : known) {
    const bool begins = asked.size() > 4 && name.starts_with(asked);
    const std::size_t distance = begins ? 1 : edit_distance(name, asked);
    if (distance < least) best = name, least = distance;
  }
  return best;
}

std::vector<std::string> flag_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options()) {
    for (const auto& name : option->get_snames()) names.push_back("-" + name);
    for (const auto& name : option->get_lnames()) names.push_back("--" + name);
  }
  return names;
}

// "--flag" of "--flag=value", with '-' for '_'.
std::string flag_of(std::string word) {
  word.resize(std::min(word.find('='), word.size()));
  for (std::size_t i = 2; i < word.size(); ++i)
    if (word[i] == '_') word[i] = '-';
  return word;
}

// The flag as it was typed, of those that the parser calls `name`.
std::string as_typed(const CLI::App& command, const std::string& name,
                     const std::vector<std::string>& words) {
  for (const CLI::Option* option : command.get_options()) {
    if (option->get_name() != name || option->get_positional()) continue;
    for (auto word = words.rbegin(); word != words.rend(); ++word) {
      const std::string flag = flag_of(*word);
      if ((flag.starts_with("--") && option->check_lname(flag.substr(2))) ||
          (flag.starts_with('-') && flag.size() > 1 && option->check_sname(flag.substr(1, 1))))
        return flag.starts_with("--") ? word->substr(0, word->find('=')) : flag.substr(0, 2);
    }
  }
  return name;
}

std::string unknown_argument(const CLI::App& command, const std::vector<std::string>& extras) {
  for (const std::string& word : extras) {
    if (word.size() < 2 || word[0] != '-') continue;
    const std::string flag = flag_of(word);
    const std::string shown = readable(word.substr(0, word.find('=')));
    if (const Foreign* foreign = find_foreign(kForeignFlags, flag))
      return fmt::format("{} {}", shown, foreign->answer);
    const auto near = nearest(flag_names(command), flag);
    return fmt::format("there is no flag {}{}", shown,
                       near ? fmt::format("; did you mean {}?", *near) : std::string());
  }
  return fmt::format("'{}' is one argument too many", extras.empty() ? "" : readable(extras.front()));
}

std::string unknown_command(const CLI::App& app, const std::string& word) {
  if (const Foreign* foreign = find_foreign(kForeignCommands, word)) {
    std::string text(foreign->answer);
    if (const auto at = text.find("{store}"); at != std::string::npos)
      text.replace(at, 7, "the store (~/.local/share/steelyard/models, or $STEELYARD_MODELS)");
    return text;
  }
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  const auto near = nearest(names, word);
  return fmt::format("there is no command '{}'{}", readable(word),
                     near ? fmt::format("; did you mean {}?", *near) : ": `steelyard --help` lists them");
}

// "NAME: wants …" and the parser's own sentences, with the name as it was typed.
std::string value_sentence(const CLI::App& command, const std::string& message,
                           const std::vector<std::string>& words, bool missing) {
  const auto colon = message.find(": ");
  if (colon == std::string::npos) return message;
  const std::string name = as_typed(command, message.substr(0, colon), words);
  if (missing) return name + " wants a value";
  const std::string what = message.substr(colon + 2);
  return name + (what.starts_with("wants ") ? " " : ": ") + what;
}

// All of `text` as a number of type T, or nothing.
template <typename T>
std::optional<double> number_of(const std::string& text) {
  T value{};
  const char* end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc() || at != end || !std::isfinite(static_cast<double>(value))) return std::nullopt;
  return static_cast<double>(value);
}

}  // namespace

CLI::Option* takes_number(CLI::Option* option, double low, double high, bool whole) {
  const auto check = [=](std::string& text) -> std::string {
    const auto value = whole ? number_of<std::int64_t>(text) : number_of<double>(text);
    if (value && *value >= low && *value <= high) return {};
    return fmt::format("wants a {}number from {:.15g} to {:.15g}, not '{}'", whole ? "whole " : "", low, high,
                       readable(text));
  };
  option->description(fmt::format("{} [{:.15g} to {:.15g}]", option->get_description(), low, high));
  return option->type_name(whole ? "N" : "X")->check(CLI::Validator(check, ""));
}

CLI::Option* takes_one_of(CLI::Option* option, std::vector<std::string> words) {
  const auto check = [words](std::string& text) -> std::string {
    for (const auto& word : words)
      if (CLI::detail::to_lower(text) == word) return {};
    return fmt::format("wants one of {}, not '{}'", fmt::join(words, ", "), readable(text));
  };
  return option->type_name("NAME")->check(CLI::Validator(check, ""));
}

CLI::Option* takes(CLI::Option* option, const std::string& name,
                   std::function<void(const std::string& value)> parse) {
  const auto check = [parse = std::move(parse)](std::string& text) -> std::string {
    try {
      parse(text);
    } catch (const Error& e) {
      return e.what();
    }
    return {};
  };
  return option->type_name(name)->check(CLI::Validator(check, ""));
}

CLI::Option* takes_several(CLI::Option* option, const std::string& name) {
  return option->type_name(name)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->allow_extra_args(false);
}

void set_up_parser(CLI::App& app) {
  app.formatter(std::make_shared<HelpFormat>());
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
}

std::vector<std::string> normal_words(const CLI::App& app, std::vector<std::string> words) {
  if (words.empty()) return words;
  const CLI::App* command = &app;
  for (const CLI::App* sub : app.get_subcommands({}))
    if (sub->get_name() == words[0]) command = sub;
  const auto names = flag_names(*command);
  for (std::string& word : words) {
    if (word == "--") break;
    const std::string flag = flag_of(word);
    if (word.starts_with("--") && std::ranges::find(names, flag) != names.end())
      word.replace(0, flag.size(), flag);
  }
  return words;
}

std::string usage_sentence(const CLI::App& app, const CLI::ParseError& error,
                           const std::vector<std::string>& words) {
  const CLI::App* command = &app;
  for (const CLI::App* sub : app.get_subcommands()) command = sub;
  if (command == &app) {
    if (!words.empty() && !words[0].starts_with('-')) return unknown_command(app, words[0]);
    if (dynamic_cast<const CLI::RequiredError*>(&error))
      return "say what to do: `steelyard --help` lists the commands";
  }
  std::string text = error.what();
  if (dynamic_cast<const CLI::ExtrasError*>(&error))
    text = unknown_argument(*command, app.remaining(true));
  else
    text =
        value_sentence(*command, text, words, dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr);
  const std::string name = command == &app ? "" : command->get_name() + " ";
  return fmt::format("{} (see `steelyard {}--help`)", text, name);
}

}  // namespace steelyard
