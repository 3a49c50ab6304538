#include "plan/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "base/units.h"
#include "program/uses.h"

namespace steelyard {
namespace {

std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) { return (a + b - 1) / b; }

// Bytes by type of the weights, the largest first: "Q4_1 56.6 MiB, Q8_0 27.7 MiB".
std::string types_note(const std::map<std::string, std::uint64_t>& by_type) {
  std::vector<std::pair<std::string, std::uint64_t>> sorted(by_type.begin(), by_type.end());
  std::stable_sort(sorted.begin(), sorted.end(), [](auto& a, auto& b) { return a.second > b.second; });
  std::string text;
  for (const auto& [type, bytes] : sorted)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", type, size_text(bytes));
  return text;
}

struct WeightSums {
  std::uint64_t bytes = 0;
  std::map<std::string, std::uint64_t> types;
  std::map<std::string, int> slow;
};

WeightSums sum_weights(const PlanInput& in) {
  WeightSums sums;
  for (const auto& w : in.program->weights) {
    const WeightLayout layout = in.target->weight_layout(w, in.mode);
    const std::string type(dtype_info(w.type).name);
    sums.bytes += layout.bytes;
    sums.types[type] += layout.bytes;
    if (!layout.fast) ++sums.slow[type];
  }
  return sums;
}

// The most pages that one sequence holds: all of its context and one ahead; a window keeps what it sees, what
// a step adds, and a partial page at either end.
std::uint32_t pages_per_sequence(const StateGroup& group, const StepLimits& limits,
                                 std::uint32_t page_tokens) {
  const std::uint32_t all = ceil_div(limits.context, page_tokens) + 1;
  if (group.window == 0) return all;
  return std::min(all, ceil_div(group.window, page_tokens) + ceil_div(limits.rows, page_tokens) + 2);
}

std::vector<GroupPlan> plan_groups(const PlanInput& in) {
  std::vector<GroupPlan> groups;
  for (std::size_t g = 0; g < in.program->groups.size(); ++g) {
    const std::uint32_t each = pages_per_sequence(in.program->groups[g], in.limits, in.target->page_tokens());
    std::uint64_t bytes = 0;
    for (const auto& s : in.program->states)
      if (s.group == static_cast<int>(g)) bytes += in.target->state_page_bytes(s);
    groups.push_back({in.program->groups[g].name, each * in.limits.slots, each, bytes});
  }
  return groups;
}

std::uint64_t state_bytes(const std::vector<GroupPlan>& groups) {
  std::uint64_t bytes = 0;
  for (const auto& g : groups) bytes += g.page_bytes * g.pages;
  return bytes;
}

std::string weights_note(const PlanInput& in, const WeightSums& sums) {
  if (!in.share.empty()) return fmt::format("{}; {}", in.share, types_note(sums.types));
  const std::size_t n = in.config->layers.size();
  return fmt::format("{} repeating layers + output layer: {}/{} on {}; {}", n, n + 1, n + 1, in.device,
                     types_note(sums.types));
}

std::string workspace_note(const PlanInput& in) {
  std::string text = fmt::format("steps of {} rows, {} output{}", in.limits.rows, in.limits.outputs,
                                 in.limits.outputs == 1 ? "" : "s");
  if (in.target->is_host()) text += fmt::format(", {} thread{}", in.threads, in.threads == 1 ? "" : "s");
  return text;
}

void add_process(const PlanInput& in, DevicePlan& device) {
  if (in.process_bytes)
    device.lines.push_back({Purpose::process, in.process_bytes, "program, libraries, vocabulary (measured)"});
}

void add_other_models(std::uint64_t bytes, DevicePlan& device) {
  if (bytes) device.lines.push_back({Purpose::other_models, bytes, "loaded already"});
}

void add_driver_lines(const PlanInput& in, DevicePlan& device) {
  device.lines.push_back({Purpose::executables, in.target->executable_bytes(*in.program, in.limits),
                          "kernels and graphs (estimated, measured once loaded)"});
  if (in.paper || in.context_bytes)
    device.lines.push_back({Purpose::context, in.paper ? in.target->context_bytes() : in.context_bytes,
                            in.paper ? "the driver's context (assumed)" : "the driver's context (measured)"});
  device.lines.push_back(
      {Purpose::reserve, in.target->reserve_bytes(), "kept free: staging while loading, the driver"});
}

DevicePlan plan_host(const PlanInput& in) {
  DevicePlan host{"CPU", {}};
  host.lines.push_back({Purpose::staging, in.target->staging_bytes(*in.program, in.limits),
                        "page-locked: step blocks, sampled tokens"});
  add_process(in, host);
  add_other_models(in.other_models_host_bytes, host);
  return host;
}

std::string state_note(const MemoryPlan& plan) {
  std::string text = fmt::format("{} KV, {} sequence{} of {} tokens", dtype_info(plan.kv_type).name,
                                 plan.limits.slots, plan.limits.slots == 1 ? "" : "s", plan.limits.context);
  for (const auto& g : plan.groups)
    text += fmt::format("; {}: {} pages of {} tokens", g.name, g.pages, plan.page_tokens);
  return text;
}

}  // namespace

