// steelyard ps, steelyard stop
#include <algorithm>
#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "app/server_call.h"
#include "base/error.h"
#include "base/readable.h"
#include "base/units.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kWidth = 200;

// "100 % CPU", "100 % GPU", "30 %/70 % CPU/GPU"
std::string processor_text(std::uint64_t all, std::uint64_t gpu) {
  if (gpu == 0) return "100 % CPU";
  if (gpu >= all) return "100 % GPU";
  const auto share = static_cast<int>(100.0 * static_cast<double>(gpu) / static_cast<double>(all) + 0.5);
  return fmt::format("{} %/{} % CPU/GPU", 100 - share, share);
}

std::string until_text(const Json& model) {
  const bool for_ever = model.contains("steelyard") && model["steelyard"].value("kept_for_ever", false);
  const auto when = parse_rfc3339(model.value("expires_at", ""));
  if (for_ever || !when) return "for ever";
  const auto left =
      std::chrono::duration_cast<std::chrono::seconds>(*when - std::chrono::system_clock::now());
  return left.count() > 0 ? "in " + span_text(left) : "now";
}

void print_running(const Json& models) {
  std::size_t width = 4;
  std::vector<std::vector<std::string>> rows;
  for (const Json& m : models) {
    const auto size = m.value("size", std::uint64_t{0});
    rows.push_back({readable(m.value("name", ""), kWidth), readable(m.value("digest", "").substr(0, 12)),
                    size_text(size), processor_text(size, m.value("size_vram", std::uint64_t{0})),
                    std::to_string(m.value("context_length", 0)), until_text(m)});
    width = std::max(width, rows.back()[0].size());
  }
  rows.insert(rows.begin(), {"NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"});
  for (const auto& r : rows)
    print("{:<{}}  {:<12}  {:>10}  {:<18}  {:>7}  {}\n", r[0], width, r[1], r[2], r[3], r[4], r[5]);
}

int ps(const ServerCall& call, bool json) {
  const Json answer = call("GET", "/api/ps");
  if (json)
    print_json(answer);
  else if (!answer.contains("models") || answer["models"].empty())
    note("no model is loaded");
  else
    print_running(answer["models"]);
  return 0;
}

int stop(const ServerCall& call, const std::string& model) {
  call("POST", "/api/generate", {{"model", model}, {"keep_alive", 0}});
  return 0;
}

}  // namespace

void add_ps(CLI::App& app, Action& action) {
  auto* command = add_command(app, "ps", "list the models that a running server has loaded",
                              "  steelyard ps\n"
                              "  steelyard ps --host 192.168.1.5:11434 --json");
  auto call = std::make_shared<ServerCall>();
  auto json = std::make_shared<bool>(false);
  call->add(*command);
  command->add_flag("--json", *json, "print JSON, with memory by device and purpose");
  command->callback([&action, call, json] { action = [call, json] { return ps(*call, *json); }; });
}

void add_stop(CLI::App& app, Action& action) {
  auto* command = add_command(app, "stop", "unload a model from a running server, as soon as it is idle",
                              "  steelyard stop smollm2");
  auto call = std::make_shared<ServerCall>();
  auto model = std::make_shared<std::string>();
  command->add_option("MODEL", *model, "a model's name, as `steelyard ps` has it")->required();
  call->add(*command);
  command->callback([&action, call, model] { action = [call, model] { return stop(*call, *model); }; });
}

}  // namespace steelyard
