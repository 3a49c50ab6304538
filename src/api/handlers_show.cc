// Ollama's /api/show and /api/ps: what a model is, and which are loaded.
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "api/handler_parts.h"
#include "api/model_facts.h"
#include "api/request_parts.h"
#include "api/routes.h"
#include "base/error.h"
#include "base/units.h"
#include "engine/engine.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "gguf/gguf.h"
#include "plan/plan.h"
#include "store/store.h"

namespace steelyard::api {
namespace {

using Clock = std::chrono::system_clock;

// Ollama's clients parse a template's text; this one is Jinja, as the file has it.
std::string modelfile(const std::string& name, const std::string& parameters) {
  std::string text = "FROM " + name + "\n";
  for (std::size_t at = 0; at < parameters.size();) {
    const std::size_t end = std::min(parameters.find('\n', at), parameters.size());
    text += "PARAMETER " + parameters.substr(at, end - at) + "\n";
    at = end + 1;
  }
  return text;
}

Handled show(const Services& s, const Call& call) {
  const Json json = parse_object(call.body);
  const Fields f(json);
  // "name" is the older word.
  const std::string name = f.text("model").value_or(f.text("name").value_or(""));
  if (name.empty()) throw_error(ErrorKind::bad_input, "\"model\" is missing");
  const StoredModel model = s.store.find(name);
  const GgufFile file = GgufFile::open(model.path);
  const GgufMetadata& m = file.metadata();
  const std::string parameters = parameters_text(file);
  Json reply = {{"modelfile", modelfile(model.name, parameters)}};
  if (!parameters.empty()) reply["parameters"] = parameters;
  reply["template"] = m.find_string("tokenizer.chat_template").value_or("{{ .Prompt }}");
  if (const auto license = m.find_string("general.license")) reply["license"] = *license;
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
