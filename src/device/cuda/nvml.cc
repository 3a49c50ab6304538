#include "device/cuda/nvml.h"

#include <dlfcn.h>

namespace strata::cuda {
namespace {

struct NvmlDevice;
struct NvmlMemory {
  unsigned long long total, free, used;
};

}  // namespace

// Opened for each question: it is asked twice when a device is opened, and never again.
std::optional<std::uint64_t> used_memory(const std::string& pci) {
  void* library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
  if (!library) return std::nullopt;
  const auto init = reinterpret_cast<int (*)()>(dlsym(library, "nvmlInit_v2"));
  const auto shutdown = reinterpret_cast<int (*)()>(dlsym(library, "nvmlShutdown"));
  const auto find = reinterpret_cast<int (*)(const char*, NvmlDevice**)>(
      dlsym(library, "nvmlDeviceGetHandleByPciBusId_v2"));
  const auto memory =
      reinterpret_cast<int (*)(NvmlDevice*, NvmlMemory*)>(dlsym(library, "nvmlDeviceGetMemoryInfo"));
  std::optional<std::uint64_t> used;
  if (init && shutdown && find && memory && init() == 0) {
    NvmlDevice* device = nullptr;
    NvmlMemory m{};
    if (find(pci.c_str(), &device) == 0 && memory(device, &m) == 0) used = m.used;
    shutdown();
  }
  dlclose(library);
  return used;
}

}  // namespace strata::cuda
