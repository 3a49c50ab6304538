// JSON, and JSON that a JSON Schema allows (draft 2020-12, and the older "definitions"), as grammars: every
// answer that a grammar takes is valid; not every valid one is taken. Members come in the schema's order,
// others only where "additionalProperties" says so. Pure. Throws Error(unsupported) that names a keyword
// which can't be honoured, Error(bad_input) for what is no schema, for one that nothing satisfies and for one
// too large.
#pragma once

#include <nlohmann/json.hpp>

#include "grammar/grammar.h"

namespace steelyard {

// Any JSON object.
Grammar json_grammar();
Grammar schema_grammar(const nlohmann::ordered_json& schema);

}  // namespace steelyard
