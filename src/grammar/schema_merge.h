// JSON Schemas put together, and told apart. Pure; private to grammar/.
#pragma once

#include <nlohmann/json.hpp>
#include <string_view>

namespace steelyard::schema {

using Json = nlohmann::ordered_json;

// A schema that says what both say; false: nothing can. Throws Error(unsupported) where that can't be said.
Json merged(const Json& a, const Json& b);
// Keywords that say nothing about a value.
bool is_annotation(std::string_view keyword);
// Whether a value that `a` allows can't be one that `b` does; false also where that isn't known.
bool disjoint(const Json& a, const Json& b);
// "integer" is a "number" too.
bool is_of_type(const Json& value, std::string_view type);
bool may_be_of_type(const Json& types, std::string_view type);

}  // namespace steelyard::schema
