// A CUDA driver without a GPU: device memory is host memory, streams run at once, kernels are only counted.
// fake_driver.cc defines the driver's functions under their own names (cuInit …), so that the same code
// serves unit tests, through table(), and end-to-end tests, as a library in libcuda.so.1's place
// (libcuda.cc). Injects failures. Tests only; one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "device/cuda/host/driver.h"

namespace steelyard::cuda {

class FakeDriver {
 public:
  explicit FakeDriver(std::uint64_t memory_bytes = 1ull << 30, int devices = 1);
  ~FakeDriver();
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;

  const Driver& table() const { return table_; }

  // A device's memory in use beside contexts, and the whole.
  std::uint64_t& used(int device = 0) { return devices.at(device).used; }
  std::string pci(int device) const;      // "0000:17:00.0"
  std::uint64_t taken(int device) const;  // arenas and contexts

  struct Device {
    std::uint64_t total = 0, used = 0;
    int contexts = 0;  // retained
  };
  // Counts and knobs; guarded by mutex where threads meet.
  std::mutex mutex;
  std::vector<Device> devices;
  std::uint64_t context_bytes = 0;            // what a context takes of its device
  std::uint64_t reserved = 0;                 // address ranges
  std::uint64_t pinned = 0;                   // host memory
  int streams = 0, events = 0, contexts = 0;  // alive
  std::map<std::string, int> launches;        // by kernel
  int graph_launches = 0, graphs = 0;
  bool capturing = false;
  // Called with the function's name in Driver before each call; a result other than 0 is returned instead.
  std::function<CuResult(const std::string& call)> fail;
  // Runs in place of a kernel.
  std::function<void(const std::string& kernel, void** args)> kernel;

  // What was loaded: by image its kernels' names. An image is text: "fake kernels", a name a line, "end".
  std::map<const void*, std::vector<std::string>> libraries;

  struct Allocation {
    std::uint64_t bytes;
    int device;
  };
  std::map<CuMemHandle, Allocation> allocations;
  CuMemHandle next_handle = 1;
  std::map<CuPtr, std::uint64_t> ranges;  // reserved address → bytes
  std::map<CuPtr, std::pair<CuMemHandle, std::uint64_t>> mappings;

  static FakeDriver* current();  // the one there is, or nullptr

 private:
  Driver table_;
};

}  // namespace steelyard::cuda
