// What the driver's management library (NVML) tells of the machine's GPUs, whoever uses them: memory, clocks,
// power, heat, links, processes. No context is needed, and nothing of it needs kernels.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace steelyard {

struct GpuProcess {
  std::uint32_t pid = 0;
  std::uint64_t bytes = 0;  // of the GPU's memory; 0: not told
};

// What the library doesn't tell is 0.
struct GpuTelemetry {
  std::uint32_t index = 0;                    // in the order of the PCI addresses, which needn't be CUDA's
  std::string name, pci;                      // "NVIDIA H200", "0000:17:00.0" as DeviceInfo has it
  std::uint64_t memory = 0, memory_used = 0;  // bytes
  // Per cent of the time in which a kernel was resident, and in which memory was read or written: of the
  // library's last sample.
  std::uint32_t busy_percent = 0, memory_busy_percent = 0;
  double celsius = 0;
  double watts = 0, watts_limit = 0, watts_default = 0;
  double clock_mhz = 0, clock_most_mhz = 0, memory_clock_mhz = 0,
         memory_clock_most_mhz = 0;                                // of the SMs, of the memory
  bool power_capped = false, too_hot = false, clocks_set = false;  // what holds the clocks down now
  std::uint32_t link_generation = 0, link_generation_most = 0, link_width = 0,
                link_width_most = 0;                                // PCI Express
  std::uint32_t nvlinks = 0;                                        // active ones
  double received_bytes_per_second = 0, sent_bytes_per_second = 0;  // over PCI Express; read() with `traffic`
  std::vector<GpuProcess> processes;
};

// Thread-safe after it is made.
class GpuMonitor {
 public:
  virtual ~GpuMonitor() = default;
  // nullptr: there is no such library, or it finds no GPU.
  static std::unique_ptr<GpuMonitor> open();
  virtual const std::string& driver() const = 0;  // "580.65.06"
  // Takes about a millisecond a GPU; `traffic`: 40 ms more, in which the library counts.
  virtual std::vector<GpuTelemetry> read(bool traffic = false) const = 0;
  // Whether a kernel of one reaches the other's memory, as the driver grants it. Indices of GpuTelemetry.
  virtual bool peers(std::uint32_t from, std::uint32_t to) const = 0;
};

}  // namespace steelyard
