// The Hopper kernels for one compiled program: which op takes which, and their launches. `*_sm90a.cu` are
// compiled for 90a only.
#pragma once

#include <memory>
#include <string>

#include "device/cuda/host/device_program.h"

namespace steelyard::cuda {

// Host only, no thread of its own.
class HopperPlan {
 public:
  virtual ~HopperPlan() = default;
  // Starts the whole step between its EmbedOp (already started, as its sum over ranks) or ReceiveOp, and
  // its GatherOp and SampleOp (started afterwards) or SendOp, for at most `rows` rows and `outputs` outputs
  // (a bucket; the true counts are in the step header). False, having started nothing: not covered.
  virtual bool enqueue_step(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) = 0;
  // Starts op `op` of the program. False, having started nothing: the general kernel takes it.
  virtual bool enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) = 0;
  // What holds tags of steps (hopper/step/words.cuh): to be cleared before the step of number 0 that follows
  // number kStepNumbers - 1. No bytes: nothing does.
  struct Words {
    DevicePtr address = 0;
    std::uint64_t bytes = 0;
  };
  virtual Words tagged_words() const = 0;
  // One line for the load report: which ops take the general path, and why.
  virtual std::string report() const = 0;
};

// Never called in exact mode. nullptr: the GPU isn't Hopper, or its kernels weren't compiled.
std::unique_ptr<HopperPlan> make_hopper_plan(const DeviceProgram& input, CompileServices& services);

}  // namespace steelyard::cuda
