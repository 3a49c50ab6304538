// The command line beyond what the parser does: what a flag's value may be, how helps look, and what is said
// of a line that is wrong.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"

namespace steelyard {

// The command line is wrong, whatever files and machine hold: exit 2.
class UsageError : public Error {
 public:
  explicit UsageError(std::string message) : Error(ErrorKind::bad_input, std::move(message)) {}
};
template <typename... Args>
[[noreturn]] void throw_usage(fmt::format_string<Args...> format, Args&&... args) {
  throw UsageError(fmt::format(format, std::forward<Args>(args)...));
}

// A number from `low` to `high`, which the help shows.
CLI::Option* takes_number(CLI::Option* option, double low, double high, bool whole = true);
// One of these words, in any case.
CLI::Option* takes_one_of(CLI::Option* option, std::vector<std::string> words);
// A value that `parse` takes without throwing Error; the help calls it `name`.
CLI::Option* takes(CLI::Option* option, const std::string& name,
                   std::function<void(const std::string& value)> parse);

// Each time the flag is given it takes one more; the help calls a value `name`.
CLI::Option* takes_several(CLI::Option* option, const std::string& name);

// Makes a parser's helps readable, and lets the last of a repeated flag win. To be called before commands are
// added.
void set_up_parser(CLI::App& app);

// The words of the command line (without the program's name): flags of `app` and its commands may have '_'
// where they have '-'.
std::vector<std::string> normal_words(const CLI::App& app, std::vector<std::string> words);

// One sentence about a line that the parser refused. `words` as they were typed.
std::string usage_sentence(const CLI::App& app, const CLI::ParseError& error,
                           const std::vector<std::string>& words);

}  // namespace steelyard
