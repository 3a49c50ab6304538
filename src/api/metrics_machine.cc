#include "api/metrics_machine.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "device/telemetry.h"
#include "observe/host.h"

namespace steelyard::api {
namespace {

std::string value(std::string_view name, std::string_view type, std::string_view help, double number) {
  return metric_head(name, type, help) + fmt::format("{} {}\n", name, number);
}

std::string process_text(const HostSample& s) {
  return value("steelyard_process_resident_bytes", "gauge", "Memory of the process that is resident.",
               static_cast<double>(s.resident)) +
         value("steelyard_process_swapped_bytes", "gauge", "Memory of the process that lies in swap.",
               static_cast<double>(s.swapped)) +
         value("steelyard_process_cpu_seconds_total", "counter", "Time of all the process' threads.",
               s.cpu_seconds) +
         value("steelyard_process_major_faults_total", "counter",
               "Pages of the process that came from a disk.", static_cast<double>(s.major_faults)) +
         value("steelyard_cpu_throttled_seconds_total", "counter",
               "Time that a CPU quota held the control group up.", s.throttled) +
         value("steelyard_host_busy_seconds_total", "counter",
               "Time that the machine's cores worked, for anybody.", s.machine_busy);
}

std::string host_text(const HostFacts& h) {
  std::string text =
      value("steelyard_host_cores", "gauge", "Logical cores of the machine.", h.cores) +
      value("steelyard_host_memory_bytes", "gauge", "Memory of the machine.", static_cast<double>(h.memory));
  if (h.quota > 0)
    text += value("steelyard_cpu_quota_cores", "gauge", "Cores' worth of time that control groups leave.",
                  h.quota);
  if (h.memory_limit)
    text += value("steelyard_memory_limit_bytes", "gauge", "Memory that control groups allow.",
                  static_cast<double>(h.memory_limit));
  return text;
}

struct GpuGauge {
  std::string_view name, help;
  double (*of)(const GpuTelemetry& t);
};
constexpr GpuGauge kGpuGauges[] = {
    {"steelyard_gpu_memory_bytes", "Memory of a GPU.",
     [](const GpuTelemetry& t) { return static_cast<double>(t.memory); }},
    {"steelyard_gpu_memory_used_bytes", "Of it in use, by anybody.",
     [](const GpuTelemetry& t) { return static_cast<double>(t.memory_used); }},
    {"steelyard_gpu_busy_ratio", "Share of the time in which a kernel was resident.",
     [](const GpuTelemetry& t) { return t.busy_percent / 100.0; }},
    {"steelyard_gpu_memory_busy_ratio", "Share of the time in which its memory was read or written.",
     [](const GpuTelemetry& t) { return t.memory_busy_percent / 100.0; }},
    {"steelyard_gpu_temperature_celsius", "Temperature of a GPU.",
     [](const GpuTelemetry& t) { return t.celsius; }},
    {"steelyard_gpu_power_watts", "Power that a GPU takes.", [](const GpuTelemetry& t) { return t.watts; }},
    {"steelyard_gpu_power_limit_watts", "Power that it may take.",
     [](const GpuTelemetry& t) { return t.watts_limit; }},
    {"steelyard_gpu_clock_hertz", "Clock of its multiprocessors.",
     [](const GpuTelemetry& t) { return 1e6 * t.clock_mhz; }},
    {"steelyard_gpu_clock_most_hertz", "The highest that they have.",
     [](const GpuTelemetry& t) { return 1e6 * t.clock_most_mhz; }},
    {"steelyard_gpu_link_lanes", "Lanes of PCI Express at work.",
     [](const GpuTelemetry& t) { return double{1} * t.link_width; }},
};

std::string gpus_text(const std::vector<GpuTelemetry>& gpus) {
  if (gpus.empty()) return {};
  const auto labels = [](const GpuTelemetry& t) {
    return fmt::format("gpu=\"{}\",name={},pci={}", t.index, metric_label(t.name), metric_label(t.pci));
  };
  std::string text;
  for (const GpuGauge& g : kGpuGauges) {
    text += metric_head(g.name, "gauge", g.help);
    for (const GpuTelemetry& t : gpus) text += fmt::format("{}{{{}}} {}\n", g.name, labels(t), g.of(t));
  }
  text += metric_head("steelyard_gpu_held_back", "gauge", "1: this holds a GPU's clocks down now.");
  for (const GpuTelemetry& t : gpus)
    for (const auto& [reason, on] :
         {std::pair{"power", t.power_capped}, {"heat", t.too_hot}, {"clocks_set", t.clocks_set}})
      text += fmt::format("steelyard_gpu_held_back{{{},reason=\"{}\"}} {}\n", labels(t), reason, on ? 1 : 0);
  return text;
}

}  // namespace

std::string metric_head(std::string_view name, std::string_view type, std::string_view help) {
  return fmt::format("# HELP {} {}\n# TYPE {} {}\n", name, help, name, type);
}

std::string metric_label(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    if (c == '\n')
      out += "\\n";
    else
      out += c;
  }
  return out + '"';
}

std::string machine_metrics(const Telemetry& telemetry) {
  const Telemetry::Now now = telemetry.now();
  return process_text(now.host) + host_text(telemetry.host()) + gpus_text(now.gpus) +
         value("steelyard_telemetry_cost_ratio", "gauge", "Share of a core that looking at all this takes.",
               now.cost);
}

std::string machine_history(const Telemetry& telemetry) {
  using Json = nlohmann::ordered_json;
  Json points = Json::array();
  for (const TelemetryPoint& p : telemetry.history()) {
    Json gpus = Json::array();
    for (std::uint32_t i = 0; i < p.gpus; ++i) {
      const TelemetryPoint::Gpu& g = p.gpu[i];
      gpus.push_back({{"busy_ratio", g.busy},
                      {"memory_busy_ratio", g.memory_busy},
                      {"celsius", g.celsius},
                      {"watts", g.watts},
                      {"clock_mhz", g.clock_mhz},
                      {"memory_used_bytes", g.memory_used}});
    }
    points.push_back({{"at", p.at},
                      {"own_cores", p.own_cores},
                      {"other_cores", p.other_cores},
                      {"resident_bytes", p.resident},
                      {"gpus", std::move(gpus)}});
  }
  const double period = std::chrono::duration<double>(telemetry.period()).count();
  return Json{{"period_seconds", period}, {"points", std::move(points)}}.dump();
}

}  // namespace steelyard::api
