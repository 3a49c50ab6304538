// Measures what a GPU can do at best, with kernels of its own (probe.cu, probe/probe_sm90a.cu).
#pragma once

#include "device/cuda/host/gpu.h"
#include "device/device.h"

namespace steelyard::cuda {

// About a second; takes up to 1 GiB of device memory and 64 MiB of pinned host memory meanwhile. Throws
// Error.
DeviceRates measure_rates(Gpu& gpu);

}  // namespace steelyard::cuda
