// Ollama's /api/show and /api/ps: what a model is, and which are loaded.
#include <chrono>
#include <memory>
#include <sstream>
#include <string>
#include <utility>

#include "api/handler_parts.h"
#include "api/model_facts.h"
#include "api/request_parts.h"
#include "api/routes.h"
#include "api/stored_defaults.h"
#include "base/error.h"
#include "base/units.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "gguf/gguf.h"
#include "plan/plan.h"
#include "store/ollama.h"
#include "store/store.h"

namespace steelyard::api {
namespace {

using Clock = std::chrono::system_clock;

// Of an option, as a Modelfile has it: a text in quotes, a list line by line.
void add_parameter(std::string& text, const std::string& name, const Json& value) {
  if (value.is_array()) {
    for (const Json& item : value) add_parameter(text, name, item);
    return;
  }
  text += fmt::format("{}{} {}", text.empty() ? "" : "\n", name, dump(value));
}

// The model's own parameters, and below them what its file says.
std::string all_parameters(const GgufFile& file, const ModelDefaults& defaults) {
  std::string text;
  const Json own = Json::parse(defaults.parameters, nullptr, false);
  if (own.is_object())
    for (const auto& [name, value] : own.items()) add_parameter(text, name, value);
  std::istringstream lines(parameters_text(file));
  for (std::string line; std::getline(lines, line);)
    if (!own.is_object() || !own.contains(line.substr(0, line.find(' '))))
      text += (text.empty() ? "" : "\n") + line;
  return text;
}

std::string modelfile(const std::string& name, const std::string& parameters, const ModelDefaults& defaults,
                      const Json& messages) {
  std::string text = "FROM " + name + "\n";
  if (!defaults.chat_template.empty())
    text += fmt::format("TEMPLATE \"\"\"{}\"\"\"\n", defaults.chat_template);
  if (!defaults.system.empty()) text += fmt::format("SYSTEM \"\"\"{}\"\"\"\n", defaults.system);
  std::istringstream lines(parameters);
  for (std::string line; std::getline(lines, line);) text += "PARAMETER " + line + "\n";
  for (const Json& m : messages)
    text += fmt::format("MESSAGE {} \"\"\"{}\"\"\"\n", m["role"].get<std::string>(),
                        m["content"].get<std::string>());
  for (const std::string& license : defaults.licenses)
    text += fmt::format("LICENSE \"\"\"{}\"\"\"\n", license);
  return text;
}

std::string license_text(const GgufMetadata& metadata, const ModelDefaults& defaults) {
  std::string text;
  for (const std::string& license : defaults.licenses) text += (text.empty() ? "" : "\n") + license;
  return text.empty() ? std::string(metadata.find_string("general.license").value_or("")) : text;
}

Handled show(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  // "name" is the older word.
  const std::string name = f.text("model").value_or(f.text("name").value_or(""));
  if (name.empty()) throw_error(ErrorKind::bad_input, "\"model\" is missing");
  const StoredModel model = s.store.find(name);
  const ModelDefaults defaults = s.store.defaults(name);
  const GgufFile file = GgufFile::open(model.path);
  const GgufMetadata& m = file.metadata();
  const std::string parameters = all_parameters(file, defaults);
  const Json messages = parse_first_messages(defaults.messages);
  Json reply = {{"modelfile", modelfile(model.name, parameters, defaults, messages)}};
  if (!parameters.empty()) reply["parameters"] = parameters;
  reply["template"] =
      m.find_string("tokenizer.chat_template")
          .value_or(defaults.chat_template.empty() ? "{{ .Prompt }}" : defaults.chat_template);
  if (!defaults.system.empty()) reply["system"] = defaults.system;
  if (!messages.empty()) reply["messages"] = messages;
  if (const std::string license = license_text(m, defaults); !license.empty()) reply["license"] = license;
  reply["details"] = details_json(file);
  reply["model_info"] = metadata_json(file, f.flag("verbose").value_or(false));
  reply["capabilities"] = capabilities(file);
  reply["modified_at"] = rfc3339(model.modified);
  return reply_only(json_reply(reply));
}

// What unloading it would give back, as in DevicePlan::model_bytes().
bool is_the_models(Purpose p) {
  return p != Purpose::process && p != Purpose::other_models && p != Purpose::context &&
         p != Purpose::reserve;
}

Json memory_json(const MemoryPlan& plan) {
  Json devices = Json::array();
  for (const DevicePlan& d : plan.devices) {
    Json by_purpose = Json::object();
    for (const PlanLine& line : d.lines)
      if (line.bytes > 0 && is_the_models(line.purpose)) by_purpose[purpose_name(line.purpose)] = line.bytes;
    devices.push_back({{"device", d.device}, {"bytes", d.model_bytes()}, {"by_purpose", by_purpose}});
  }
  return devices;
}

Json loaded_json(const Services& s, const ModelManager::Entry& entry) {
  const LoadedModel& model = *entry.model;
  std::uint64_t all = 0, vram = 0;
  for (const DevicePlan& d : model.plan().devices) {
    all += d.model_bytes();
    if (d.device != "CPU") vram += d.model_bytes();
  }
  std::string digest;
  try {
    digest = s.store.find(entry.name).digest;
  } catch (const Error&) {  // its file has gone; it answers all the same
  }
  const bool for_ever = entry.expires == Clock::time_point::max();
  const EngineStats stats = model.engine().stats();
  return {
      {"name", entry.name},
      {"model", entry.name},
      {"size", all},
      {"digest", digest},
      {"details", details_json(model.file())},
      // A client reads a date; Ollama's own word for "never" is one far away, too.
      {"expires_at", rfc3339(for_ever ? Clock::now() + std::chrono::hours(24 * 365 * 100) : entry.expires)},
      {"size_vram", vram},
      {"context_length", model.engine().context()},
      {"steelyard",
       {{"memory", memory_json(model.plan())},
        {"kept_for_ever", for_ever},
        {"active", stats.active},
        {"waiting", stats.waiting},
        {"slots", stats.slots},
        {"load_seconds", model.load_seconds()}}}};
}

Handled ps(const Services& s, const Call&) {
  Json list = Json::array();
  for (const ModelManager::Entry& entry : s.models.loaded()) list.push_back(loaded_json(s, entry));
  return reply_only(json_reply({{"models", list}}));
}

}  // namespace

std::span<const Route> show_routes() {
  static constexpr Route kRoutes[] = {
      {"POST", "/api/show", Lane::quick, show},
      {"GET", "/api/ps", Lane::quick, ps},
  };
  return kRoutes;
}

}  // namespace steelyard::api
