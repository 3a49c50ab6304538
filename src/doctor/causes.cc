#include "doctor/causes.h"

#include <algorithm>
#include <array>

#include "doctor/rules.h"

namespace steelyard::doctor {
namespace {

// clang-format off
constexpr std::array kCauses = {
    CauseInfo{Cause::layers_on_cpu,       "layers_on_cpu",       "layers on the CPU"},
    CauseInfo{Cause::head_on_cpu,         "head_on_cpu",         "the output layer on the CPU"},
    CauseInfo{Cause::gpu_unused,          "gpu_unused",          "a GPU that isn't used"},
    CauseInfo{Cause::build_without_gpu,   "build_without_gpu",   "a build without the GPU's kernels"},
    CauseInfo{Cause::driver_too_old,      "driver_too_old",      "a driver that is too old"},
    CauseInfo{Cause::stages_one_stream,   "stages_one_stream",   "GPUs that take turns"},
    CauseInfo{Cause::uneven_cards,        "uneven_cards",        "a slow card with as many layers as a fast one"},
    CauseInfo{Cause::sums_through_host,   "sums_through_host",   "ranks that wait for each other's sums"},
    CauseInfo{Cause::slow_link,           "slow_link",           "a narrow or slow link"},
    CauseInfo{Cause::slow_types,          "slow_types",          "weight types without fast kernels"},
    CauseInfo{Cause::context_depth,       "context_depth",       "a long conversation"},
    CauseInfo{Cause::context_reserved,    "context_reserved",    "memory kept for a context that pushes layers out"},
    CauseInfo{Cause::kv_type,             "kv_type",             "keys and values larger than they need be"},
    CauseInfo{Cause::kv_on_cpu,           "kv_on_cpu",           "keys and values in host memory"},
    CauseInfo{Cause::one_stream,          "one_stream",          "one conversation at a time"},
    CauseInfo{Cause::prompts_between,     "prompts_between",     "prompts read between the steps of answers"},
    CauseInfo{Cause::power_cap,           "power_cap",           "a power limit"},
    CauseInfo{Cause::heat,                "heat",                "heat"},
    CauseInfo{Cause::clocks_set,          "clocks_set",          "clocks that are held down"},
    CauseInfo{Cause::gpu_shared,          "gpu_shared",          "another program's memory on the GPU"},
    CauseInfo{Cause::cpu_shared,          "cpu_shared",          "another program on the processor"},
    CauseInfo{Cause::threads_over_quota,  "threads_over_quota",  "more threads than the CPU quota lets run"},
    CauseInfo{Cause::threads_over_cores,  "threads_over_cores",  "more threads than cores"},
    CauseInfo{Cause::numa,                "numa",                "memory of another NUMA node"},
    CauseInfo{Cause::memory_limit,        "memory_limit",        "a container's memory limit"},
    CauseInfo{Cause::slow_disk,           "slow_disk",           "a slow disk"},
    CauseInfo{Cause::network_disk,        "network_disk",        "a model on a network's disk"},
    CauseInfo{Cause::swap,                "swap",                "weights that come from the disk again"},
    CauseInfo{Cause::stale_limit,         "stale_limit",         "limits that are out of date"},
    CauseInfo{Cause::reloads,             "reloads",             "the model is loaded again and again"},
    CauseInfo{Cause::prefix_not_reused,   "prefix_not_reused",   "prompts that are read anew each time"},
    CauseInfo{Cause::queue_full,          "queue_full",          "requests that wait"},
    CauseInfo{Cause::host_sampling,       "host_sampling",       "drawing tokens"},
    CauseInfo{Cause::prompts_cut,         "prompts_cut",         "prompts that were cut"},
    CauseInfo{Cause::flash_attention_off, "flash_attention_off", "attention by the slow way"},
    CauseInfo{Cause::large_weights,       "large_weights",       "large weights"},
    CauseInfo{Cause::cache_evicted,       "cache_evicted",       "answers that gave up their keys and values"},
    CauseInfo{Cause::slow_clocks,         "slow_clocks",         "a processor that saves power"},
};
// clang-format on

// Faults before offers; by what they bring, where that is known. What can't be predicted stands behind what
// brings a tenth and before what brings less.
constexpr double kUnknownGain = 1.1;

double gain(const Finding& f, const Facts& facts) {
  if (f.predicted <= 0 || facts.tokens_per_second <= 0) return kUnknownGain;
  return f.predicted / facts.tokens_per_second;
}

}  // namespace

std::span<const CauseInfo> causes() { return kCauses; }

const CauseInfo& info(Cause cause) { return kCauses[static_cast<std::size_t>(cause) - 1]; }

std::vector<Finding> find_causes(const Facts& facts) {
  std::vector<Finding> findings;
  for (const auto& rules : {placement_rules(), model_rules(), machine_rules()})
    for (const Rule rule : rules)
      if (Found found = rule(facts)) findings.push_back(std::move(*found));
  std::ranges::stable_sort(findings, [&](const Finding& a, const Finding& b) {
    if (a.price.empty() != b.price.empty()) return a.price.empty();
    return gain(a, facts) > gain(b, facts);
  });
  return findings;
}

int exit_code(const std::vector<Finding>& findings) {
  if (findings.empty() || !findings.front().price.empty()) return 0;
  return 10 + static_cast<int>(findings.front().cause);
}

}  // namespace steelyard::doctor
