// Measures what a GPU can do at best, with kernels of its own (probe.cu, probe/probe_sm90a.cu).
#pragma once

#include "device/cuda/host/abi.h"
#include "device/cuda/host/gpu.h"

namespace steelyard::cuda {

// About a second; takes up to 1 GiB of device memory and 64 MiB of pinned host memory meanwhile. Throws
// Error.
abi::Rates measure_rates(Gpu& gpu);

}  // namespace steelyard::cuda
