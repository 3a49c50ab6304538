// Anthropic's dialect: messages made of blocks.
#include <string>
#include <utility>

#include "api/answer_grammar.h"
#include "api/request_parts.h"
#include "api/requests.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

[[noreturn]] void refuse_block(const std::string& where, const std::string& type) {
  throw_error(ErrorKind::unsupported,
              "\"{}\" holds a block of type \"{}\": only text, tool calls and their results are supported",
              where, type);
}

Json tool_call(const Json& block, const std::string& where) {
  const Fields f(block, where + ".");
  const auto id = f.text("id"), name = f.text("name");
  if (!id || !name) f.wrong("id", "a string, as must \"name\"");
  const Json* input = f.find("input");
  return {{"id", *id},
          {"type", "function"},
          {"function", {{"name", *name}, {"arguments", input ? *input : Json::object()}}}};
}

Json tool_result(const Json& block, const std::string& where) {
  const Fields f(block, where + ".");
  const auto id = f.text("tool_use_id");
  if (!id) f.wrong("tool_use_id", "a string");
  const Json* content = f.find("content");
  return {{"role", "tool"},
          {"tool_call_id", *id},
          {"content", parts_text(content ? *content : Json(), where + ".content", {"text"})}};
}

// Results of tools are messages of their own, before what the user says beside them.
void add_blocks(Json& messages, const std::string& role, const Json& blocks, const std::string& where) {
  Json message = {{"role", role}, {"content", ""}};
  std::string text, thinking;
  bool said = false;
  for (std::size_t i = 0; i < blocks.size(); ++i) {
    const std::string at = fmt::format("{}[{}]", where, i);
    const Json& block = blocks[i];
    if (!block.is_object()) throw_error(ErrorKind::bad_input, "\"{}\" must be an object", at);
    const Fields f(block, at + ".");
    const std::string type = f.text("type").value_or("");
    if (type == "text") {
      text += f.text("text").value_or("");
      said = true;
    } else if (type == "tool_use" && role == "assistant") {
      message["tool_calls"].push_back(tool_call(block, at));
      said = true;
    } else if (type == "tool_result" && role == "user") {
      messages.push_back(tool_result(block, at));
    } else if (type == "thinking") {
      thinking += f.text("thinking").value_or("");
    } else if (type != "redacted_thinking") {
      refuse_block(at, type);
    }
  }
  message["content"] = text;
  if (!thinking.empty()) message["thinking"] = thinking;
  if (said) messages.push_back(std::move(message));
}

Json read_conversation(const Fields& f) {
  Json messages = Json::array();
  if (const Json* system = f.find("system")) {
    std::string text = parts_text(*system, "system", {"text"});
    if (!text.empty()) messages.push_back({{"role", "system"}, {"content", std::move(text)}});
  }
  const Json* list = f.find("messages");
  if (!list || !list->is_array() || list->empty()) f.wrong("messages", "a list that isn't empty");
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& m = (*list)[i];
    const std::string where = fmt::format("messages[{}]", i);
    if (!m.is_object()) throw_error(ErrorKind::bad_input, "\"{}\" must be an object", where);
    const Fields of(m, where + ".");
    const std::string role = of.text("role").value_or("");
    if (role != "user" && role != "assistant") of.wrong("role", "\"user\" or \"assistant\"");
    const Json* content = of.find("content");
    if (content && content->is_array())
      add_blocks(messages, role, *content, where + ".content");
    else
      messages.push_back({{"role", role}, {"content", of.text("content").value_or("")}});
  }
  return messages;
}

// "auto" or "none": whether the tools are told at all.
bool wants_tools(const Fields& f) {
  const Json* choice = f.find("tool_choice");
  if (!choice) return true;
  const std::string type =
      choice->is_object() ? Fields(*choice, "tool_choice.").text("type").value_or("") : "";
  if (type != "auto" && type != "none") f.refuse("tool_choice", "may only be of type \"auto\" or \"none\"");
  return type == "auto";
}

std::optional<bool> wants_thinking(const Fields& f) {
  const Json* thinking = f.find("thinking");
  if (!thinking) return std::nullopt;
  const std::string type =
      thinking->is_object() ? Fields(*thinking, "thinking.").text("type").value_or("") : "";
  if (type == "disabled") return false;
  if (type != "enabled" && type != "adaptive") f.wrong("thinking", "{\"type\": \"enabled\"} or \"disabled\"");
  return true;
}

}  // namespace

MessagesRequest parse_messages(std::string_view body, bool counting) {
  const Json json = parse_object(body);
  const Fields f(json);
  MessagesRequest r;
  read_head(r, f, false);
  const auto most = f.integer("max_tokens", 1, kInt32);
  if (!most && !counting) throw_error(ErrorKind::bad_input, "\"max_tokens\" is missing");
  take_number(r.options, most, "num_predict");
  take_number(r.options, f.number("temperature", 0, 2), "temperature");
  for (const char* name : {"top_p", "top_k"}) read_number(r.options, f, *find_number_option(name));
  take_stops(r.options, f.texts("stop_sequences"));
  r.input.messages = read_conversation(f);
  if (wants_tools(f)) r.input.tools = read_flat_tools(f, "custom", "custom", "input_schema");
  r.grammar = read_flat_format(f, "output_format");
  if (const Json* output = f.find("output_config")) {
    if (!output->is_object()) f.wrong("output_config", "an object");
    const auto grammar = read_flat_format(Fields(*output, "output_config."), "format");
    if (grammar) r.grammar = grammar;
  }
  refuse_beside_tools(r, "output_config.format");
  if (const Json* choice = f.find("tool_choice"))
    r.one_call = Fields(*choice, "tool_choice.").flag("disable_parallel_tool_use").value_or(false);
  r.input.think = wants_thinking(f);
  return r;
}

}  // namespace steelyard::api
