// OpenAI's responses: a conversation of items.
#include <string>
#include <utility>

#include "api/answer_grammar.h"
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"
#include "engine/chat.h"

namespace steelyard::api {
namespace {

Json function_call(const Fields& f) {
  return {{"role", "assistant"},
          {"content", ""},
          {"tool_calls",
           {{{"id", needed_text(f, "call_id")},
             {"type", "function"},
             {"function", {{"name", needed_text(f, "name")}, {"arguments", needed_text(f, "arguments")}}}}}}};
}

void add_item(Json& messages, const Json& item, const std::string& where) {
  if (!item.is_object()) throw_error(ErrorKind::bad_input, "\"{}\" must be an object", where);
  const Fields f(item, where + ".");
  const std::string type = f.text("type").value_or("message");
  const auto text = [&](const char* key) {
    const Json* value = f.find(key);
    return parts_text(value ? *value : Json(), where + "." + key, {"input_text", "output_text", "text"});
  };
  if (type == "message") {
    messages.push_back({{"role", needed_text(f, "role")}, {"content", text("content")}});
  } else if (type == "function_call") {
    messages.push_back(function_call(f));
  } else if (type == "function_call_output") {
    messages.push_back(
        {{"role", "tool"}, {"tool_call_id", needed_text(f, "call_id")}, {"content", text("output")}});
  } else if (type != "reasoning") {
    f.refuse("type",
             fmt::format("is \"{}\": only messages, function calls and their outputs are supported", type));
  }
}

Json read_input(const Fields& f, ResponsesEcho& echo) {
  Json messages = Json::array();
  echo.instructions = f.text("instructions");
  if (echo.instructions) messages.push_back({{"role", "system"}, {"content", *echo.instructions}});
  const Json* input = f.find("input");
  if (!input || (input->is_array() && input->empty()))
    throw_error(ErrorKind::bad_input, "\"input\" is missing or empty");
  if (input->is_string()) {
    messages.push_back({{"role", "user"}, {"content", *input}});
  } else if (input->is_array()) {
    for (std::size_t i = 0; i < input->size(); ++i)
      add_item(messages, (*input)[i], fmt::format("input[{}]", i));
  } else {
    f.wrong("input", "a string or a list of items");
  }
  rename_developer(messages);
  return messages;
}

// What a server without a memory of conversations can't do.
void refuse_responses(const Fields& f) {
  if (f.find("previous_response_id"))
    f.refuse("previous_response_id", "isn't supported: nothing is stored; send the whole conversation");
  if (f.find("conversation")) f.refuse("conversation", "isn't supported: nothing is stored");
  if (f.flag("background").value_or(false)) f.refuse("background", "isn't supported");
  if (f.find("prompt")) f.refuse("prompt", "isn't supported: there are no stored prompts");
}

void read_reasoning(const Fields& f, ChatInput& input) {
  const Json* reasoning = f.find("reasoning");
  if (!reasoning) return;
  if (!reasoning->is_object()) f.wrong("reasoning", "an object");
  const auto effort = Fields(*reasoning, "reasoning.").text("effort");
  if (effort) input.think = *effort != "none" && *effort != "minimal";
}

}  // namespace

ResponsesRequest parse_responses(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  ResponsesRequest r;
  read_head(r, f, false);
  refuse_responses(f);
  r.echo.max_output_tokens = f.integer("max_output_tokens", 1, kInt32);
  r.echo.temperature = f.number("temperature", 0, 2);
  r.echo.top_p = f.number("top_p", 0, 1);
  take_number(r.options, r.echo.max_output_tokens, "num_predict");
  take_number(r.options, r.echo.temperature, "temperature");
  if (r.echo.top_p) read_number(r.options, f, *find_number_option("top_p"));
  r.input.messages = read_input(f, r.echo);
  if (may_use_tools(f)) r.input.tools = read_flat_tools(f, "function", "", "parameters");
  if (const Json* tools = f.find("tools")) r.echo.tools = *tools;
  if (const Json* text = f.find("text")) {
    if (!text->is_object()) f.wrong("text", "an object");
    r.grammar = read_flat_format(Fields(*text, "text."), "format");
  }
  refuse_beside_tools(r, "text.format");
  read_reasoning(f, r.input);
  const std::string truncation = f.text("truncation").value_or("disabled");
  if (truncation != "disabled" && truncation != "auto") f.wrong("truncation", "\"disabled\" or \"auto\"");
  r.truncate = r.echo.truncate = truncation == "auto";
  return r;
}

}  // namespace steelyard::api
