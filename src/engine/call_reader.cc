#include "engine/call_reader.h"

#include <algorithm>
#include <cctype>
#include <optional>
#include <utility>

#include "engine/chat.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kLongestName = 128, kMostCalls = 128, kMostArguments = 1024;
constexpr std::string_view kSpace = " \t\r\n";

std::string_view trimmed(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(kSpace);
  if (begin == std::string_view::npos) return {};
  return text.substr(begin, text.find_last_not_of(kSpace) - begin + 1);
}

bool take(std::string_view& text, std::string_view word) {
  if (!text.starts_with(word)) return false;
  text.remove_prefix(word.size());
  return true;
}

// What stands before `mark`, which is removed too; nullopt where it doesn't occur.
std::optional<std::string_view> take_until(std::string_view& text, std::string_view mark) {
  const std::size_t at = text.find(mark);
  if (at == std::string_view::npos) return std::nullopt;
  const std::string_view before = text.substr(0, at);
  text.remove_prefix(at + mark.size());
  return before;
}

bool is_name(std::string_view name) {
  return !name.empty() && name.size() <= kLongestName && std::ranges::all_of(name, [](unsigned char c) {
    return std::isalnum(c) || std::string_view("_-.:/").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

// The JSON value that `text` begins with, cut off; discarded where there is none.
Json take_json(std::string_view& text) {
  text = trimmed(text);
  int depth = 0;
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      i += c == '\\';
      quoted = c != '"';
      continue;
    }
    quoted = c == '"';
    depth += c == '{' || c == '[';
    if (c != '}' && c != ']') continue;
    if (--depth > 0) continue;
    const std::string_view value = text.substr(0, i + 1);
    text.remove_prefix(i + 1);
    return is_plain_enough(value) ? Json::parse(value, nullptr, false) : Json(Json::value_t::discarded);
  }
  return Json(Json::value_t::discarded);
}

const Json* tool_function(const Json& tools, std::string_view name) {
  if (!tools.is_array()) return nullptr;
  for (const Json& tool : tools) {
    const auto function = tool.is_object() ? tool.find("function") : tool.end();
    const Json& f = tool.is_object() && function != tool.end() ? *function : tool;
    if (!f.is_object()) continue;
    const auto its = f.find("name");
    if (its != f.end() && its->is_string() && its->get_ref<const std::string&>() == name) return &f;
  }
  return nullptr;
}

bool is_string_argument(const Json& tools, std::string_view name, const std::string& key) {
  const Json* f = tool_function(tools, name);
  const auto type = Json::json_pointer("/parameters/properties") / key / "type";
  if (!f || !f->contains(type)) return false;
  const Json& types = f->at(type);
  return types == "string" || (types.is_array() && std::ranges::find(types, "string") != types.end());
}

// A value that stands between tags.
Json tagged_value(std::string_view text, const Json& tools, std::string_view name, const std::string& key) {
  if (!take(text, "\r\n")) take(text, "\n");
  if (text.ends_with('\n')) text.remove_suffix(1);
  if (!is_string_argument(tools, name, key) && is_plain_enough(text)) {
    Json value = Json::parse(text, nullptr, false);
    if (!value.is_discarded() && !value.is_string()) return value;
  }
  return std::string(text);
}

std::optional<ToolCall> call_of(const Json& j) {
  if (!j.is_object()) return std::nullopt;
  const auto inner = j.find("function");
  if (inner != j.end() && inner->is_object()) return call_of(*inner);
  const auto name = inner != j.end() && inner->is_string() ? inner : j.find("name");
  if (name == j.end() || !name->is_string() || !is_name(name->get_ref<const std::string&>()))
    return std::nullopt;
  ToolCall call{*name, Json::object()};
  for (const char* key : {"arguments", "parameters", "args", "input"}) {
    const auto found = j.find(key);
    if (found == j.end()) continue;
    call.arguments = *found;
    break;
  }
  if (call.arguments.is_string() && is_plain_enough(call.arguments.get_ref<const std::string&>()))
    call.arguments = Json::parse(call.arguments.get_ref<const std::string&>(), nullptr, false);
  if (call.arguments.is_null()) call.arguments = Json::object();
  if (!call.arguments.is_object()) return std::nullopt;
  return call;
}

using Calls = std::vector<ToolCall>;

// One object after the other, or lists of them.
bool read_json_calls(std::string_view& text, Calls& calls) {
  const Json value = take_json(text);
  if (value.is_array()) {
    for (const Json& item : value) {
      auto call = call_of(item);
      if (!call || calls.size() == kMostCalls) return false;
      calls.push_back(std::move(*call));
    }
    return true;
  }
  auto call = call_of(value);
  if (!call) return false;
  calls.push_back(std::move(*call));
  return true;
}

// <function=NAME> <parameter=KEY> VALUE </parameter> … </function>
bool read_function_tag(std::string_view& text, const Json& tools, Calls& calls) {
  const auto name = take_until(text, ">");
  if (!name || !is_name(trimmed(*name))) return false;
  ToolCall call{std::string(trimmed(*name)), Json::object()};
  for (text = trimmed(text); take(text, "<parameter="); text = trimmed(text)) {
    const auto key = take_until(text, ">");
    const auto value = key ? take_until(text, "</parameter>") : std::nullopt;
    if (!value || call.arguments.size() == kMostArguments) return false;
    const std::string its(trimmed(*key));
    call.arguments[its] = tagged_value(*value, tools, call.name, its);
  }
  if (!take(text, "</function>") && !text.empty()) return false;
  calls.push_back(std::move(call));
  return true;
}

// NAME and <arg_key>KEY</arg_key> <arg_value>VALUE</arg_value> …
bool read_argument_tags(std::string_view name, std::string_view& text, const Json& tools, Calls& calls) {
  ToolCall call{std::string(name), Json::object()};
  for (text = trimmed(text); take(text, "<arg_key>"); text = trimmed(text)) {
    const auto key = take_until(text, "</arg_key>");
    text = trimmed(text);
    if (!key || !take(text, "<arg_value>")) return false;
    const auto value = take_until(text, "</arg_value>");
    if (!value || call.arguments.size() == kMostArguments) return false;
    const std::string its(trimmed(*key));
    call.arguments[its] = tagged_value(*value, tools, name, its);
  }
  calls.push_back(std::move(call));
  return true;
}

// A name, and its arguments in one of the forms that begin with it.
bool read_named(std::string_view& text, const Json& tools, Calls& calls) {
  constexpr std::string_view kSeparator = "<｜tool▁sep｜>";
  const std::size_t end = std::min(text.find_first_of("{[<\n"), text.size());
  std::string_view name = trimmed(text.substr(0, end));
  text.remove_prefix(end);
  if (take(text, kSeparator) && name == "function") {
    const auto line = take_until(text, "\n");
    if (!line) return false;
    name = trimmed(*line);
  }
  if (!is_name(name)) return false;
  text = trimmed(text);
  if (text.starts_with("<arg_key>") || (text.empty() && has_tool(tools, name)))
    return read_argument_tags(name, text, tools, calls);
  if (take(text, "[CALL_ID]") && !take_until(text, "[ARGS]")) return false;
  take(text, "[ARGS]");
  const bool fenced = take(text, "```json");
  Json arguments = take_json(text);
  text = trimmed(text);
  if (fenced) take(text, "```");
  if (!arguments.is_object()) return false;
  calls.push_back({std::string(name), std::move(arguments)});
  return true;
}

}  // namespace

bool has_tool(const Json& tools, std::string_view name) { return tool_function(tools, name) != nullptr; }

std::vector<ToolCall> read_calls(std::string_view body, const Json& tools, std::string_view& rest) {
  Calls calls;
  std::string_view text = trimmed(body);
  for (rest = text; !text.empty() && calls.size() < kMostCalls; rest = text) {
    const std::size_t before = calls.size();
    bool good = false;
    if (take(text, "<function="))
      good = read_function_tag(text, tools, calls);
    else if (text.front() == '{' || text.front() == '[')
      good = read_json_calls(text, calls);
    else
      good = read_named(text, tools, calls);
    if (!good) {
      calls.resize(before);
      break;
    }
    text = trimmed(text);
    while (take(text, ";") || take(text, ",") || take(text, "[TOOL_CALLS]")) text = trimmed(text);
  }
  return calls;
}

}  // namespace steelyard
