// OpenAI's dialect.
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

// What OpenAI's dialect knows and Steelyard can't do yet.
void refuse_openai(const Fields& f) {
  if (f.integer("n", 1, 1000000).value_or(1) > 1) f.refuse("n", "may only be 1");
  if (f.flag("logprobs").value_or(false)) f.refuse("logprobs", "aren't supported yet");
  if (const Json* v = f.find("response_format")) {
    const bool text = v->is_object() && v->contains("type") && (*v)["type"] == "text";
    if (!text) f.refuse("response_format", "isn't supported yet, but for {\"type\": \"text\"}");
  }
  if (const Json* v = f.find("tool_choice"))
    if (!v->is_string() || (*v != "auto" && *v != "none"))
      f.refuse("tool_choice", "may only be \"auto\" or \"none\"");
  if (const Json* v = f.find("logit_bias"); v && !(v->is_object() && v->empty()))
    f.refuse("logit_bias", "isn't supported yet");
}

// Beside OpenAI's own the sampling options that other servers of this dialect take too.
Options read_openai_options(const Fields& f) {
  Options o;
  take_number(o, f.number("temperature", 0, 2), "temperature");
  take_number(o, f.number("presence_penalty", -2, 2), "presence_penalty");
  take_number(o, f.number("frequency_penalty", -2, 2), "frequency_penalty");
  for (const char* name : {"top_p", "top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n"})
    read_number(o, f, *find_number_option(name));
  take_seed(o, f);
  take_number(o, f.integer("max_tokens", 1, kInt32), "num_predict");
  take_number(o, f.integer("max_completion_tokens", 1, kInt32), "num_predict");
  assign(o.num_ctx, f.integer("num_ctx", 0, kInt32));
  take_stops(o, f.texts("stop"));
  return o;
}

}  // namespace

OpenAiChatRequest parse_openai_chat(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  OpenAiChatRequest r;
  r.model = read_model(f);
  r.stream = f.flag("stream").value_or(false);
  refuse_openai(f);
  r.options = read_openai_options(f);
  r.input.messages = read_messages(json);
  rename_developer(r.input.messages);
  r.truncate = f.flag("truncate").value_or(false);
  r.keep_alive = read_keep_alive(f);
  if (r.input.messages.empty()) throw_error(ErrorKind::bad_input, "\"messages\" is missing or empty");
  if (const auto* choice = f.find("tool_choice"); !choice || *choice != "none")
    r.input.tools = read_tools(json);
  if (const auto* options = f.find("stream_options")) {
    if (!options->is_object()) f.wrong("stream_options", "an object");
    r.include_usage = Fields(*options, "stream_options.").flag("include_usage").value_or(false);
  }
  return r;
}

}  // namespace steelyard::api
