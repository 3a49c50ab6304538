// Ollama's dialect.
#include <algorithm>

#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"
#include "engine/sampling_options.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

// Of the options, those that read_options doesn't read. Ollama has more (num_gpu, mirostat …): those are for
// its engine.
std::vector<std::string> unknown_options(const Json& options) {
  const auto known = answer_option_names();
  std::vector<std::string> names;
  for (const auto& [name, value] : options.items())
    if (name != "num_ctx" && name != "mirostat" && std::find(known.begin(), known.end(), name) == known.end())
      names.push_back(name);
  return names;
}

Options read_options(const Json& request) {
  Options o;
  const auto it = request.find("options");
  if (it == request.end() || it->is_null()) return o;
  if (!it->is_object()) throw_error(ErrorKind::bad_input, "\"options\" must be an object");
  const Fields f(*it, "options.");
  for (const NumberOption& option : number_options()) read_number(o, f, option);
  take_seed(o, f);
  assign(o.num_ctx, f.integer("num_ctx", 0, kInt32));
  take_stops(o, f.texts("stop"));
  if (f.integer("mirostat", 0, 2).value_or(0) != 0)
    f.refuse("mirostat", "isn't supported: use \"top_p\" or \"min_p\"");
  o.ignored = unknown_options(*it);
  return o;
}

void refuse_format(const Fields& f) {
  const Json* v = f.find("format");
  if (!v || (v->is_string() && v->get_ref<const std::string&>().empty())) return;
  f.refuse("format", "isn't supported yet: answers can't be held to JSON or a schema");
}

void read_common(const Json& json, CommonRequest& r) {
  const Fields f(json);
  r.model = read_model(f);
  r.stream = f.flag("stream").value_or(true);
  r.keep_alive = read_keep_alive(f);
  r.options = read_options(json);
  refuse_format(f);
  if (f.flag("logprobs").value_or(false)) f.refuse("logprobs", "aren't supported yet");
}

std::vector<TokenId> read_context(const Fields& f) {
  const Json* v = f.find("context");
  if (!v) return {};
  if (!v->is_array()) f.wrong("context", "a list of token ids");
  std::vector<TokenId> ids;
  for (const auto& id : *v) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() > kInt32)
      f.wrong("context", "a list of token ids");
    ids.push_back(id.get<TokenId>());
  }
  return ids;
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
  r.context = read_context(f);
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
  r.input.tools = read_tools(json);
  r.input.think = read_think(Fields(json));
  r.truncate = Fields(json).flag("truncate").value_or(false);
  return r;
}

}  // namespace steelyard::api
