// Starts the general kernels: every op of a program, any weight type, any mode. One or a few launches an op.
#pragma once

#include <vector>

#include "device/cuda/common/dequant_args.h"
#include "device/cuda/general/args.h"
#include "device/cuda/hopper/fast.h"
#include "device/cuda/host/workspace.h"

namespace steelyard::cuda {

class GeneralPath {
 public:
  // `input` outlives this. `workspace` is the device address that `space` counts from.
  GeneralPath(const FastInput& input, const Workspace& space, DevicePtr workspace);

  // What must run before the first op: the tokens, the rope tables.
  void enqueue_begin(std::uint32_t rows, Launcher& launcher) const;
  // Op `op` for at most `rows` rows and `outputs` outputs; the true counts are read from the step header.
  void enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) const;

 private:
  struct Call;  // one enqueue_op

  const FastInput& in_;
  const Workspace& space_;
  DevicePtr base_;
  std::vector<MatrixArg> matrices_;  // by WeightId
  SampleArg sample_{};
};

}  // namespace steelyard::cuda
