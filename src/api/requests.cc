#include "api/requests.h"

#include <algorithm>
#include <cmath>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>

#include "api/json_limits.h"
#include "base/error.h"

namespace steelyard::api {
namespace {

using Json = nlohmann::ordered_json;

Json parse_object(std::string_view body) {
  check_json_limits(body);
  Json json;
  try {
    json = Json::parse(body);
  } catch (const Json::parse_error& e) {
    const std::string_view why = e.what();
    if (why.find("surrogate") != why.npos || why.find("UTF-8") != why.npos)
      throw_error(
          ErrorKind::bad_input,
          "the request body holds a broken character at byte {}: half of a surrogate pair, or no UTF-8",
          e.byte);
    throw_error(ErrorKind::bad_input, "the request body is no valid JSON (byte {})", e.byte);
  } catch (const Json::exception&) {  // a number that no type holds
    throw_error(ErrorKind::bad_input, "the request body holds a number out of range");
  }
  if (!json.is_object()) throw_error(ErrorKind::bad_input, "the request body must be a JSON object");
  return json;
}

// Field access that names the field; null counts as absent.
class Fields {
 public:
  explicit Fields(const Json& object, std::string prefix = "")
      : object_(object), prefix_(std::move(prefix)) {}

  const Json* find(const char* key) const {
    const auto it = object_.find(key);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }
  [[noreturn]] void wrong(const char* key, std::string_view wanted) const {
    throw_error(ErrorKind::bad_input, "\"{}{}\" must be {}", prefix_, key, wanted);
  }
  [[noreturn]] void refuse(const char* key, std::string_view why) const {
    throw_error(ErrorKind::unsupported, "\"{}{}\" {}", prefix_, key, why);
  }

  std::optional<std::string> text(const char* key) const {
    const Json* v = find(key);
    if (!v) return std::nullopt;
    if (!v->is_string()) wrong(key, "a string");
    return v->get<std::string>();
  }
  std::optional<bool> flag(const char* key) const {
    const Json* v = find(key);
    if (!v) return std::nullopt;
    if (!v->is_boolean()) wrong(key, "true or false");
    return v->get<bool>();
  }
  std::optional<double> number(const char* key, double low, double high) const {
    const Json* v = find(key);
    if (!v) return std::nullopt;
    if (!v->is_number()) wrong(key, "a number");
    const double x = v->get<double>();
    if (!(x >= low && x <= high)) wrong(key, fmt::format("a number from {} to {}", low, high));
    return x;
  }
  // Whole numbers; 4096.0 counts, as some clients write them so.
  std::optional<std::int64_t> integer(const char* key, std::int64_t low, std::int64_t high) const {
    const Json* v = find(key);
    if (v && v->is_number_integer() && !(v->is_number_unsigned() && v->get<std::uint64_t>() >> 63)) {
      const auto exact = v->get<std::int64_t>();  // a double may not hold it
      if (exact >= low && exact <= high) return exact;
    }
    const auto x = number(key, static_cast<double>(low), static_cast<double>(high));
    if (!x) return std::nullopt;
    if (*x != std::floor(*x) || std::abs(*x) >= 0x1p63) wrong(key, "a whole number");
    return static_cast<std::int64_t>(*x);
  }
  std::vector<std::string> texts(const char* key) const {
    const Json* v = find(key);
    if (!v) return {};
    if (v->is_string()) return {v->get<std::string>()};
    if (!v->is_array()) wrong(key, "a string or a list of strings");
    std::vector<std::string> out;
    for (const auto& item : *v) {
      if (!item.is_string()) wrong(key, "a string or a list of strings");
      out.push_back(item.get<std::string>());
    }
    return out;
  }

