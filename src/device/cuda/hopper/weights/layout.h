// Layout of repacked weights and the Hopper kernels' scratch, as pure functions: planning, the loader and the
// kernels' launchers read the same. No CUDA header. (hopper/weights/layout.cuh has the device-side readers.)
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard::cuda {

inline constexpr std::uint32_t kRepackRows = 64;  // the loader cuts matrices at multiples of this

// Whether a matrix is repacked for the Hopper kernels; false: kept as in the file, general kernels multiply
// it.
bool has_repacked_layout(DType type, std::uint32_t rows, std::uint32_t cols);

// Exact bytes of the repacked matrix, a multiple of 256.
std::uint64_t repacked_bytes(DType type, std::uint32_t rows, std::uint32_t cols);

// Scratch of the Hopper kernels for one executable: byte offsets into it, each a multiple of 256.
struct HopperScratch {
  std::uint64_t branch = 0;    // float [rows][n_embd]: a residual op's product before its norm
  std::uint64_t partials = 0;  // attention's partial results (AttentionTileArg)
  std::uint64_t input = 0;     // input of a product as halves: tiles (GemmArg), or of 2 to 8 rows (GemvInput)
  std::uint64_t passed = 0;    // the input, of 2 to 8 rows, that an op leaves for the next; a part of `input`
  std::uint64_t step = 0;      // the step kernel's, StepMemory
  std::uint64_t bytes = 0;     // of all; 0 in exact mode
};
HopperScratch lay_out_scratch(const Program& program, const StepLimits& limits, Mode mode);

// Scratch of the step kernel: byte offsets from HopperScratch::step.
struct StepMemory {
  std::uint64_t ops = 0;         // the table, StepOp [ops]
  std::uint64_t words = 0;       // a slot for each buffer's words, and one for a branch before its norm
  std::uint64_t slot_bytes = 0;  // of one
  std::uint64_t partials = 0;    // words: attention's partial results
  std::uint64_t bytes = 0;
};
StepMemory step_memory(const Program& program);

}  // namespace steelyard::cuda
