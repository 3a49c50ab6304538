#include "api/answer_grammar.h"

#include <string>
#include <utility>

#include "base/error.h"
#include "grammar/gbnf.h"
#include "grammar/json_schema.h"

namespace steelyard::api {
namespace {

using Held = std::shared_ptr<const Grammar>;

Held held(Grammar grammar) { return std::make_shared<const Grammar>(std::move(grammar)); }

Held schema_of(const Fields& f) {
  const Json* schema = f.find("schema");
  if (!schema) f.wrong("schema", "a JSON schema");
  return held(schema_grammar(*schema));
}

// llama-server's, in every dialect; one of the two at most.
Held read_gbnf(const Fields& f, const char* other, Held format) {
  const auto text = f.text("grammar");
  if (!text || text->empty()) return format;
  if (format) f.refuse("grammar", fmt::format("can't be had together with \"{}\"", other));
  return held(gbnf_grammar(*text));
}

// {"type": …}, with the schema where `schema` finds it.
template <typename Schema>
Held read_typed(const Fields& f, const char* key, Schema schema) {
  const Json* format = f.find(key);
  if (!format) return nullptr;
  if (!format->is_object()) f.wrong(key, "an object with a \"type\"");
  const Fields its(*format, std::string(key) + ".");
  const std::string type = its.text("type").value_or("");
  if (type == "text") return nullptr;
  if (type == "json_object") return its.find("schema") ? schema_of(its) : held(json_grammar());
  if (type == "json_schema") return schema(its);
  its.refuse("type", "may be \"text\", \"json_object\" or \"json_schema\"");
}

}  // namespace

Held read_ollama_format(const Fields& f) {
  const Json* format = f.find("format");
  Held its;
  if (format && format->is_object())
    its = held(schema_grammar(*format));
  else if (format && *format == "json")
    its = held(json_grammar());
  else if (format && *format != "")
    f.wrong("format", "\"json\" or a JSON schema");
  return read_gbnf(f, "format", std::move(its));
}

Held read_response_format(const Fields& f) {
  Held its = read_typed(f, "response_format", [](const Fields& of) {
    const Json* inner = of.find("json_schema");
    if (!inner || !inner->is_object()) of.wrong("json_schema", "an object with a \"schema\"");
    return schema_of(Fields(*inner, "response_format.json_schema."));
  });
  return read_gbnf(f, "response_format", std::move(its));
}

Held read_flat_format(const Fields& f, const char* key) {
  return read_typed(f, key, [](const Fields& of) { return schema_of(of); });
}

void refuse_beside_tools(const ChatRequest& r, const char* field) {
  if (r.grammar && r.input.tools.is_array())
    throw_error(ErrorKind::unsupported,
                "\"{}\" isn't supported together with \"tools\": an answer held to it can't call any", field);
}

}  // namespace steelyard::api
