// How much of a GPU's memory is in use, as the driver's management library says; no context needed.
#pragma once

#include <optional>
#include <string>

#include "device/driver_memory.h"

namespace steelyard::cuda {

// What the library's functions take (nvml.h of the CUDA toolkit), for those who call or fake them.
struct NvmlDevice;
struct NvmlMemory {
  unsigned long long total, free, used;
};
struct NvmlProcess {
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};
struct NvmlPci {
  char old_address[16];
  unsigned domain, bus, device, device_id, subsystem_id;
  char address[32];
};
struct NvmlUse {
  unsigned gpu, memory;  // per cent of the time
};
constexpr int kNvmlNotFound = 6, kNvmlInsufficientSize = 7;

// The library, or the driver's where that answers for it; nullptr: there is none. To be closed by dlclose().
void* open_nvml();

// Everything in use, arenas too. `pci` as cuDeviceGetPCIBusId writes it. nullopt: the library isn't there or
// doesn't say. A process that holds nothing isn't told. Thread-safe; takes tens of milliseconds.
std::optional<DriverMemory> used_memory(const std::string& pci);

}  // namespace steelyard::cuda
