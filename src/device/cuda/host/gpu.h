// One GPU: its context, kernels and state of health. Shared by its arenas, loads and executables.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "device/cuda/host/driver.h"
#include "device/cuda/host/kernel_file.h"
#include "device/cuda/host/launch.h"
#include "device/cuda/host/nvml.h"

namespace steelyard::cuda {

// Thread-safe. Every call that reaches the driver binds the context to the calling thread first.
class Gpu {
 public:
  using UsedMemory = std::function<std::optional<DriverMemory>(const std::string& pci)>;

  // Throws Error when the device can't be opened or none of the images, which outlive this, fits it. `used`
  // is asked before and after, to measure what opening takes, and by driver_memory().
  Gpu(const Driver& driver, int index, std::span<const KernelImage> images,
      const UsedMemory& used = used_memory);
  ~Gpu();
  Gpu(const Gpu&) = delete;
  Gpu& operator=(const Gpu&) = delete;

  const Driver& driver() const { return driver_; }
  const GpuInfo& info() const { return info_; }
  const std::string& id() const { return id_; }
  CuDevice device() const { return device_; }
  const std::string& pci() const { return pci_; }  // as cuDeviceGetPCIBusId writes it
  std::uint64_t total_memory() const { return total_; }
  std::uint64_t free_memory();
  // What opening took; 0 when it couldn't be measured.
  std::uint64_t context_bytes() const { return context_bytes_; }
  // What is in use beside the memory that allocate() gave.
  DriverMemory driver_memory();

  // Physical memory for arenas, in whole granules. Throws Error.
  CuMemHandle allocate(std::uint64_t bytes);
  void release(CuMemHandle handle, std::uint64_t bytes);

  // Binds the context. Throws Error when the device is lost.
  void bind();
  // Throws Error unless `result` is success; `what` names the action. Marks the device lost where the error
  // says that its context is beyond repair.
  void check(CuResult result, std::string_view what);
  bool lost() const { return lost_.load(std::memory_order_relaxed); }
  // Waits for the event without blocking in the driver. Throws Error when the device is lost, or is taken to
  // be after `patience`; `abort` (host memory that kernels watch, or nullptr) is set a while before that.
  void wait_for(CuEvent event, volatile std::uint32_t* abort,
                std::chrono::milliseconds patience = std::chrono::minutes(2));
  // Waits until the event has come or work has failed; after `patience` the device is taken to be lost.
  void drain(CuEvent event, std::chrono::milliseconds patience = std::chrono::seconds(20)) noexcept;

  // The one queue on which all executables enqueue their work, and the lock to hold meanwhile: so steps of
  // several models, or parts of one on several devices, are seen in one order. Captures and loads have
  // streams of their own.
  CuStream queue() const { return queue_; }
  std::mutex& queue_mutex() { return queue_mutex_; }

  struct Kernel {
    CuKernel kernel = nullptr;
    CuFunction function = nullptr;
    std::uint32_t shared_bytes = 0;  // dynamic, as opted in so far
  };
  // nullptr: no image for this GPU holds it. The first call for a kernel loads its code.
  Kernel* find_kernel(const char* name);
  // Throws Error(internal) when it isn't there.
  Kernel& kernel(const char* name);
  void allow_shared(Kernel& kernel, std::uint32_t bytes);
  // STEELYARD_CUDA_POISON=1: every kernel finds shared memory full of NaN, as tests want it: what a kernel
  // reads without having written it shows. Slow.
  bool poisons() const { return poisons_; }

 private:
  void read_info();
  void load_images(std::span<const KernelImage> images);
  void list_kernels(CuLibrary library);
  void close();

  const Driver& driver_;
  std::string id_;
  CuDevice device_ = 0;
  CuContext context_ = nullptr;
  CuStream queue_ = nullptr;
  std::mutex queue_mutex_;
  GpuInfo info_;
  const UsedMemory used_;
  std::string pci_;
  std::uint64_t total_ = 0, context_bytes_ = 0;
  std::mutex memory_mutex_;  // no memory comes or goes while it is measured
  std::uint64_t allocated_ = 0;
  std::vector<CuLibrary> libraries_;
  std::mutex kernels_mutex_;
  std::map<std::string, Kernel, std::less<>> kernels_;  // all there are; functions as they are asked for
  std::atomic<bool> lost_{false};
  const bool poisons_;
};

// Launches on one stream.
class StreamLauncher final : public Launcher {
 public:
  StreamLauncher(Gpu& gpu, CuStream stream) : gpu_(gpu), stream_(stream) {}
  void launch(const KernelLaunch& launch, void** args) override;

 private:
  void start(const KernelLaunch& launch, void** args);
  Gpu& gpu_;
  CuStream stream_;
};

// Owners of driver objects.
class Stream {
 public:
  explicit Stream(Gpu& gpu);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  CuStream get() const { return stream_; }
  void synchronize();

 private:
  Gpu& gpu_;
  CuStream stream_ = nullptr;
};

class Event {
 public:
  Event(Gpu& gpu, bool timing);
  ~Event();
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  CuEvent get() const { return event_; }
  void record(CuStream stream);
  void synchronize();

 private:
  Gpu& gpu_;
  CuEvent event_ = nullptr;
};

// Page-locked host memory that the GPU can read and write too.
class PinnedMemory {
 public:
  PinnedMemory(Gpu& gpu, std::uint64_t bytes);
  ~PinnedMemory();
  PinnedMemory(const PinnedMemory&) = delete;
  PinnedMemory& operator=(const PinnedMemory&) = delete;
  std::byte* data() const { return data_; }
  DevicePtr device_address() const { return device_; }
  std::uint64_t bytes() const { return bytes_; }

 private:
  Gpu& gpu_;
  std::byte* data_ = nullptr;
  DevicePtr device_ = 0;
  std::uint64_t bytes_;
};

}  // namespace steelyard::cuda
