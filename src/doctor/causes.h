// Why a model is slow, by the facts: each cause is recognised by a function of its own, with what was seen,
// what to set and what that would bring. Pure.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "doctor/facts.h"

namespace steelyard::doctor {

// The numbers are part of the exit codes (exit_code()): new ones go to the end.
enum class Cause : std::uint8_t {
  layers_on_cpu = 1,
  head_on_cpu,
  gpu_unused,
  build_without_gpu,
  driver_too_old,
  stages_one_stream,
  uneven_cards,
  sums_through_host,
  slow_link,
  slow_types,
  context_depth,
  context_reserved,
  kv_type,
  kv_on_cpu,
  one_stream,
  prompts_between,
  power_cap,
  heat,
  clocks_set,
  gpu_shared,
  cpu_shared,
  threads_over_quota,
  threads_over_cores,
  numa,
  memory_limit,
  slow_disk,
  network_disk,
  swap,
  stale_limit,
  reloads,
  prefix_not_reused,
  queue_full,
  host_sampling,
  prompts_cut,
  flash_attention_off,
  large_weights,
  cache_evicted,
  slow_clocks
};

struct Finding {
  Cause cause{};
  std::string evidence;  // what was seen, a sentence without its stop
  std::string change;    // what to set, in the words of the program that has the setting
  // Of Steelyard's `run` and `serve`, as `doctor --apply` sets them.
  std::vector<std::pair<std::string, std::string>> flags;
  double predicted = 0;   // tokens/s with it; 0: can't be said beforehand
  bool at_most = false;   // that is a bound, not an estimate
  double share = 0;       // of a token's time that goes to it, 0 to 1; 0: by what is predicted
  bool together = false;  // that is of all conversations together
  std::string price;      // what it costs; not empty: an offer, and not what is wrong
};

struct CauseInfo {
  Cause cause;
  const char* name;   // "layers_on_cpu": in JSON and documents
  const char* title;  // "layers on the CPU"
};
std::span<const CauseInfo> causes();
const CauseInfo& info(Cause cause);

// What is wrong, what brings most first; then the offers. Flags that --apply would set are Steelyard's alone.
std::vector<Finding> find_causes(const Facts& facts);

// 0: nothing is wrong; else 10 and the first finding's number.
int exit_code(const std::vector<Finding>& findings);

}  // namespace steelyard::doctor
