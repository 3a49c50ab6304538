#include "api/model_facts.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdint>

#include "base/error.h"
#include "base/units.h"
#include "engine/answer_defaults.h"
#include "engine/chat.h"
#include "engine/sampling_options.h"
#include "gguf/gguf.h"
#include "gguf/summary.h"

namespace steelyard::api {
namespace {

Json number(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json array_json(const GgufArray& a) {
  Json list = Json::array();
  for (std::uint64_t i = 0; i < a.size(); ++i) {
    if (a.type() == GgufType::string)
      list.push_back(a.string_at(i));
    else if (a.type() == GgufType::boolean)
      list.push_back(a.bool_at(i));
    else if (a.is_float())
      list.push_back(number(a.float_at(i)));
    else if (a.type() == GgufType::u64)
      list.push_back(a.uint_at(i));
    else if (a.is_integer())
      list.push_back(a.int_at(i));
    else
      return {};  // arrays of arrays: nobody reads them
  }
  return list;
}

Json value_json(const GgufMetadata& m, const GgufEntry& e, bool verbose) {
  switch (e.type()) {
    case GgufType::string:
      return *m.find_string(e.key());
    case GgufType::boolean:
      return *m.find_bool(e.key());
    case GgufType::array:
      return verbose ? array_json(*m.find_array(e.key())) : Json();
    case GgufType::u64:
      return *m.find_uint(e.key());
    case GgufType::f32:
    case GgufType::f64:
      return number(*m.find_float(e.key()));
    default:
      return *m.find_int(e.key());
  }
}

}  // namespace

Json details_json(std::string_view architecture, std::uint64_t parameters, std::string_view quantization) {
  return {{"parent_model", ""},
          {"format", "gguf"},
          {"family", architecture},
          {"families", {architecture}},
          {"parameter_size", count_text(parameters)},
          {"quantization_level", quantization}};
}

Json details_json(const GgufFile& file) {
  return details_json(file.metadata().find_string("general.architecture").value_or(""), parameter_count(file),
                      quantization_name(file));
}

Json details_json(const StoredModel& m) { return details_json(m.architecture, m.parameters, m.quantization); }

Json metadata_json(const GgufFile& file, bool verbose) {
  Json all = Json::object();
  for (const GgufEntry& e : file.metadata().entries()) {
    try {
      all.emplace(std::string(e.key()), value_json(file.metadata(), e, verbose));
    } catch (const Error&) {  // a float that is no number
      all.emplace(std::string(e.key()), nullptr);
    }
  }
  all.emplace("general.parameter_count", parameter_count(file));
  return all;
}

std::vector<std::string> capabilities(const GgufFile& file) {
  std::vector<std::string> able = {"completion"};
  const auto text = file.metadata().find_string("tokenizer.chat_template");
  const TemplateAbilities abilities = text ? template_abilities(*text) : TemplateAbilities{};
  if (abilities.tools) able.emplace_back("tools");
  if (abilities.thinking) able.emplace_back("thinking");
  return able;
}

std::string parameters_text(const GgufFile& file) {
  const AnswerOptions own = file_answer_options(file.metadata()), defaults;
  std::string text;
  for (const NumberOption& o : number_options())
    if (o.of(own) != o.of(defaults))
      text += fmt::format("{}{} {:g}", text.empty() ? "" : "\n", o.name, o.of(own));
  return text;
}

}  // namespace steelyard::api
