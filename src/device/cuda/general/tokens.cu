// The first of a step, whatever part of a model it computes: what each row's token is.
#include "device/cuda/general/args.h"

using namespace steelyard::cuda;

// grid: ⌈rows / 256⌉. A row that goes on from its slot's last sample gets that token (the host has checked
// that there is one), and every token goes into its slot's history, which the penalties read.
extern "C" __global__ void __launch_bounds__(256) general_tokens(StepView step, TokensArg t) {
  const std::uint32_t row = blockIdx.x * 256 + threadIdx.x;
  if (row >= step.header->n_rows) return;
  const std::uint32_t slot = step.sequences[step.row_sequence[row]].slot;
  std::int32_t token = t.tokens[row];
  if (token < 0) t.tokens[row] = token = t.last_sample[slot];
  t.history[static_cast<std::uint64_t>(slot) * t.context + static_cast<std::uint32_t>(step.positions[row])] =
      token;
}
