// Host side of the step kernel (hopper/step/step_sm90a.cu): which programs it covers, its table of ops, its
// launch.
#pragma once

#include <optional>
#include <vector>

#include "device/cuda/hopper/args.h"
#include "device/cuda/host/device_program.h"
#include "program/program.h"

namespace steelyard::cuda::hopper {

class StepKernel {
 public:
  // nullopt: an op, type or shape that it doesn't cover. Uploads its table to `memory` (step_memory()),
  // zeroed before.
  static std::optional<StepKernel> make(const DeviceProgram& input, DevicePtr memory,
                                        CompileServices& services);
  // A step of one row.
  void enqueue(Launcher& launcher) const;

 private:
  friend class StepWriter;
  std::uint32_t blocks_ = 0, shared_bytes_ = 0;
  StepArg arg_{};
  // What the part hands on: words of the step kernel that become floats; width 0: nothing.
  struct HandedOn {
    const std::uint64_t* words = nullptr;
    float* floats = nullptr;
    std::uint32_t width = 0;
  } handed_on_;
};

// The matrix as a segment of a product that writes to `out`.
Segment make_segment(const DeviceProgram& input, WeightId weight, WeightId bias, float* out);

}  // namespace steelyard::cuda::hopper
