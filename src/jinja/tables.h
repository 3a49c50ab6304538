// What a template can name: filters, tests, methods, global functions. Internal to jinja/, and for tests that
// try them all.
#pragma once

#include <map>
#include <string_view>

#include "jinja/value.h"

namespace steelyard::jinja {

using FunctionTable = std::map<std::string_view, Function>;
using Test = bool (*)(Interpreter&, const Value&, Arguments&);
using TestTable = std::map<std::string_view, Test>;

const FunctionTable& filters();
const TestTable& tests();
const FunctionTable& methods_of(Kind kind);
const FunctionTable& globals();

void add_text_filters(FunctionTable& table);
void add_sequence_filters(FunctionTable& table);
const FunctionTable& string_methods();

// Null when there is no such thing.
inline Function in_table(const FunctionTable& table, std::string_view name) {
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace steelyard::jinja
