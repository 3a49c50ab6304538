// Layout of repacked weights and the fast kernels' scratch, as pure functions: planning, the loader and the
// kernels' launchers read the same. No CUDA header. (hopper/weights/layout.cuh has the device-side readers.)
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard::cuda {

inline constexpr std::uint32_t kRepackRows = 64;  // the loader cuts matrices at multiples of this

// Whether a matrix has a layout of the fast kernels; false: kept as in the file, general kernels multiply it.
bool fast_has_layout(DType type, std::uint32_t rows, std::uint32_t cols);

// Exact bytes of the repacked matrix, a multiple of 256.
std::uint64_t repacked_bytes(DType type, std::uint32_t rows, std::uint32_t cols);

// Units of the widest matrix.
std::uint64_t fast_input_units(const Program& program);

// First part of the scratch: a residual op's branch before its norm, float [rows][n_embd].
std::uint64_t fast_branch_bytes(const Program& program, const StepLimits& limits);

// Second part: partial results of attention. The third is the input of a product with many rows, as halves in
// tiles; or that of one with 2 to 8, and behind it what an op leaves for the next one.
std::uint64_t fast_partial_bytes(const Program& program, const StepLimits& limits);

// The fourth: the step kernel's, at this offset. Its parts' offsets from there: table of ops; a slot of
// slot_bytes for each buffer's words, and one more for a branch before its norm; partial results of
// attention.
std::uint64_t fast_step_offset(const Program& program, const StepLimits& limits);
struct StepMemory {
  std::uint64_t ops = 0, words = 0, slot_bytes = 0, partials = 0, bytes = 0;
};
StepMemory step_memory(const Program& program);

// Scratch of the fast kernels for one executable, a multiple of 256.
std::uint64_t fast_scratch_bytes(const Program& program, const StepLimits& limits, Mode mode);

}  // namespace steelyard::cuda
