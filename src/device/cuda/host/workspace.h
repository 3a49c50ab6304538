// What memory the CUDA back end needs, behind cuda_target() (target.h): pure sizes, no driver and no GPU, so
// that absent GPUs can be planned for. Executables and loads carve by the same functions.
#pragma once

#include <cstdint>
#include <vector>

#include "device/cuda/common/device_step.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard::cuda {

inline constexpr std::uint64_t kAlign = 256;
constexpr std::uint64_t align(std::uint64_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Whether a weight lies in the arena repacked for the Hopper kernels; else as in the file.
bool is_repacked(const WeightSpec& weight, Mode mode);

// Layout of a page of `state`; base and group unset.
KvView kv_layout(const StateSpec& state);

// Of ops with experts, the most over them (ExpertsArg, RouteArg in general/args.h).
struct ExpertsSpace {
  std::uint64_t scores = 0, chosen = 0, weights = 0, inner = 0;
  std::uint64_t branch = 0, order = 0, first_entry = 0,
                first_tile = 0;  // fast mode alone: many rows in tiles
};

// Byte offsets into the workspace, each a multiple of 256. Floats unless told otherwise.
struct Workspace {
  std::vector<std::uint64_t> buffers;  // by BufferId [rows or outputs][width]
  std::vector<std::uint64_t> ropes;    // by rope [rows][n_rot]
  std::uint64_t normed = 0;            // [rows][widest normed input]
  std::uint64_t branch = 0;            // [rows][widest residual branch or gate]
  std::uint64_t head_input = 0;        // [outputs][n_embd]
  ExpertsSpace experts;
  std::uint64_t partials = 0;    // [split_rows][heads][workers][head_dim_v + 2]
  std::uint32_t split_rows = 0;  // steps of at most so many rows split attention over blocks
  std::uint64_t step = 0;        // the step block; arrays at the offsets below, from `step`
  std::uint64_t tokens = 0, positions = 0, row_sequence = 0, sequences = 0, outputs = 0, tables = 0;
  std::uint64_t step_bytes = 0;
  std::uint64_t masks = 0;        // u32 [outputs][⌈vocab / 32⌉]
  std::uint64_t history = 0;      // i32 [slots][context]
  std::uint64_t last_sample = 0;  // i32 [slots]
  std::uint64_t sampled = 0;      // i32 [outputs]
  std::uint64_t counts = 0;       // u32 [outputs][vocab]
  std::uint64_t scratch = 0;      // HopperScratch (hopper/weights/layout.h)
  std::uint64_t scratch_bytes = 0;
  std::uint32_t table_stride = 0;  // the longest block table
  std::uint64_t bytes = 0;
};
Workspace lay_out(const Program& program, const StepLimits& limits, Mode mode);

// Page-locked host memory of an executable: for each step in flight an image of the device's step block with
// its masks, and the sampled tokens; once the flag that ends spins.
inline constexpr std::uint64_t kAbortBytes = 64;
struct Staging {
  std::uint64_t block, sampled;
};
Staging staging_of(const Program& program, const StepLimits& limits, const Workspace& space);

// Steps of at most so many rows are CUDA graphs; larger ones hide their launches.
inline constexpr std::uint32_t kGraphRows = 128;
struct BucketSize {
  std::uint32_t rows, outputs;
};
// The sizes that steps are prepared for, ascending.
std::vector<BucketSize> bucket_sizes(const StepLimits& limits);

}  // namespace steelyard::cuda
