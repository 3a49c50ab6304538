#include "observe/telemetry.h"

#include <time.h>

#include <algorithm>
#include <utility>

namespace steelyard {
namespace {

double thread_seconds() {
  timespec t{};
  return clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t) == 0
             ? static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec)
             : 0;
}

TelemetryPoint point_of(const HostUse& use, const HostSample& host, const std::vector<GpuTelemetry>& gpus) {
  TelemetryPoint p;
  p.at = std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  p.own_cores = static_cast<float>(use.own_cores);
  p.other_cores = static_cast<float>(use.other_cores);
  p.resident = host.resident;
  p.gpus = static_cast<std::uint32_t>(std::min(gpus.size(), TelemetryPoint::kMostGpus));
  for (std::uint32_t i = 0; i < p.gpus; ++i) {
    const GpuTelemetry& t = gpus[i];
    p.gpu[i] = {.busy = static_cast<float>(t.busy_percent) / 100,
                .memory_busy = static_cast<float>(t.memory_busy_percent) / 100,
                .celsius = static_cast<float>(t.celsius),
                .watts = static_cast<float>(t.watts),
                .clock_mhz = static_cast<float>(t.clock_mhz),
                .memory_used = t.memory_used};
  }
  return p;
}

}  // namespace

Telemetry::Telemetry(std::chrono::milliseconds period, std::size_t kept)
    : period_(period),
      monitor_(GpuMonitor::open()),
      host_(read_host()),
      ring_(std::max<std::size_t>(kept, 1)) {
  if (monitor_) driver_ = monitor_->driver();
  now_.host = sample_host();
  look();
  thread_ = std::jthread([this](std::stop_token stop) { run(std::move(stop)); });
}

void Telemetry::run(std::stop_token stop) {
  for (;;) {
    {
      std::unique_lock lock(mutex_);
      pause_.wait_for(lock, stop, period_, [] { return false; });
    }
    if (stop.stop_requested()) return;
    look();
  }
}

void Telemetry::look() {
  const double before = thread_seconds();
  const HostSample host = sample_host();
  std::vector<GpuTelemetry> gpus;
  if (monitor_) gpus = monitor_->read();
  const std::lock_guard lock(mutex_);
  ring_[points_++ % ring_.size()] = point_of(use_between(now_.host, host), host, gpus);
  now_.host = host;
  now_.gpus = std::move(gpus);
  // What this look took, in each of the periods.
  const double seconds = std::max(std::chrono::duration<double>(period_).count(), 1e-3);
  now_.cost = (thread_seconds() - before) / seconds;
}

Telemetry::Now Telemetry::now() const {
  const std::lock_guard lock(mutex_);
  return now_;
}

std::vector<TelemetryPoint> Telemetry::history() const {
  const std::lock_guard lock(mutex_);
  const std::size_t n = std::min<std::size_t>(points_, ring_.size());
  std::vector<TelemetryPoint> points;
  points.reserve(n);
  for (std::uint64_t i = points_ - n; i < points_; ++i) points.push_back(ring_[i % ring_.size()]);
  return points;
}

}  // namespace steelyard
