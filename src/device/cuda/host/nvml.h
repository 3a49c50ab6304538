// How much of a GPU's memory is in use, as the driver's management library says; no context needed.
#pragma once

#include <optional>
#include <string>

#include "device/driver_memory.h"

namespace steelyard::cuda {

// Everything in use, arenas too. `pci` as cuDeviceGetPCIBusId writes it. nullopt: the library isn't there or
// doesn't say. A process that holds nothing isn't told. Thread-safe; takes tens of milliseconds.
std::optional<DriverMemory> used_memory(const std::string& pci);

}  // namespace steelyard::cuda
