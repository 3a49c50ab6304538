// Parses a template into its tree; the grammar is jinja2's (3.1) with the loop control and generation tags.
#pragma once

#include <memory>
#include <string_view>

#include "jinja/ast.h"

namespace steelyard::jinja {

// `source` is valid UTF-8. Throws Failure with the line.
std::unique_ptr<Template> parse(std::string_view source);

}  // namespace steelyard::jinja
