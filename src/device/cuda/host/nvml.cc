#include "device/cuda/host/nvml.h"

#include <dlfcn.h>
#include <unistd.h>

#include <type_traits>
#include <vector>

#include "device/cuda/host/driver.h"

namespace steelyard::cuda {
namespace {

constexpr unsigned long long kNotAvailable = ~0ull;

// The functions used, by their names in the library; any may be missing.
struct Nvml {
  explicit Nvml(void* library) {
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    };
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(device, "nvmlDeviceGetHandleByPciBusId_v2");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(processes, "nvmlDeviceGetComputeRunningProcesses_v3");
  }
  int (*init)();
  int (*shutdown)();
  int (*device)(const char*, NvmlDevice**);
  int (*memory)(NvmlDevice*, NvmlMemory*);
  int (*processes)(NvmlDevice*, unsigned* n, NvmlProcess*);
};

std::optional<std::uint64_t> own_memory(const Nvml& nvml, NvmlDevice* device) {
  if (!nvml.processes) return std::nullopt;
  std::vector<NvmlProcess> list(64);
  auto n = static_cast<unsigned>(list.size());
  int result = nvml.processes(device, &n, list.data());
  if (result == kNvmlInsufficientSize) {
    list.resize(n + 64);  // some may start meanwhile
    n = static_cast<unsigned>(list.size());
    result = nvml.processes(device, &n, list.data());
  }
  if (result != 0) return std::nullopt;
  for (unsigned i = 0; i < n; ++i)
    if (list[i].pid == static_cast<unsigned>(getpid()) && list[i].used != kNotAvailable) return list[i].used;
  return std::nullopt;
}

std::optional<DriverMemory> ask(const Nvml& nvml, const std::string& pci) {
  NvmlDevice* device = nullptr;
  NvmlMemory memory{};
  if (nvml.device(pci.c_str(), &device) != 0 || nvml.memory(device, &memory) != 0) return std::nullopt;
  const auto own = own_memory(nvml, device);
  return DriverMemory{.all = memory.used, .own = own.value_or(0), .told = own.has_value()};
}

}  // namespace

// A driver library that answers for the management library too is asked itself: the tests' fake does.
void* open_nvml() {
  if (const std::string driver = driver_library(); driver.find('/') != driver.npos) {
    void* library = dlopen(driver.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library && dlsym(library, "nvmlInit_v2")) return library;
    if (library) dlclose(library);
  }
  return dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
}

// Opened for each question: it is asked when a device is opened and when a model is loaded.
std::optional<DriverMemory> used_memory(const std::string& pci) {
  void* library = open_nvml();
  if (!library) return std::nullopt;
  const Nvml nvml(library);
  std::optional<DriverMemory> used;
  if (nvml.init && nvml.shutdown && nvml.device && nvml.memory && nvml.init() == 0) {
    used = ask(nvml, pci);
    nvml.shutdown();
  }
  dlclose(library);
  return used;
}

}  // namespace steelyard::cuda
