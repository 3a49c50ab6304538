#include "api/request_parts.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <utility>

#include "base/error.h"
#include "engine/engine.h"
#include "text/vocabulary.h"

namespace steelyard::api {
namespace {

constexpr std::int64_t kSeed = std::numeric_limits<std::int64_t>::max();

std::string content_text(const Json& content, const std::string& where) {
  return parts_text(content, where + ".content", {"text"});
}

void check_tool_calls(const Json& message, const std::string& where) {
  const Fields f(message, where + ".");
  const Json* calls = f.find("tool_calls");
  if (!calls) return;
  if (!calls->is_array()) f.wrong("tool_calls", "a list");
  for (const auto& call : *calls)
    if (!call.is_object() || !call.contains("function") || !call["function"].is_object() ||
        !call["function"].contains("name") || !call["function"]["name"].is_string())
      f.wrong("tool_calls", "a list of {\"function\": {\"name\": …, \"arguments\": …}}");
}

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

}  // namespace

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

std::vector<TokenId> token_ids(const Fields& f, const char* key, const Json& list) {
  if (!list.is_array()) f.wrong(key, "a list of token ids");
  std::vector<TokenId> ids;
  for (const Json& id : list) {
    if (!id.is_number_integer() || id.get<double>() < 0 || id.get<double>() > static_cast<double>(kInt32))
      f.wrong(key, "a list of token ids");
    ids.push_back(id.get<TokenId>());
  }
  return ids;
}

void read_texts(const Fields& f, const char* key, std::vector<std::string>& texts,
                std::vector<std::vector<TokenId>>& ids) {
  const Json* v = f.find(key);
  if (!v) return;
  if (!v->is_array() || v->empty() || v->front().is_string()) {
    texts = f.texts(key);
  } else if (v->front().is_array()) {
    for (const Json& list : *v) ids.push_back(token_ids(f, key, list));
  } else {
    ids.push_back(token_ids(f, key, *v));
  }
}

void take_stops(Options& o, std::vector<std::string> stops) {
  std::erase(stops, std::string());
  if (stops.size() > kMaxStops)
    throw_error(ErrorKind::bad_input, "\"stop\" may hold {} strings at most", kMaxStops);
  o.stop = std::move(stops);
}

void take_seed(Options& o, const Fields& f) {
  if (const auto seed = f.integer("seed", -kSeed, kSeed)) set_seed(o, *seed);
}

void read_number(Options& o, const Fields& f, const NumberOption& option) {
  const std::string name(option.name);
  if (option.whole()) {
    if (const auto value = f.integer(name.c_str(), static_cast<std::int64_t>(option.low),
                                     static_cast<std::int64_t>(option.high)))
      o.set(option, static_cast<double>(*value));
  } else if (const auto value = f.number(name.c_str(), option.low, option.high)) {
    o.set(option, *value);
  }
}

void take_number(Options& o, const std::optional<double>& value, std::string_view name) {
  if (value) o.set(*find_number_option(name), *value);
}
void take_number(Options& o, const std::optional<std::int64_t>& value, std::string_view name) {
  if (value) o.set(*find_number_option(name), static_cast<double>(*value));
}

std::string read_model(const Fields& f) {
  auto model = f.text("model");
  if (!model || model->empty()) throw_error(ErrorKind::bad_input, "\"model\" is missing");
  return std::move(*model);
}

std::optional<KeepAlive> read_keep_alive(const Fields& f) {
  const Json* v = f.find("keep_alive");
  if (!v) return std::nullopt;
  if (v->is_string()) return parse_keep_alive(v->get<std::string>());
  if (!v->is_number()) f.wrong("keep_alive", "a number of seconds or a duration such as \"5m\"");
  const double seconds = v->get<double>();
  if (!(std::abs(seconds) < 1e9)) return KeepAlive(-1);
  return std::chrono::duration_cast<KeepAlive>(std::chrono::duration<double>(seconds));
}

void read_head(CommonRequest& r, const Fields& f, bool stream) {
  r.model = read_model(f);
  r.stream = f.flag("stream").value_or(stream);
  r.keep_alive = read_keep_alive(f);
}

// Levels ("low" … "max") switch thinking on; models with levels of their own come later.
std::optional<bool> read_think(const Fields& f) {
  const Json* v = f.find("think");
  if (!v) return std::nullopt;
  if (v->is_boolean()) return v->get<bool>();
  if (v->is_string())
    for (const char* level : {"low", "medium", "high", "max"})
      if (v->get_ref<const std::string&>() == level) return true;
  f.wrong("think", "true, false, \"low\", \"medium\", \"high\" or \"max\"");
}

std::int32_t read_logprobs(const Fields& f) {
  const auto top = f.integer("top_logprobs", 0, kMostChances);
  if (!f.flag("logprobs").value_or(false)) {
    if (top.value_or(0) > 0) f.refuse("top_logprobs", "needs \"logprobs\": true");
    return -1;
  }
  return static_cast<std::int32_t>(top.value_or(0));
}

std::vector<TokenBias> read_biases(const Fields& f) {
  constexpr std::size_t kMost = 1024;
  const Json* v = f.find("logit_bias");
  if (!v) return {};
  if (!v->is_object() || v->size() > kMost)
    f.wrong("logit_bias", "an object of at most 1024 token ids and numbers");
  std::vector<TokenBias> biases;
  for (const auto& [key, value] : v->items()) {
    TokenId token = 0;
    const auto [end, error] = std::from_chars(key.data(), key.data() + key.size(), token);
    const bool id = error == std::errc() && end == key.data() + key.size() && token >= 0;
    if (!id || !value.is_number() || !(std::abs(value.get<double>()) <= 100))
      f.wrong("logit_bias", "an object of token ids and numbers from -100 to 100");
    biases.push_back({token, value.get<float>()});
  }
  return biases;
}

bool empty_list(const Json* v) { return !v || (v->is_array() && v->empty()); }

std::string parts_text(const Json& content, const std::string& where,
                       std::initializer_list<std::string_view> kinds) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array())
    throw_error(ErrorKind::bad_input, "\"{}\" must be a string or a list of parts", where);
  std::string text;
  for (const Json& part : content) {
    const auto type = part.is_object() ? part.find("type") : part.end();
    if (!part.is_object() || type == part.end() || !type->is_string())
      throw_error(ErrorKind::bad_input, "\"{}\" holds a part without a type", where);
    const auto& name = type->get_ref<const std::string&>();
    const auto value = part.find("text");
    if (std::find(kinds.begin(), kinds.end(), name) == kinds.end() || value == part.end() ||
        !value->is_string())
      throw_error(ErrorKind::unsupported, "\"{}\" holds a part of type \"{}\": only text is supported", where,
                  name);
    text += value->get_ref<const std::string&>();
  }
  return text;
}

