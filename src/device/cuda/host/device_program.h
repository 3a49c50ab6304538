// A program and where its memory is on the device: what the general and the Hopper path start kernels from.
//
// Activations between ops are float32, row-major, [rows][width] at fixed addresses, whatever the mode. An op
// that wants them quantised or as halves converts into scratch first (or in the producer's epilogue, when it
// has both).
#pragma once

#include <vector>

#include "device/cuda/common/device_step.h"
#include "device/cuda/general/args.h"
#include "device/cuda/host/launch.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard::cuda {

struct DeviceProgram {
  const Program* program;
  GpuInfo gpu;
  StepLimits limits;
  Mode mode;
  // By WeightId: F32 for vectors; matrices repacked where has_repacked_layout(), else as in the file.
  std::vector<DevicePtr> weights;
  std::vector<DevicePtr> buffers;  // by BufferId: float [rows or outputs of limits][width]
  std::vector<KvView> states;      // by StateId
  StepView step;
  std::vector<ExchangeArg> exchanges;  // by LinkId: those between this part's ranks
  // By rope: float [rows][n_rot / 2][cos, sin], filled before the step's first op.
  std::vector<DevicePtr> ropes;
  // float [outputs][n_embd]: the head op leaves its normed input here (Want::hidden).
  DevicePtr head_input = 0;
  DevicePtr scratch = 0;  // HopperScratch (hopper/weights/layout.h), zeroed at compile
  std::uint64_t scratch_bytes = 0;

  float* buffer(BufferId id) const { return pointer<float>(buffers[id]); }
  std::uint32_t width(BufferId id) const { return program->buffers[id].width; }
  const float* vector(WeightId id) const {
    return id == kNoWeight ? nullptr : pointer<const float>(weights[id]);
  }
};

}  // namespace steelyard::cuda
