// NVIDIA GPUs as devices, through the plug-in libsteelyard_cuda.so beside the binary. The main binary needs
// no CUDA: where the plug-in, the driver or a GPU is missing, there are no devices and one line says why.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"

namespace steelyard {

struct CudaDevices {
  std::uint32_t count = 0;
  std::string why;  // when count is 0: one line for the log
};

// Loads the plug-in at the first call (from the binary's directory, or the file that STEELYARD_CUDA_PLUGIN
// names). Thread-safe, never throws.
CudaDevices find_cuda_devices();

// Device "CUDA<index>". Throws Error: not_found when there is no such device; what the driver said when it
// can't be opened. Its executables let launch() be called once more before wait(): results come in order.
std::unique_ptr<Device> make_cuda_device(std::uint32_t index);

}  // namespace steelyard
