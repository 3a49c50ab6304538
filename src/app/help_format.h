// How helps look.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>

namespace steelyard {

// One flag a paragraph: its names and the kind of value, then what it does, beside it and wrapped.
class HelpFormat : public CLI::Formatter {
 public:
  HelpFormat();
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_subcommand(const CLI::App* command) const override;  // the first line of what it does
};

}  // namespace steelyard
