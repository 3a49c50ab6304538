// A step block as the device sees it, in page-locked memory: what one copy brings to the device's step block
// (common/device_step.h), then the masks.
#pragma once

#include <cstdint>

#include "device/cuda/host/gpu.h"
#include "device/cuda/host/workspace.h"
#include "device/step.h"
#include "program/program.h"

namespace steelyard::cuda {

class StepImage {
 public:
  // `program` and `space` outlive this.
  StepImage(Gpu& gpu, const Program& program, const Workspace& space, std::uint64_t bytes);
  // Overwrites the image; nobody may be reading it. The block keeps the limits that `space` was laid out for.
  // `number` is the header's.
  void write(const StepBlock& block, std::uint32_t number);
  // Enqueues the copies to the workspace's start at `workspace`.
  void enqueue_copy(DevicePtr workspace, CuStream stream);
  std::uint64_t bytes() const { return memory_.bytes(); }

 private:
  void write_outputs(const StepBlock& block);
  std::uint64_t mask_bytes() const { return (program_.vocab_size + 31) / 32 * sizeof(std::uint32_t); }

  Gpu& gpu_;
  const Program& program_;
  const Workspace& space_;
  PinnedMemory memory_;
  std::uint64_t used_ = 0;   // bytes of the step block
  std::uint32_t masks_ = 0;  // how many there are
};

}  // namespace steelyard::cuda
