// What the system and the GPUs' driver tell while something runs, for doctor.
#pragma once

#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "device/telemetry.h"
#include "doctor/facts.h"
#include "observe/host.h"

namespace steelyard {

// GPUs as the driver's library tells them, whoever can use them; empty where it isn't there.
struct GpusSeen {
  std::string driver;
  std::vector<GpuTelemetry> gpus;
};

// Looks from its making to stop(): counters of the system, and the GPUs five times a second.
class MachineWatch {
 public:
  MachineWatch();
  ~MachineWatch();
  MachineWatch(const MachineWatch&) = delete;
  MachineWatch& operator=(const MachineWatch&) = delete;

  // What other processes held when it was made.
  const GpusSeen& before() const { return before_; }
  // The GPUs as they are now.
  GpusSeen now() const;
  // Begins anew to count what the system counts.
  void mark();
  // Ends, and writes what was seen: the host's use, busy processes, and of each GPU its health.
  void stop(doctor::Facts& facts);

 private:
  void look(std::stop_token stop);

  std::unique_ptr<GpuMonitor> monitor_;
  GpusSeen before_;
  std::vector<GpuTelemetry> worst_;  // written by the thread, read when it has ended
  HostSample start_;
  std::vector<ProcessTime> times_;
  std::jthread thread_;  // the last: it uses the others
};

// Of the same GPU? Addresses are compared without regard to case; an empty one is nobody's.
bool same_gpu(const std::string& pci, const std::string& other);

// What a GPU's processes other than this one hold.
std::vector<doctor::OtherProcess> others_on(const GpuTelemetry& gpu);

// Adds GPUs that `facts` hasn't got yet, and what they are held back by.
void add_gpus(const GpusSeen& seen, doctor::Facts& facts);

}  // namespace steelyard
