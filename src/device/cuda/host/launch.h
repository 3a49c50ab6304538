// Starting kernels, for whoever knows which: kernels live in .cu files that nvcc turns into fatbins
// (extern "C" __global__ functions, names unique over all of them), and are started by name. Host code
// without CUDA headers.
#pragma once

#include <cstdint>
#include <string>

namespace steelyard::cuda {

using DevicePtr = std::uint64_t;

template <typename T>
T* pointer(DevicePtr address) {
  return reinterpret_cast<T*>(address);
}

constexpr std::uint32_t ceil_div(std::uint32_t a, std::uint32_t b) { return (a + b - 1) / b; }

struct GpuInfo {
  std::string name;
  std::uint32_t major = 0, minor = 0;  // compute capability
  std::uint32_t sms = 0;
  std::uint32_t shared_per_block = 0;  // opt-in limit, bytes
  std::uint64_t l2_bytes = 0;
  double clock_hz = 0, memory_clock_hz = 0;  // the highest; 0: the driver doesn't say
  std::uint32_t memory_bus_bits = 0;
};

struct KernelLaunch {
  const char* kernel;
  std::uint32_t grid[3] = {1, 1, 1};
  std::uint32_t block[3] = {1, 1, 1};
  std::uint32_t cluster = 1;       // blocks of a cluster along x
  std::uint32_t shared_bytes = 0;  // dynamic; the opt-in above 48 KiB is the launcher's business
  bool cooperative = false;        // all blocks resident
  bool dependent = false;  // programmatic dependent launch: may start before its predecessor ended, so it
                           // executes griddepcontrol.wait before touching anything the predecessor writes
};

// Starts kernels in stream order: on a stream, or into a graph that is being captured. Throws Error.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // args[i] points to the i-th parameter, as in cuLaunchKernelEx.
  virtual void launch(const KernelLaunch& launch, void** args) = 0;

  template <typename... Args>
  void operator()(const KernelLaunch& l, Args... args) {
    void* pointers[] = {static_cast<void*>(&args)..., nullptr};
    launch(l, pointers);
  }
};

// What kernels' host side may prepare at compile time.
class CompileServices {
 public:
  virtual ~CompileServices() = default;
  virtual bool has_kernel(const char* kernel) = 0;  // false: not compiled for this GPU
  virtual std::uint32_t blocks_per_sm(const char* kernel, std::uint32_t threads,
                                      std::uint32_t shared_bytes) = 0;
  // Copies to the device and returns when it is there; compile time only.
  virtual void upload(DevicePtr to, const void* from, std::uint64_t bytes) = 0;
  virtual void zero(DevicePtr to, std::uint64_t bytes) = 0;
};

}  // namespace steelyard::cuda
