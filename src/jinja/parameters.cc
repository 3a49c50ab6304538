// Arguments of a call bound to parameter names, as Python binds them.
#include <algorithm>

#include "jinja/interpreter.h"
#include "jinja/python_text.h"

namespace steelyard::jinja {

Parameters::Parameters(const char* function, const Arguments& arguments,
                       std::initializer_list<std::string_view> names)
    : function_(function) {
  if (arguments.positional.size() > names.size())
    fail("{}() takes at most {} argument(s) ({} given)", function, names.size(), arguments.positional.size());
  for (std::size_t i = 0; i < arguments.positional.size(); ++i) values_[i] = &arguments.positional[i];
  for (const auto& [name, value] : arguments.named) {
    std::size_t at = static_cast<std::size_t>(std::find(names.begin(), names.end(), name) - names.begin());
    if (at == names.size()) fail("{}() got an unexpected keyword argument '{}'", function, cut_text(name));
    if (values_[at] != nullptr) fail("{}() got multiple values for argument '{}'", function, name);
    values_[at] = &value;
  }
}

const Value& Parameters::require(std::size_t i) const {
  if (values_[i] == nullptr) fail("{}() is missing a required argument", function_);
  return *values_[i];
}

std::int64_t Parameters::integer(std::size_t i, std::int64_t otherwise) const {
  if (values_[i] == nullptr) return otherwise;
  return to_index(*values_[i], function_);
}

}  // namespace steelyard::jinja
