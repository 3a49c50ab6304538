#include "api/stored_defaults.h"

#include <algorithm>
#include <utility>

#include "api/request_parts.h"
#include "base/error.h"
#include "engine/chat.h"
#include "engine/sampling_options.h"
#include "store/store.h"

namespace steelyard::api {
namespace {

// A layer's JSON; null where it is none that can be read with bounded work.
Json parse_layer(const std::string& text) {
  if (text.empty() || !is_plain_enough(text)) return nullptr;
  Json json = Json::parse(text, nullptr, false);
  return json.is_discarded() ? Json() : json;
}

}  // namespace

Options parse_parameters(const std::string& text) {
  const Json json = parse_layer(text);
  Json good = Json::object();
  if (json.is_object())
    for (const auto& [name, value] : json.items()) {
      try {
        read_options({{"options", {{name, value}}}});
        good[name] = value;
      } catch (const Error&) {
      }
    }
  return read_options({{"options", good}});
}

Json parse_first_messages(const std::string& text) {
  const Json json = parse_layer(text);
  Json messages = Json::array();
  if (!json.is_array()) return messages;
  for (const Json& m : json) {
    if (!m.is_object() || !m.contains("role") || !m["role"].is_string() || !m.contains("content") ||
        !m["content"].is_string())
      continue;
    const auto& role = m["role"].get_ref<const std::string&>();
    if (role == "user" || role == "assistant" || role == "system")
      messages.push_back({{"role", role}, {"content", m["content"]}});
  }
  return messages;
}

void add_missing(AnswerWishes& asked, const AnswerWishes& own) {
  for (const std::string_view name : own.named)
    if (std::ranges::find(asked.named, name) == asked.named.end()) {
      const NumberOption& option = *find_number_option(name);
      asked.set(option, option.of(own));
    }
  if (asked.stop.empty()) asked.stop = own.stop;
  if (asked.random_seed && !own.random_seed) {
    asked.random_seed = false;
    asked.sampling.seed = own.sampling.seed;
  }
}

void add_parameters(CommonRequest& r, const ModelDefaults& defaults) {
  const Options own = parse_parameters(defaults.parameters);
  add_missing(r.options, own);
  if (r.options.num_ctx == 0) r.options.num_ctx = own.num_ctx;
}

void add_messages(GenerateRequest& r, const ModelDefaults& defaults) {
  if (r.raw) return;
  if (r.system.value_or("").empty() && !defaults.system.empty()) r.system = defaults.system;
  if (r.context.empty()) r.before = parse_first_messages(defaults.messages);
}

void add_messages(ChatRequest& r, const ModelDefaults& defaults) {
  Json& asked = r.input.messages;
  if (asked.empty()) return;  // it only loads or unloads
  Json all = Json::array();
  const bool own_system = is_system_message(asked[0]);
  if (own_system)
    all.push_back(asked[0]);
  else if (!defaults.system.empty())
    all.push_back({{"role", "system"}, {"content", defaults.system}});
  for (Json& m : parse_first_messages(defaults.messages)) all.push_back(std::move(m));
  for (std::size_t i = own_system ? 1 : 0; i < asked.size(); ++i) all.push_back(std::move(asked[i]));
  asked = std::move(all);
}

ModelDefaults stored_defaults(const Services& services, const std::string& model) {
  try {
    return services.store.defaults(model);
  } catch (const Error&) {
    return {};
  }
}

}  // namespace steelyard::api
