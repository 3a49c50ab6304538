// strata plan
#include <memory>

#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/error.h"

namespace strata {
namespace {

struct Flags {
  std::string model;
  std::uint32_t parallel = 1;
  bool json = false;
  LoadFlags load;
};

nlohmann::ordered_json to_json(const MemoryPlan& plan) {
  nlohmann::ordered_json value = {
      {"mode", mode_name(plan.mode)},   {"kv_type", dtype_info(plan.kv_type).name},
      {"threads", plan.threads},        {"context", plan.limits.context},
      {"sequences", plan.limits.slots}, {"rows_per_step", plan.limits.rows}};
  for (const DevicePlan& d : plan.devices) {
    nlohmann::ordered_json device = {{"device", d.device}, {"total_bytes", d.total()}};
    for (const PlanLine& line : d.lines)
      device["lines"].push_back(
          {{"purpose", purpose_name(line.purpose)}, {"bytes", line.bytes}, {"note", line.note}});
    value["devices"].push_back(std::move(device));
  }
  value["slow_types"] = plan.slow_types;
  return value;
}

int plan(const Flags& flags) {
  ModelOptions options = flags.load.options();
  options.slots = flags.parallel;
  const auto path = resolve_model(flags.model);
  const PreparedModel prepared = prepare_model(path, options, true);
  if (flags.json)
    print_json(to_json(prepared.plan));
  else
    write_stdout(to_text(prepared.plan));
  prepare_model(path, options);  // says what would make it fit when it doesn't
  return 0;
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  auto* command =
      add_command(app, "plan", "show what memory a model would take, to the byte, without loading it",
                  "  strata plan smollm2\n"
                  "  strata plan llama-8b.gguf --context 32768 --kv-type q8_0 --parallel 4\n"
                  "  strata plan llama-8b.gguf --memory-limit 4G      says what would make it fit");
  auto flags = std::make_shared<Flags>();
  add_model_argument(*command, flags->model);
  command->add_option("--parallel", flags->parallel, "conversations running at once")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command->add_flag("--json", flags->json, "print JSON");
  flags->load.add(*command);
  command->callback([&action, flags] { action = [flags] { return plan(*flags); }; });
}

}  // namespace strata
