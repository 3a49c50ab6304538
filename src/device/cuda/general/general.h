// Starts the general kernels: every op of a program, any weight type, any mode. One or a few launches an op.
#pragma once

#include <vector>

#include "device/cuda/common/dequant_args.h"
#include "device/cuda/general/args.h"
#include "device/cuda/host/device_program.h"
#include "device/cuda/host/workspace.h"
#include "program/program.h"

namespace steelyard::cuda {

class GeneralPath {
 public:
  // `input` outlives this. `workspace` is the device address that `space` counts from.
  GeneralPath(const DeviceProgram& input, const Workspace& space, DevicePtr workspace);

  // What must run before the first op: the tokens, the rope tables.
  void enqueue_begin(std::uint32_t rows, Launcher& launcher) const;
  // Op `op` for at most `rows` rows and `outputs` outputs; the true counts are read from the step header.
  void enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) const;

 private:
  struct Call;  // one enqueue_op

  const DeviceProgram& in_;
  const Workspace& space_;
  DevicePtr base_;
  std::vector<MatrixArg> matrices_;  // by WeightId
  SampleArg sample_{};
};

// General kernels that the Hopper path starts too: of a few microseconds each, so that there is nothing to
// gain but an early start. `dependent` as in KernelLaunch.
void enqueue_rope_append(const DeviceProgram& in, const RopeAppendOp& op, std::uint32_t rows, bool dependent,
                         Launcher& launcher);
// out = residual + norm(branch); branch: float [rows][width of out].
void enqueue_residual(const DeviceProgram& in, const ResidualLinearOp& op, const float* branch,
                      std::uint32_t rows, Launcher& launcher);
// Scale and soft-cap of logits; nothing where there are none.
void enqueue_logits(const DeviceProgram& in, const HeadOp& op, std::uint32_t outputs, Launcher& launcher);
// The head's input after its norm, at in.head_input.
void enqueue_head_norm(const DeviceProgram& in, const HeadOp& op, std::uint32_t outputs, Launcher& launcher);

}  // namespace steelyard::cuda
