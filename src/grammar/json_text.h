// JSON's strings and numbers as grammar expressions. Pure; they throw Error(bad_input, unsupported) as
// GrammarBuilder does, and for patterns beyond the regular subset.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "grammar/grammar.h"

namespace steelyard {

// One character of a JSON string, as it is or escaped.
GrammarBuilder::Expr json_character(GrammarBuilder& b);
// A character of `ranges` as a JSON string holds it: escaped only where it must be.
GrammarBuilder::Expr json_character(GrammarBuilder& b, const GrammarBuilder::Ranges& ranges);
// The characters of a JSON string, between the quotes, that match a regular expression (ECMA 262's syntax,
// without back references, looking around, and boundaries of words) somewhere.
GrammarBuilder::Expr json_pattern(GrammarBuilder& b, std::string_view pattern);
// The characters of a JSON string of a known format ("date", "uuid" …); nullopt: it isn't known.
std::optional<GrammarBuilder::Expr> json_format(GrammarBuilder& b, std::string_view format);

// A number's limits, as JSON Schema says them.
struct NumberLimits {
  std::optional<double> least, most;
  bool above = false, below = false;  // the limits themselves are left out
};
GrammarBuilder::Expr json_integer(GrammarBuilder& b, const NumberLimits& limits);
GrammarBuilder::Expr json_number(GrammarBuilder& b, const NumberLimits& limits);

}  // namespace steelyard
