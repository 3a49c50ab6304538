// llama.cpp's grammar notation: name ::= "text" [class] . (group) other-name, with | * + ? {m,n} and # for
// comments; what is asked for is the rule "root". Pure. Throws Error(bad_input) with the line.
#pragma once

#include <string_view>

#include "grammar/grammar.h"

namespace steelyard {

Grammar gbnf_grammar(std::string_view text);

}  // namespace steelyard
