// The machine's condition as time goes: looked at every few seconds by a thread of its own, and the last hour
// kept in a ring that never grows. Its own cost is measured, too.
#pragma once

#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "device/telemetry.h"
#include "observe/host.h"

namespace steelyard {

// Of one moment. GPUs in the driver's order, as far as there is room.
struct TelemetryPoint {
  static constexpr std::size_t kMostGpus = 16;
  struct Gpu {
    float busy = 0, memory_busy = 0;  // shares of the time, 0 to 1
    float celsius = 0, watts = 0, clock_mhz = 0;
    std::uint64_t memory_used = 0;  // bytes
  };
  double at = 0;                         // seconds since 1970
  float own_cores = 0, other_cores = 0;  // busy since the point before
  std::uint64_t resident = 0;            // bytes of this process
  std::uint32_t gpus = 0;
  std::array<Gpu, kMostGpus> gpu;
};

// Thread-safe.
class Telemetry {
 public:
  struct Now {
    HostSample host;
    std::vector<GpuTelemetry> gpus;
    double cost = 0;  // share of a core that looking takes, 0 to 1
  };

  explicit Telemetry(std::chrono::milliseconds period = std::chrono::seconds(5), std::size_t kept = 720);
  ~Telemetry() = default;
  Telemetry(const Telemetry&) = delete;
  Telemetry& operator=(const Telemetry&) = delete;

  Now now() const;  // of the last look; GPUs aren't asked for it
  const HostFacts& host() const { return host_; }
  const std::string& driver() const { return driver_; }
  std::chrono::milliseconds period() const { return period_; }
  std::vector<TelemetryPoint> history() const;  // oldest first

 private:
  void run(std::stop_token stop);
  void look();

  const std::chrono::milliseconds period_;
  std::unique_ptr<GpuMonitor> monitor_;
  HostFacts host_;
  std::string driver_;
  mutable std::mutex mutex_;
  std::condition_variable_any pause_;
  Now now_;
  std::vector<TelemetryPoint> ring_;
  std::uint64_t points_ = 0;
  std::jthread thread_;  // the last: it uses the others, and ends before them
};

}  // namespace steelyard
