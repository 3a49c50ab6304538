// Ollama's Modelfile: what a model is made of, line by line.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

struct Modelfile {
  std::string from;  // a file's path or a model's name
  // By Ollama's names; "stop" is a list.
  nlohmann::ordered_json parameters = nlohmann::ordered_json::object();
  std::optional<std::string> chat_template, system;
  nlohmann::ordered_json messages = nlohmann::ordered_json::array();  // {role, content}
  std::vector<std::string> licenses;
};

// FROM, PARAMETER, TEMPLATE, SYSTEM, MESSAGE and LICENSE, in any case; values of several lines between """;
// lines that begin with '#' are comments. Throws Error with the line: bad_input for what makes no sense,
// unsupported for ADAPTER, RENDERER, PARSER, DRAFT and REQUIRES.
Modelfile parse_modelfile(std::string_view text);

}  // namespace steelyard
