// A driver table without a GPU: device memory is host memory, streams run at once, kernels are only counted.
// Injects failures. Tests only; one at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "device/cuda/host/gpu.h"

namespace steelyard::cuda {

class FakeDriver {
 public:
  explicit FakeDriver(std::uint64_t memory_bytes = 1ull << 30);
  ~FakeDriver();
  FakeDriver(const FakeDriver&) = delete;
  FakeDriver& operator=(const FakeDriver&) = delete;

  const Driver& table() const { return table_; }
  // One image with every kernel that the host side asks for; `Image` says what an image of a test's own
  // holds.
  static std::span<const KernelImage> images();
  using Image = std::vector<const char*>;  // the kernels' names

  // Counts and knobs; guarded by mutex where threads meet.
  std::mutex mutex;
  std::uint64_t total = 0, used = 0;          // device memory
  std::uint64_t reserved = 0;                 // address ranges
  std::uint64_t pinned = 0;                   // host memory
  int streams = 0, events = 0, contexts = 0;  // alive
  std::map<std::string, int> launches;        // by kernel
  int graph_launches = 0, graphs = 0;
  bool capturing = false;
  // Called with the symbol's short name before each call; a result other than 0 is returned instead.
  std::function<CuResult(const std::string& call)> fail;
  // Runs in place of a kernel.
  std::function<void(const std::string& kernel, void** args)> kernel;

  std::map<CuMemHandle, std::uint64_t> allocations;  // handle → bytes
  CuMemHandle next_handle = 1;
  std::map<CuPtr, std::uint64_t> ranges;  // reserved address → bytes
  std::map<CuPtr, std::pair<CuMemHandle, std::uint64_t>> mappings;

 private:
  Driver table_;
};

}  // namespace steelyard::cuda
