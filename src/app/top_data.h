// What `steelyard top` shows, read out of a server's /metrics and, beside it or without one, out of this
// machine. Pure but for this_machine().
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "device/telemetry.h"
#include "observe/host.h"

namespace steelyard {

struct TopModel {
  std::string name;
  double running = 0, waiting = 0, slots = 0;
  double kv_pages = 0, kv_in_use = 0;
  double achieved = 0;                                   // share of the machine's limit, 0 to 1; 0: unknown
  double generated = 0, prompts = 0, steps_seconds = 0;  // counters
  // Since the look before.
  double generated_per_second = 0, prompts_per_second = 0, busy = 0;
  std::map<std::string, std::map<std::string, double>> memory;  // device → purpose → bytes
  double bytes() const;
};

struct TopData {
  double at = 0;                                // seconds of the steady clock
  std::string server;                           // its address; empty: none answers
  std::string note;                             // why not
  double prompt_tokens = 0, cached_tokens = 0;  // counters of the server
  std::vector<TopModel> models;
  std::vector<GpuTelemetry> gpus;
  HostSample host;  // of the server's process; without one of this machine alone
  double own_cores = 0, other_cores = 0;
  double cores = 0, memory = 0;
};

// "name{label="value",…} 12": one sample of Prometheus' text; false where the line is none.
struct MetricLine {
  std::string name;
  std::map<std::string, std::string> labels;
  double value = 0;
};
bool read_metric(std::string_view line, MetricLine& metric);

TopData read_top(std::string_view metrics);
TopData this_machine(const GpuMonitor* monitor);
// Rates of `now`, by what was before it.
void add_rates(const TopData& before, TopData& now);

enum class TopOrder : std::uint8_t { speed, memory, name };
void sort_models(std::vector<TopModel>& models, TopOrder order);

nlohmann::ordered_json to_json(const TopData& data);

}  // namespace steelyard
