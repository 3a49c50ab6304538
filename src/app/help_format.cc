#include "app/help_format.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <sstream>
#include <vector>

#include "app/terminal.h"
#include "app/word_wrap.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kIndent = 28;  // where descriptions begin

std::uint32_t page_columns() {
  return stdout_is_terminal() ? std::clamp(terminal_columns(), 50u, 110u) : 100;
}

// "  name   what it does, in as many lines as it takes"
std::string entry(const std::string& name, const std::string& text) {
  std::string wrapped;
  WordWrap wrap([&](std::string_view t) { wrapped += t; }, [] { return page_columns() - kIndent; });
  wrap.add(text);
  wrap.finish();
  std::string out = "  " + name;
  if (columns_of(out) + 1 > kIndent) out += '\n' + std::string(kIndent, ' ');
  out.resize(out.size() + (kIndent > columns_of(out) ? kIndent - columns_of(out) : 0), ' ');
  std::istringstream lines(wrapped);
  bool first = true;
  for (std::string line; std::getline(lines, line); first = false)
    out += (first ? "" : '\n' + std::string(kIndent, ' ')) + line;
  return out + '\n';
}

// "-n, --num-predict": the short names and the first long one; the other long ones are for the description.
std::string names_of(const CLI::Option& option, std::string& others) {
  std::vector<std::string> shown, also;
  for (const auto& name : option.get_snames()) shown.push_back("-" + name);
  for (const auto& name : option.get_lnames())
    (also.empty() && (shown.empty() || !shown.back().starts_with("--")) ? shown : also)
        .push_back("--" + name);
  if (!also.empty()) others = fmt::format("; also {}", fmt::join(also, ", "));
  return fmt::format("{}", fmt::join(shown, ", "));
}

}  // namespace

HelpFormat::HelpFormat() {
  label("SUBCOMMAND", "COMMAND");
  label("Positionals", "Arguments");
}

std::string HelpFormat::make_option(const CLI::Option* option, bool is_positional) const {
  std::string others;
  std::string name = is_positional ? option->get_name(true, false) : names_of(*option, others);
  if (!is_positional && option->get_type_size() != 0) name += " " + option->get_type_name();
  std::string text = option->get_description() + others;
  if (!option->get_default_str().empty()) text += fmt::format(" (default: {})", option->get_default_str());
  return entry(name, text);
}

std::string HelpFormat::make_subcommand(const CLI::App* command) const {
  const std::string text = command->get_description();
  return entry(command->get_name(), text.substr(0, text.find('\n')));
}

}  // namespace steelyard
