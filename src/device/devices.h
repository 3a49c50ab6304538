// The devices of this machine by name. Each is opened when it is first asked for and shared by everybody who
// holds it: a GPU's context and kernels, the CPU's threads and queue are there once, however many models run.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "device/device.h"

namespace steelyard {

struct DeviceName {
  enum class Kind : std::uint8_t { automatic, cpu, cuda };
  Kind kind = Kind::automatic;
  std::uint32_t index = 0;  // of a GPU
  bool operator==(const DeviceName&) const = default;
};
// "auto", "cpu", "cuda0", "cuda1" …, in any case; "cuda" is the first. Throws Error(bad_input).
DeviceName parse_device(std::string_view name);
// "cuda0,cuda1,cpu": each once. Throws Error(bad_input).
std::vector<DeviceName> parse_devices(std::string_view names);
// Bytes of devices that may be used: "cuda0=10GiB,cpu=8G". Throws Error(bad_input).
using DeviceBytes = std::vector<std::pair<DeviceName, std::uint64_t>>;
DeviceBytes parse_device_bytes(std::string_view text);

// What this program's models hold of each device, or will when they are loaded: planning the next one counts
// it. Thread-safe.
class HeldMemory {
 public:
  std::uint64_t on(const std::string& device) const;  // bytes, by DeviceInfo::id
  // From on() to the MemoryHold of what was planned upon it, so that no two plans count on the same room.
  [[nodiscard]] std::unique_lock<std::mutex> planning() { return std::unique_lock(planning_); }
  // Of a process that has `resident` bytes of the host's memory, what isn't its models'. While one loads,
  // nobody knows how much of it is resident: then what it was before.
  std::uint64_t process_bytes(std::uint64_t resident);

 private:
  friend class MemoryHold;
  std::mutex planning_;
  mutable std::mutex mutex_;
  std::map<std::string, std::uint64_t> bytes_;
  std::uint32_t loading_ = 0;  // holds that aren't settled
  std::uint64_t process_ = 0;  // when none was
};

// One model's part of it, from its plan on and as long as this lives.
class MemoryHold {
 public:
  MemoryHold(std::shared_ptr<HeldMemory> held, std::string device, std::uint64_t bytes);
  MemoryHold(MemoryHold&&) = default;
  ~MemoryHold();
  void settle();  // the model is loaded: all of it is resident

 private:
  std::shared_ptr<HeldMemory> held_;  // null once moved from
  std::string device_;
  std::uint64_t bytes_;
  bool settled_ = false;
};

// Thread-safe.
class Devices {
 public:
  // Throws Error: not_found when there is no such device, io when it is lost, what the driver says when it
  // can't be opened.
  std::shared_ptr<Device> cuda(std::uint32_t index);
  // One for everybody who asks for as many threads (0: their number by default) and the same limit. Throws
  // Error(no_memory) when the system refuses a thread.
  std::shared_ptr<Device> cpu(const CpuOptions& options);
  // It was found to be lost: it isn't opened again, even when nobody holds it any more.
  void lose(const Device& device);
  const std::shared_ptr<HeldMemory>& held() const { return held_; }

 private:
  std::mutex mutex_;
  std::map<std::uint32_t, std::weak_ptr<Device>> open_;                            // GPUs
  std::map<std::pair<std::uint32_t, std::uint64_t>, std::weak_ptr<Device>> cpus_;  // by threads and limit
  std::set<std::string> lost_;                                                     // ids
  std::shared_ptr<HeldMemory> held_ = std::make_shared<HeldMemory>();
};

}  // namespace steelyard
