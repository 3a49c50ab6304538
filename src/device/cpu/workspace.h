// Where the CPU executable keeps its step's data: one declaration, read by planning (workspace_bytes) and by
// the executable, which carves the same offsets. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "device/cpu/kernels.h"
#include "device/target.h"
#include "program/program.h"
#include "program/uses.h"

namespace steelyard::cpu {

// A step of at most this many rows is normed and quantised by every thread for itself, which saves a barrier.
inline constexpr std::uint32_t kPrivateRows = 4;

// The activations' format that products with these weights read: floats in exact mode or when a type has no
// fast kernel.
ActFormat input_format(const Program& program, Mode mode, const Few<WeightId>& weights);

// What ops with experts need, the most over them. An entry is a row's use of an expert; they lie in the
// experts' order. Activations of each expert's entries begin at a tile: their places.
struct ExpertsSpace {
  std::uint64_t scores = 0;   // floats [rows][experts]
  std::uint64_t choices = 0;  // Choice [rows][used] (worker.h)
  std::uint64_t active = 0;   // ActiveExpert [experts]
  std::uint64_t rows = 0;     // uint32 [entries]: the row of each
  std::uint64_t input = 0;    // activations [places][width]
  std::uint64_t inner = 0;    // activations [places][feed-forward]
  std::uint64_t branch = 0;   // floats [entries][width]
};
struct Choice {
  std::uint32_t expert, entry;
  float weight;
};
struct ActiveExpert {
  std::uint32_t expert, entry, place, n_rows;
};

// Byte offsets, each 64-aligned.
struct Workspace {
  std::vector<std::uint64_t>
      buffers;  // by BufferId: floats [rows][width], or activations for `inner`-like buffers
  std::vector<ActFormat> buffer_formats;  // by BufferId; meaningful where buffer_is_act
  std::vector<bool> buffer_is_act;        // written by gate_up as the next product's input
  std::uint64_t branch = 0;               // floats [rows][widest post-normed output]
  std::uint64_t input = 0;                // activations shared by the threads
  std::uint64_t private_input = 0;        // per thread
  std::uint64_t private_input_stride = 0;
  std::uint64_t cos_sin = 0;  // per rope: floats [rows][n_rot]
  std::vector<std::uint64_t> cos_sin_of_rope;
  std::vector<std::uint64_t> inv_freq_of_rope;  // doubles [n_rot/2]
  std::uint64_t hidden_out = 0;                 // floats [outputs][n_embd]: the head's normed input
  std::uint64_t attention_scratch = 0;          // per thread
  std::uint64_t attention_scratch_stride = 0;
  std::uint64_t partials = 0;    // floats [split_rows][heads][chunks][partial_floats]
  std::uint32_t split_rows = 0;  // steps of at most so many rows may share a row's context between threads
  ExpertsSpace experts;
  std::uint64_t history = 0;      // int32 [slots][context]: tokens by position
  std::uint64_t last_sample = 0;  // int32 [slots]
  std::uint64_t sampled = 0;      // int32 [steps in flight][outputs]
  std::uint64_t candidates = 0;   // per thread: 8 bytes x the larger of vocabulary and context
  std::uint64_t candidates_stride = 0;
  std::uint64_t bytes = 0;
};

Workspace lay_out(const Program& program, const StepLimits& limits, Mode mode, std::uint32_t threads);

}  // namespace steelyard::cpu
