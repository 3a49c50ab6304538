// Calls of tools as models write them, in any of the usual forms. Pure; linear in the text, no recursion that
// the text chooses the depth of.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

struct ToolCall {
  std::string name;
  nlohmann::ordered_json arguments;  // an object
};

// The calls that `body`, what stands between a syntax's marks, begins with; `rest` is what follows them and
// isn't one. Forms:
//   {"name": …, "arguments": {…}}, or "parameters"; several, or a list of them         Hermes, Qwen, Llama,
//   Granite, Phi <function=NAME><parameter=KEY>VALUE</parameter></function> Qwen-Coder NAME
//   <arg_key>KEY</arg_key><arg_value>VALUE</arg_value>                             GLM NAME[ARGS]{…},
//   NAME<｜tool▁sep｜>{…}, function<｜tool▁sep｜>NAME ```json {…} ```      Mistral, DeepSeek
// A value without quotes is JSON where it reads as such, unless `tools` say that it is a string.
// A name alone is a call only where it is one of `tools`.
std::vector<ToolCall> read_calls(std::string_view body, const nlohmann::ordered_json& tools,
                                 std::string_view& rest);

// Whether the request has a tool of this name.
bool has_tool(const nlohmann::ordered_json& tools, std::string_view name);

}  // namespace steelyard
