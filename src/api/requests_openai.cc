// OpenAI's dialect.
#include "api/answer_grammar.h"
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

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

bool wants_usage(const Fields& f) {
  const Json* options = f.find("stream_options");
  if (!options) return false;
  if (!options->is_object()) f.wrong("stream_options", "an object");
  return Fields(*options, "stream_options.").flag("include_usage").value_or(false);
}

// What chats and completions have in common.
void read_common(CommonRequest& r, const Fields& f) {
  read_head(r, f, false);
  r.biases = read_biases(f);
  r.grammar = read_response_format(f);
  r.choices = static_cast<std::uint32_t>(f.integer("n", 1, kMostChoices).value_or(1));
  r.options = read_openai_options(f);
}

void read_prompts(CompletionRequest& r, const Fields& f) {
  const Json* v = f.find("prompt");
  if (!v || (v->is_array() && v->empty()))
    throw_error(ErrorKind::bad_input, "\"prompt\" is missing or empty");
  read_texts(f, "prompt", r.prompts, r.prompt_ids);
  if ((r.prompts.size() + r.prompt_ids.size()) * r.choices > kMostChoices)
    throw_error(ErrorKind::bad_input, "\"prompt\" and \"n\" ask for more than {} answers", kMostChoices);
}

// Here a number: of the likeliest tokens to tell beside.
std::int32_t completion_logprobs(const Fields& f) {
  const Json* v = f.find("logprobs");
  if (v && v->is_boolean()) return *v ? 0 : -1;
  return static_cast<std::int32_t>(f.integer("logprobs", 0, kMostChances).value_or(-1));
}

void refuse_completion(const Fields& f) {
  if (!f.text("suffix").value_or("").empty())
    f.refuse("suffix", "isn't supported: no model of this server is told what follows");
  if (f.integer("best_of", 1, kInt32).value_or(1) > f.integer("n", 1, kMostChoices).value_or(1))
    f.refuse("best_of", "may not be larger than \"n\": every answer that is made is told");
  if (f.flag("echo").value_or(false) && f.find("logprobs"))
    f.refuse("echo", "can't be had together with \"logprobs\": those of prompts aren't kept");
}

}  // namespace

CompletionRequest parse_completion(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  CompletionRequest r;
  read_common(r, f);
  refuse_completion(f);
  r.logprobs = completion_logprobs(f);
  r.echo = f.flag("echo").value_or(false);
  r.include_usage = wants_usage(f);
  read_prompts(r, f);
  return r;
}

OpenAiChatRequest parse_openai_chat(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  OpenAiChatRequest r;
  read_common(r, f);
  r.logprobs = read_logprobs(f);
  r.input.messages = read_messages(json);
  rename_developer(r.input.messages);
  r.truncate = f.flag("truncate").value_or(false);
  if (r.input.messages.empty()) throw_error(ErrorKind::bad_input, "\"messages\" is missing or empty");
  if (may_use_tools(f)) r.input.tools = read_tools(f);
  refuse_beside_tools(r, "response_format");
  r.one_call = !f.flag("parallel_tool_calls").value_or(true);
  if (const auto effort = f.text("reasoning_effort")) r.input.think = *effort != "none";
  r.include_usage = wants_usage(f);
  return r;
}

}  // namespace steelyard::api
