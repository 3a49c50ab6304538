// Ollama's dialect.
#include <algorithm>

#include "api/answer_grammar.h"
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

void read_common(const Json& json, CommonRequest& r) {
  const Fields f(json);
  read_head(r, f, true);
  r.options = read_options(json);
  r.grammar = read_ollama_format(f);
  r.logprobs = read_logprobs(f);
}

}  // namespace

GenerateRequest parse_generate(std::string_view body) {
  const Json json = parse_object(body);
  GenerateRequest r;
  read_common(json, r);
  const Fields f(json);
  r.prompt = f.text("prompt").value_or("");
  r.system = f.text("system");
  r.raw = f.flag("raw").value_or(false);
  r.think = read_think(f);
  if (const Json* context = f.find("context")) r.context = token_ids(f, "context", *context);
  if (!f.text("suffix").value_or("").empty()) f.refuse("suffix", "isn't supported yet");
  if (!f.text("template").value_or("").empty())
    f.refuse("template", "isn't supported: the model's own is used (or \"raw\": true)");
  if (!empty_list(f.find("images"))) f.refuse("images", "aren't supported yet");
  return r;
}

ChatRequest parse_chat(std::string_view body) {
  const Json json = parse_object(body);
  ChatRequest r;
  read_common(json, r);
  r.input.messages = read_messages(json);
  r.input.tools = read_tools(Fields(json));
  refuse_beside_tools(r, "format");
  r.input.think = read_think(Fields(json));
  r.truncate = Fields(json).flag("truncate").value_or(false);
  return r;
}

}  // namespace steelyard::api