const char* purpose_name(Purpose purpose) {
  switch (purpose) {
    case Purpose::weights:
      return "weights";
    case Purpose::state:
      return "KV state";
    case Purpose::workspace:
      return "workspace";
    case Purpose::links:
      return "links";
    case Purpose::executables:
      return "executables";
    case Purpose::context:
      return "context";
    case Purpose::staging:
      return "staging";
    case Purpose::process:
      return "process";
    case Purpose::other_models:
      return "other models";
    case Purpose::reserve:
      return "reserve";
  }
  return "?";
}

std::uint64_t DevicePlan::total() const {
  std::uint64_t sum = 0;
  for (const auto& line : lines) sum += line.bytes;
  return sum;
}

std::uint64_t DevicePlan::bytes(Purpose purpose) const {
  std::uint64_t sum = 0;
  for (const auto& line : lines) sum += line.purpose == purpose ? line.bytes : 0;
  return sum;
}

std::uint64_t DevicePlan::model_bytes() const {
  return total() - bytes(Purpose::process) - bytes(Purpose::other_models) - bytes(Purpose::context) -
         bytes(Purpose::reserve);
}

MemoryPlan plan_memory(const PlanInput& in) {
  MemoryPlan plan{.limits = in.limits,
                  .mode = in.mode,
                  .kv_type = in.kv_type,
                  .threads = in.threads,
                  .page_tokens = in.target->page_tokens(),
                  .groups = plan_groups(in)};
  const WeightSums weights = sum_weights(in);
  for (const auto& [type, n] : weights.slow)
    plan.slow_types.push_back(fmt::format("{}: {} tensor{}", type, n, n == 1 ? "" : "s"));
  DevicePlan device{in.device, {}};
  device.lines.push_back({Purpose::weights, weights.bytes, weights_note(in, weights)});
  device.lines.push_back({Purpose::state, state_bytes(plan.groups), state_note(plan)});
  device.lines.push_back({Purpose::workspace,
                          in.target->workspace_bytes(*in.program, in.limits, in.mode, in.threads),
                          workspace_note(in)});
  if (in.target->is_host())
    add_process(in, device);
  else
    add_driver_lines(in, device);
  add_other_models(in.other_models_bytes, device);
  plan.devices.push_back(std::move(device));
  if (!in.target->is_host()) plan.devices.push_back(plan_host(in));
  return plan;
}

namespace {

// The host's share of stages that lie elsewhere, in one line a purpose.
void add_host_side(const std::vector<MemoryPlan>& plans, std::span<const PlanInput> stages,
                   DevicePlan& host) {
  std::uint64_t staging = 0;
  for (const MemoryPlan& p : plans)
    if (p.devices.size() > 1) staging += p.devices.back().bytes(Purpose::staging);
  if (staging) host.lines.push_back({Purpose::staging, staging, "page-locked: step blocks, sampled tokens"});
  const StepLimits& limits = stages[0].limits;
  const auto& links = stages[0].program->links;
  const bool sums =
      std::ranges::any_of(links, [](const LinkSpec& l) { return l.kind == LinkSpec::Kind::sum; });
  const bool rows =
      std::ranges::any_of(links, [](const LinkSpec& l) { return l.kind == LinkSpec::Kind::rows; });
  std::string note =
      rows ? fmt::format("rows of {} steps in flight from stage to stage", limits.in_flight) : "";
  if (sums) note += fmt::format("{}partial sums between ranks", rows ? ", " : "");
  host.lines.push_back({Purpose::links, links_bytes(links, limits), note});
}

// Repeating layers of a stage, and one for the output layer.
std::size_t layers_of(const Program& program) {
  std::size_t n = program.states.size();
  const auto is_head = [](const Op& op) { return role(op) == OpRole::logits; };
  return n + (std::ranges::any_of(program.ops, is_head) ? 1 : 0);
}

}  // namespace

MemoryPlan plan_stages(std::span<const PlanInput> stages) {
  std::vector<MemoryPlan> plans;
  for (const PlanInput& stage : stages) plans.push_back(plan_memory(stage));
  MemoryPlan plan = plans[0];
  plan.devices.clear();
  plan.devices.reserve(stages.size() + 1);
  DevicePlan* host = nullptr;
  for (std::size_t i = 0; i < stages.size(); ++i) {
    plan.devices.push_back(plans[i].devices[0]);
    if (stages[i].target->is_host() && !host) host = &plan.devices.back();
    // Ranks of a stage all have its layers: "CUDA0+CUDA1 65".
    const Program& program = *stages[i].program;
    plan.layers += fmt::format("{}{}", i == 0 ? "" : program.rank > 0 ? "+" : ", ", stages[i].device);
    if (program.rank + 1 == program.ranks) plan.layers += fmt::format(" {}", layers_of(program));
    if (i == 0) continue;
    for (std::size_t g = 0; g < plan.groups.size(); ++g)
      plan.groups[g].page_bytes += plans[i].groups[g].page_bytes;
    plan.slow_types.insert(plan.slow_types.end(), plans[i].slow_types.begin(), plans[i].slow_types.end());
  }
  if (!host) {
    host = &plan.devices.emplace_back(plans[0].devices.back());
    std::erase_if(host->lines, [](const PlanLine& line) { return line.purpose == Purpose::staging; });
  }
  add_host_side(plans, stages, *host);
  return plan;
}

}  // namespace steelyard
