// How much of a GPU's memory is in use, by anyone, as the driver's management library says; no context
// needed.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace strata::cuda {

// `pci` as cuDeviceGetPCIBusId writes it. nullopt: the library isn't there or doesn't say. Thread-safe.
std::optional<std::uint64_t> used_memory(const std::string& pci);

}  // namespace strata::cuda
