#include "app/plan_devices.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "app/common.h"
#include "app/output.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/output_file.h"
#include "base/process.h"
#include "device/target.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "model/forward.h"
#include "plan/fleet.h"
#include "plan/placement.h"
#include "plan/plan.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::uint32_t kPaperThreads = 16;

constexpr const char* kPaper =
    "on paper: `steelyard run` and `serve` choose so among the devices that are there, but hand everything "
    "through the host's memory, peer access or not";

// As loading takes them: by the first device.
StepLimits limits_for(const ModelOptions& o, const ModelConfig& config, const PaperFleet& fleet) {
  const Target& target = fleet.devices.front().host ? cpu_target() : cuda_target();
  return limits_of(with_defaults(o, config, target, nullptr));
}

Json devices_json(const PlacementInput& in, const Placement& placement) {
  const PlacementPlan plan = plan_memory(in, placement);
  Json devices = Json::array();
  for (const PartPlan& part : plan.parts) {
    const PaperDevice& d = in.fleet->devices[part.device];
    devices.push_back({{"device", d.id},
                       {"name", d.title},
                       {"stage", part.stage},
                       {"rank", part.share.rank},
                       {"ranks", part.share.ranks},
                       {"total_bytes", part.plan.total()},
                       {"available_bytes", d.memory},
                       {"lines", lines_json(part.plan)}});
  }
  if (!plan.host.lines.empty())
    devices.push_back(
        {{"device", plan.host.device}, {"total_bytes", plan.host.total()}, {"lines", lines_json(plan.host)}});
  return devices;
}

// Units as layers: `first_layer` to `last_layer` (none: null), and what else there is.
Json stage_json(const PlacementInput& in, const Stage& s) {
  const std::uint32_t units = unit_count(*in.program);
  const std::uint32_t first = std::max(s.begin, 1u), end = std::min(s.end, units - 1);
  Json names = Json::array();
  for (const std::uint32_t d : s.devices) names.push_back(in.fleet->devices[d].id);
  return {{"devices", names},
          {"first_layer", end > first ? Json(first - 1) : Json()},
          {"last_layer", end > first ? Json(end - 2) : Json()},
          {"embedding", s.begin == 0},
          {"output_layer", s.end == units}};
}

// A rate that the devices' rates don't say is null.
Json rate(double tokens_per_second) { return tokens_per_second > 0 ? Json(tokens_per_second) : Json(); }

Json placement_json(const PlacementInput& in, const Placement& placement) {
  Json stages = Json::array();
  for (const Stage& s : placement.stages) stages.push_back(stage_json(in, s));
  return {{"kind", kind_text(in, placement)}, {"layers", layers_text(in, placement)}, {"stages", stages}};
}

Json candidate_json(const PlacementInput& in, const PlacementCandidate& c) {
  Json value = placement_json(in, c.placement);
  const Prediction& p = c.prediction;
  value["predicted"] = {{"tokens_per_second", rate(p.tokens_per_second)},
                        {"limit_tokens_per_second", rate(p.limit_tokens_per_second)},
                        {"streams", in.limits.slots},
                        {"streams_tokens_per_second", rate(p.streams_tokens_per_second)},
                        {"prompt_tokens_per_second", rate(p.prompt_tokens_per_second)},
                        {"step_seconds", rate(p.step_seconds)},
                        {"stage_seconds", p.stage_seconds},
                        {"hop_seconds", p.hop_seconds},
                        {"sum_seconds", p.sum_seconds}};
  value["reason"] = c.reason;
  return value;
}

void print_plan_json(const PlacementInput& in, const PlacementChoice& choice) {
  Json value = {{"mode", mode_name(in.mode)},
                {"kv_type", dtype_info(in.kv_type).name},
                {"context", in.limits.context},
                {"sequences", in.limits.slots},
                {"rows_per_step", in.limits.rows},
                {"on_paper", true},
                {"layers", unit_count(*in.program) - 2},
                {"fits", choice.fits()}};
  const Placement& placement = choice.fits() ? choice.candidates[0].placement : choice.filled;
  value["placement"] =
      choice.fits() ? candidate_json(in, choice.candidates[0]) : placement_json(in, choice.filled);
  value["devices"] = devices_json(in, placement);
  value["runners_up"] = Json::array();
  for (std::size_t i = 1; i < choice.candidates.size(); ++i)
    value["runners_up"].push_back(candidate_json(in, choice.candidates[i]));
  value["not_possible"] = choice.not_possible;
  for (const DeviceLack& lack : choice.lacks) value["not_possible"].push_back(lack.why);
  if (choice.fits()) value["longest_context"] = choice.longest_context;
  if (!choice.fits()) {
    value["short_bytes"] = choice.short_bytes;
    value["changes"] = choice.changes;
    value["why_not"] = not_fitting_text(in, choice);
  }
  if (!in.fleet->note.empty()) value["note"] = in.fleet->note;
  print_json(value);
}

bool one_device(const PlacementChoice& choice) {
  if (!choice.fits()) return false;
  const std::vector<Stage>& stages = choice.candidates[0].placement.stages;
  return stages.size() == 1 && stages[0].devices.size() == 1;
}

}  // namespace

nlohmann::ordered_json lines_json(const DevicePlan& plan) {
  Json lines = Json::array();
  for (const PlanLine& line : plan.lines)
    lines.push_back({{"purpose", purpose_name(line.purpose)}, {"bytes", line.bytes}, {"note", line.note}});
  return lines;
}

int plan_devices(const std::filesystem::path& path, const std::string& name, const ModelOptions& options,
                 const DevicesPlan& asked) {
  const PaperFleet fleet = parse_fleet(asked.fleet);
  const GgufFile file = GgufFile::open(path);
  const ModelConfig config = read_config(file);
  const StepLimits limits = limits_for(options, config, fleet);
  const Forward forward =
      write_forward(file, config, {.kv_type = options.kv_type, .context = limits.context});
  const PlacementInput in{.program = &forward.program,
                          .fleet = &fleet,
                          .gpu = &cuda_target(),
                          .host = &cpu_target(),
                          .limits = limits,
                          .mode = options.mode,
                          .kv_type = options.kv_type,
                          .threads = options.threads ? options.threads : kPaperThreads,
                          .process_bytes = resident_bytes(),
                          .context_train = config.context_train};
  const PlacementChoice choice = choose_placement(in);
  if (!asked.svg.empty()) write_file(asked.svg, to_svg(in, choice, name));
  if (asked.json)
    print_plan_json(in, choice);
  else
    write_stdout((one_device(choice) ? std::string() : std::string(kPaper) + "\n") + to_text(in, choice));
  return choice.fits() ? 0 : 1;
}

}  // namespace steelyard
