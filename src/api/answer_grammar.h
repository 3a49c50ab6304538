// What a request holds its answer to, in the dialects' words. Pure functions; null: nothing. They throw
// Error(bad_input, unsupported) that names the field, or the keyword of the schema.
#pragma once

#include <memory>

#include "api/fields.h"
#include "api/requests.h"
#include "grammar/grammar.h"

namespace steelyard::api {

// Ollama's "format": "json" or a schema; and llama-server's "grammar", in GBNF.
std::shared_ptr<const Grammar> read_ollama_format(const Fields& f);
// OpenAI's "response_format", with the schema in an object of its own; and "grammar".
std::shared_ptr<const Grammar> read_response_format(const Fields& f);
// {"type": "json_schema", "schema": …} and the like in the field `key`.
std::shared_ptr<const Grammar> read_flat_format(const Fields& f, const char* key);
// An answer held to a format can't call a tool.
void refuse_beside_tools(const ChatRequest& request, const char* field);

}  // namespace steelyard::api
