// Which names a scope gives a value before it reads them. jinja2 decides this when it compiles: such a name
// is undefined until then, even when the template's variables have it; every other name is looked up outward.
#pragma once

#include "jinja/ast.h"

namespace steelyard::jinja {

// Fills undefined_at_entry of the template and of every statement that opens a scope.
void find_undefined_at_entry(Template& tree);

}  // namespace steelyard::jinja
