#include "app/doctor_machine.h"

#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "doctor/known_card.h"
#include "plan/fleet.h"

namespace steelyard {
namespace {

using doctor::DeviceFacts;
using doctor::GpuHealth;
using doctor::OtherProcess;

// What a desktop and the driver take of a GPU whose processes can't be seen is no news.
constexpr std::uint64_t kUnseen = 1ull << 30;

GpuHealth health_of(const GpuTelemetry& t) {
  return {.celsius = t.celsius,
          .watts = t.watts,
          .watts_limit = t.watts_limit,
          .watts_default = t.watts_default,
          .clock_mhz = t.clock_mhz,
          .clock_most_mhz = t.clock_most_mhz,
          .power_capped = t.power_capped,
          .too_hot = t.too_hot,
          .clocks_set = t.clocks_set,
          .link_width = t.link_width,
          .link_width_most = t.link_width_most,
          .link_generation = t.link_generation,
          .link_generation_most = t.link_generation_most};
}

// The hottest and hungriest of two looks, what held it back in either, and the lanes at work.
void merge(GpuTelemetry& worst, const GpuTelemetry& now) {
  worst.celsius = std::max(worst.celsius, now.celsius);
  // Clocks count while it works, which is when it takes the most.
  if (now.watts >= worst.watts) worst.watts = now.watts, worst.clock_mhz = now.clock_mhz;
  worst.power_capped |= now.power_capped;
  worst.too_hot |= now.too_hot;
  worst.clocks_set |= now.clocks_set;
  worst.link_width = std::max(worst.link_width, now.link_width);
  worst.link_generation = std::max(worst.link_generation, now.link_generation);
}

std::vector<OtherProcess> busy_since(const std::vector<ProcessTime>& before, double seconds) {
  std::vector<OtherProcess> busy;
  if (seconds <= 0) return busy;
  for (const ProcessTime& p : process_times()) {
    const auto old = std::ranges::find(before, p.pid, &ProcessTime::pid);
    const double cores = (p.cpu_seconds - (old == before.end() ? 0 : old->cpu_seconds)) / seconds;
    if (cores > 0.2) busy.push_back({.pid = p.pid, .name = p.name, .cores = cores});
  }
  std::ranges::sort(busy, std::ranges::greater{}, &OtherProcess::cores);
  if (busy.size() > 3) busy.resize(3);
  return busy;
}

}  // namespace

MachineWatch::MachineWatch() : monitor_(GpuMonitor::open()) {
  if (monitor_) before_ = {monitor_->driver(), monitor_->read()};
  worst_ = before_.gpus;
  mark();
  if (monitor_) thread_ = std::jthread([this](std::stop_token stop) { look(stop); });
}

MachineWatch::~MachineWatch() = default;

void MachineWatch::mark() {
  start_ = sample_host();
  times_ = process_times();
}

void MachineWatch::look(std::stop_token stop) {
  std::mutex mutex;
  std::condition_variable_any pause;
  for (std::unique_lock lock(mutex); !stop.stop_requested();) {
    const auto now = monitor_->read();
    for (std::size_t i = 0; i < std::min(now.size(), worst_.size()); ++i) merge(worst_[i], now[i]);
    pause.wait_for(lock, stop, std::chrono::milliseconds(200), [] { return false; });
  }
}

void MachineWatch::stop(doctor::Facts& facts) {
  const HostSample end = sample_host();
  facts.run = use_between(start_, end);
  facts.busy = busy_since(times_, end.at - start_.at);
  if (thread_.joinable()) {
    thread_.request_stop();
    thread_.join();
  }
  add_gpus({before_.driver, worst_}, facts);
}

GpusSeen MachineWatch::now() const {
  return {before_.driver, monitor_ ? monitor_->read() : std::vector<GpuTelemetry>()};
}

bool same_gpu(const std::string& pci, const std::string& other) {
  return !pci.empty() && std::ranges::equal(
                             pci, other, {}, [](unsigned char c) { return std::tolower(c); },
                             [](unsigned char c) { return std::tolower(c); });
}

std::vector<OtherProcess> others_on(const GpuTelemetry& gpu) {
  std::vector<OtherProcess> others;
  for (const GpuProcess& p : gpu.processes)
    if (p.pid != static_cast<std::uint32_t>(getpid()))
      others.push_back({.pid = p.pid, .name = process_name(p.pid), .bytes = p.bytes});
  if (gpu.processes.empty() && gpu.memory_used > kUnseen)
    others.push_back({.name = "programs that can't be seen from here", .bytes = gpu.memory_used});
  return others;
}

void add_gpus(const GpusSeen& seen, doctor::Facts& facts) {
  facts.driver = seen.driver;
  facts.gpu_present |= !seen.gpus.empty();
  for (const GpuTelemetry& t : seen.gpus) {
    // A used one is known by its address; one that isn't gets a name by its place.
    const auto found =
        std::ranges::find_if(facts.devices, [&](const DeviceFacts& d) { return same_gpu(d.pci, t.pci); });
    DeviceFacts* d = found == facts.devices.end() ? nullptr : &*found;
    if (!d) {
      DeviceFacts idle{.id = "GPU" + std::to_string(t.index),
                       .name = t.name,
                       .pci = t.pci,
                       .gpu = true,
                       .memory = t.memory,
                       .free = t.memory - std::min(t.memory, t.memory_used)};
      if (const Card* card = doctor::known_card(t.name))
        idle.read_rate = card->read_gb * 1e9, idle.nominal = true;
      d = &facts.devices.emplace_back(std::move(idle));
    }
    d->health = health_of(t);
    d->others = others_on(t);
  }
}

}  // namespace steelyard
