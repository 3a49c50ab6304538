// steelyard list
#include <algorithm>
#include <ctime>

#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/readable.h"
#include "base/units.h"
#include "store/store.h"

namespace steelyard {
namespace {

constexpr std::size_t kWidth = 200;  // of a name; the file's own text isn't trusted on a terminal

std::string date_text(std::chrono::system_clock::time_point when) {
  const std::time_t seconds = std::chrono::system_clock::to_time_t(when);
  std::tm local{};
  localtime_r(&seconds, &local);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M", &local);
  return text;
}

void print_models_json(const std::vector<StoredModel>& models) {
  auto array = nlohmann::ordered_json::array();
  for (const auto& m : models) {
    nlohmann::ordered_json entry = {{"name", m.name}, {"path", m.path.string()}, {"bytes", m.bytes}};
    if (m.error.empty()) {
      entry["architecture"] = m.architecture;
      entry["parameters"] = m.parameters;
      entry["quantization"] = m.quantization;
    } else {
      entry["error"] = m.error;
    }
    array.push_back(std::move(entry));
  }
  print_json({{"models", std::move(array)}});
}

void print_models(const std::vector<StoredModel>& models) {
  std::size_t width = 4;
  for (const auto& m : models) width = std::max(width, readable(m.name, kWidth).size());
  print("{:<{}}  {:<10}  {:>10}  {:<8}  {:>10}  MODIFIED\n", "NAME", width, "ARCH", "PARAMETERS", "TYPE",
        "SIZE");
  for (const auto& m : models) {
    const std::string name = readable(m.name, kWidth);
    if (!m.error.empty())
      print("{:<{}}  can't be read: {}\n", name, width, readable(m.error, 1000));
    else
      print("{:<{}}  {:<10}  {:>10}  {:<8}  {:>10}  {}\n", name, width, readable(m.architecture),
            count_text(m.parameters), m.quantization, size_text(m.bytes), date_text(m.modified));
  }
}

int list(bool json) {
  const ModelStore store = ModelStore::from_environment();
  const auto models = store.list();
  if (json) {
    print_models_json(models);
  } else if (!models.empty()) {
    print_models(models);
  } else {
    std::string places;
    for (const auto& d : store.directories()) places += (places.empty() ? "" : ", ") + d.string();
    note("no models yet: put GGUF files into {} (the first that exists is searched first)", places);
  }
  return 0;
}

}  // namespace

void add_list(CLI::App& app, Action& action) {
  auto* command = add_command(app, "list", "list the models in the store",
                              "  steelyard list\n"
                              "  STEELYARD_MODELS=/data/models steelyard list --json");
  auto json = std::make_shared<bool>(false);
  command->add_flag("--json", *json, "print JSON");
  command->callback([&action, json] { action = [json] { return list(*json); }; });
}

}  // namespace steelyard