 private:
  const Json& object_;
  std::string prefix_;
};

template <typename To, typename From>
void assign(To& to, const std::optional<From>& from) {
  if (from) to = static_cast<To>(*from);
}

void take_stops(Options& o, std::vector<std::string> stops) {
  std::erase(stops, std::string());
  if (stops.size() > kMaxStops)
    throw_error(ErrorKind::bad_input, "\"stop\" may hold {} strings at most", kMaxStops);
  o.stop = std::move(stops);
}

constexpr std::int64_t kInt32 = std::numeric_limits<std::int32_t>::max();
constexpr std::int64_t kSeed = std::numeric_limits<std::int64_t>::max();

void take_seed(Options& o, const Fields& f) {
  if (const auto seed = f.integer("seed", -kSeed, kSeed)) set_seed(o, *seed);
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

std::optional<KeepAlive> read_keep_alive(const Fields& f) {
  const Json* v = f.find("keep_alive");
  if (!v) return std::nullopt;
  if (v->is_string()) return parse_keep_alive(v->get<std::string>());
  if (!v->is_number()) f.wrong("keep_alive", "a number of seconds or a duration such as \"5m\"");
  const double seconds = v->get<double>();
  if (!(std::abs(seconds) < 1e9)) return KeepAlive(-1);
  return std::chrono::duration_cast<KeepAlive>(std::chrono::duration<double>(seconds));
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

void refuse_format(const Fields& f) {
  const Json* v = f.find("format");
  if (!v || (v->is_string() && v->get_ref<const std::string&>().empty())) return;
  f.refuse("format", "isn't supported yet: answers can't be held to JSON or a schema");
}

void read_common(const Json& json, CommonRequest& r) {
  const Fields f(json);
  const auto model = f.text("model");
  if (!model || model->empty()) throw_error(ErrorKind::bad_input, "\"model\" is missing");
  r.model = *model;
  r.stream = f.flag("stream").value_or(true);
  r.keep_alive = read_keep_alive(f);
  r.options = read_options(json);
  refuse_format(f);
  if (f.flag("logprobs").value_or(false)) f.refuse("logprobs", "aren't supported yet");
}

bool empty_list(const Json* v) { return !v || (v->is_array() && v->empty()); }

// OpenAI's content may be a list of parts; text parts are joined.
std::string content_text(const Json& content, const std::string& where) {
  if (content.is_null()) return "";
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array())
    throw_error(ErrorKind::bad_input, "\"{}.content\" must be a string or a list of parts", where);
  std::string text;
  for (const auto& part : content) {
    const bool object = part.is_object() && part.contains("type") && part["type"].is_string();
    if (!object) throw_error(ErrorKind::bad_input, "\"{}.content\" holds a part without a type", where);
    if (part["type"] != "text" || !part.contains("text") || !part["text"].is_string())
      throw_error(ErrorKind::unsupported,
                  "\"{}.content\" holds a part of type \"{}\": only text is supported", where,
                  part["type"].get<std::string>());
    text += part["text"].get<std::string>();
  }
  return text;
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

Json read_tools(const Json& json) {
  const Fields f(json);
  const Json* tools = f.find("tools");
  if (empty_list(tools)) return nullptr;
  if (!tools->is_array()) f.wrong("tools", "a list");
  for (const auto& tool : *tools)
    if (!tool.is_object()) f.wrong("tools", "a list of objects");
  return *tools;
}

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

// A field that means the option `name`, within the ranges of OpenAI's dialect.
void take_number(Options& o, const std::optional<double>& value, std::string_view name) {
  if (value) o.set(*find_number_option(name), *value);
}
void take_number(Options& o, const std::optional<std::int64_t>& value, std::string_view name) {
  if (value) o.set(*find_number_option(name), static_cast<double>(*value));
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

// The role that OpenAI gave a new name; templates know the old one.
void rename_developer(Json& messages) {
  for (auto& message : messages)
    if (message["role"] == "developer") message["role"] = "system";
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

OpenAiChatRequest parse_openai_chat(std::string_view body) {
  const Json json = parse_object(body);
  const Fields f(json);
  OpenAiChatRequest r;
  const auto model = f.text("model");
  if (!model || model->empty()) throw_error(ErrorKind::bad_input, "\"model\" is missing");
  r.model = *model;
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