Json read_messages(const Json& json) {
  const Fields f(json);
  const Json* list = f.find("messages");
  if (!list) return Json::array();
  if (!list->is_array()) f.wrong("messages", "a list");
  Json out = Json::array();
  for (std::size_t i = 0; i < list->size(); ++i) {
    const Json& message = (*list)[i];
    const std::string where = fmt::format("messages[{}]", i);
    if (!message.is_object()) throw_error(ErrorKind::bad_input, "\"{}\" must be an object", where);
    const Fields m(message, where + ".");
    if (!m.text("role")) m.wrong("role", "a string such as \"user\"");
    if (!empty_list(m.find("images"))) m.refuse("images", "aren't supported yet");
    check_tool_calls(message, where);
    Json copy = message;
    copy.erase("images");
    copy["content"] = content_text(message.contains("content") ? message["content"] : Json(), where);
    out.push_back(std::move(copy));
  }
  return out;
}

Json read_tools(const Fields& f) {
  const Json* tools = f.find("tools");
  if (empty_list(tools)) return nullptr;
  if (!tools->is_array()) f.wrong("tools", "a list");
  for (const auto& tool : *tools)
    if (!tool.is_object()) f.wrong("tools", "a list of objects");
  return *tools;
}

std::string needed_text(const Fields& f, const char* key) {
  const auto value = f.text(key);
  if (!value) f.wrong(key, "a string");
  return *value;
}

Json read_flat_tools(const Fields& f, std::string_view type, std::string_view usual, const char* schema) {
  const Json tools = read_tools(f);
  if (tools.is_null()) return nullptr;
  Json out = Json::array();
  for (const Json& tool : tools) {
    const Fields t(tool, "tools.");
    if (t.text("type").value_or(std::string(usual)) != type)
      t.refuse("type", fmt::format("may only be \"{}\": this server runs no tools of its own", type));
    Json function = {{"name", needed_text(t, "name")}, {"description", t.text("description").value_or("")}};
    const Json* parameters = t.find(schema);
    function["parameters"] = parameters ? *parameters : Json::object();
    out.push_back({{"type", "function"}, {"function", std::move(function)}});
  }
  return out;
}

bool may_use_tools(const Fields& f) {
  const Json* choice = f.find("tool_choice");
  if (!choice) return true;
  if (*choice != "auto" && *choice != "none") f.refuse("tool_choice", "may only be \"auto\" or \"none\"");
  return *choice == "auto";
}

void rename_developer(Json& messages) {
  for (auto& message : messages)
    if (message["role"] == "developer") message["role"] = "system";
}

KeepAlive parse_keep_alive(std::string_view text) {
  const auto bad = [&] {
    throw_error(ErrorKind::bad_input, "\"{}\" is no duration; write \"5m\", \"1h30m\" or seconds", text);
  };
  std::string_view rest = text;
  const bool negative = rest.starts_with('-');
  if (negative) rest.remove_prefix(1);
  double seconds = 0;
  if (rest.empty()) bad();
  while (!rest.empty()) {
    double amount = 0, scale = 0;
    std::size_t digits = 0;
    for (; digits < rest.size() &&
           ((rest[digits] >= '0' && rest[digits] <= '9') || (rest[digits] == '.' && scale == 0));
         ++digits) {
      if (rest[digits] == '.')
        scale = 0.1;
      else if (scale == 0)
        amount = amount * 10 + (rest[digits] - '0');
      else
        amount += (rest[digits] - '0') * scale, scale /= 10;
    }
    if (digits == 0 || digits > 15) bad();
    rest.remove_prefix(digits);
    constexpr std::pair<std::string_view, double> kUnits[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9},
                                                              {"h", 3600},  {"m", 60},    {"s", 1}};
    double unit = rest.empty() ? 1 : 0;
    for (const auto& [name, value] : kUnits)
      if (unit == 0 && rest.starts_with(name)) unit = value, rest.remove_prefix(name.size());
    if (unit == 0) bad();
    seconds += amount * unit;
  }
  if (negative) return KeepAlive(-1);
  return seconds > 1e9 ? KeepAlive(-1)
                       : std::chrono::duration_cast<KeepAlive>(std::chrono::duration<double>(seconds));
}

}  // namespace steelyard::api
