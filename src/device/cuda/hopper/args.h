// Parameters of the Hopper kernels, shared by the host side and nvcc.
#pragma once

#include <cstdint>

#include "device/cuda/common/device_step.h"
#include "device/cuda/general/args.h"
#include "device/cuda/hopper/weights/format.h"

namespace steelyard::cuda::hopper {

struct Segment {  // one repacked matrix
  const std::uint8_t* w;
  const float* bias;  // [rows] or nullptr
  float* out;         // [rows of the step][rows]
  std::uint64_t group_bytes;
  std::uint32_t rows, groups, unit_bytes, chunk_bytes;
  std::int32_t type;
};

enum class Epilogue : std::int32_t { store, residual, gate_up };

// y = epilogue(W * norm(x)): one to three matrices with the same input. gate_up: segments 0 and 1 are gate
// and up, of one shape, and only segment 0's `out` is written.
struct LinearArg {
  Segment segments[3];
  std::int32_t n_segments;
  Epilogue epilogue;
  std::int32_t gelu;
  float softcap;          // 0: none
  const float* x;         // [rows][cols]
  const float* norm;      // [cols] or nullptr
  const float* residual;  // [rows][segments[0].rows]
  const StepHeader* header;
  std::int32_t outputs;  // 1: a row for every output instead of every row
  float eps;
  std::uint32_t cols;
  std::uint32_t groups;      // to share out: sum over segments; gate_up: of one segment
  std::uint32_t unit_span;   // units of the input that shared memory holds at once
  std::uint32_t ring_bytes;  // of one warp
  void* x16;                 // 2 .. 8 rows: the input is here (GemvInput, hopper/gemv/units.cuh)
  void* y16;                 // or nullptr: gate_up's result goes here too, as the next product's x16
  std::uint32_t max_rows;
};

inline constexpr int kGemvWarps = 16;
inline constexpr int kSlots = 8;  // units in flight a warp, at most

inline constexpr std::uint32_t kGemvRows = 8;  // so few that a product is bound by the weights' bytes
inline constexpr std::uint32_t kUnitSums = 16 * kGemvRows;  // sums of the input's columns, of a unit
// Bytes of the input of a product with 2 .. kGemvRows rows (GemvInput, hopper/gemv/units.cuh).
constexpr std::uint64_t kGemvInputBytes(std::uint64_t units, std::uint32_t rows) {
  return units * (kUnitCols * 2 * rows + kUnitSums * 4);
}
// Bytes of shared memory of gemv_1 and gemv_8: rings, input, partial sums, barriers.
constexpr std::uint32_t kGemvSharedBytes(std::uint32_t rows, std::uint32_t span, std::uint32_t ring_bytes) {
  const bool one = rows == 1;
  const std::uint32_t input = one ? span * (kUnitCols * 2 + 16 * 4) : kGemvInputBytes(span, rows),
                      partial = ((one ? 32 : 16) + kGemvWarps) * 16 * (one ? 1 : kGemvRows) * 4;
  return kGemvWarps * ring_bytes + input + partial + kGemvWarps * 4 + (kGemvWarps * kSlots + 1) * 8;
}

inline constexpr std::uint32_t kTileRows = 128;  // rows of the largest kernel for many rows

// How a product with many rows is cut (hopper/gemm/gemm.cuh). Its input x16 holds halves, cut into tiles of
// the kernel's rows: [tile][cols / 8][row][8]; in each 16 columns, first those with (column & 2) == 0.
struct GemmArg {
  const void* x16;
  std::uint32_t row_tiles;  // tiles of rows
  std::uint32_t tiles;      // row_tiles * tiles of outputs; a block takes every gridDim / splits-th
  std::uint32_t splits;     // blocks (a cluster) that share a tile's columns
  std::uint32_t stages, stage_bytes, headers;                // of the ring; headers: slots for units' headers
  std::uint32_t header_offset, part_offset, barrier_offset;  // in shared memory
};

// Lays out the shared memory of gemm_ROWS_WIDE (WIDE * deep warpgroups) for m.splits and m.stages: the
// ring, headers of units, partial sums, barriers. Returns its bytes. chunk, head: bytes of the largest.
constexpr std::uint32_t place_ring(GemmArg& m, std::uint32_t rows, std::uint32_t wide, std::uint32_t deep,
                                   std::uint32_t chunk, std::uint32_t head) {
  const std::uint32_t groups = 4 * wide;
  m.stage_bytes = (deep * (128 * rows + groups * chunk) + 127) / 128 * 128;
  m.headers = ((m.stages - 1) * deep + 3) / 4 + 1;
  m.header_offset = m.stages * m.stage_bytes;
  m.part_offset = m.header_offset + (head ? m.headers * groups * 288 : 0);
  m.barrier_offset = m.part_offset + (deep > 1 || m.splits > 1 ? deep * rows * (64 * wide + 4) * 4 : 0);
  return m.barrier_offset + m.stages * 16;
}

struct AttentionTileArg {
  const float* q;   // [rows][heads][head_dim]
  float* out;       // the same
  float* partials;  // [rows][heads][workers][4 + head_dim]: maximum, sum, -, -, values
  const float* sinks;
  std::uint32_t n_heads, group;  // group: heads that share a KV head, at most 16
  std::uint32_t window, workers;
  float scale, softcap;
  void* x16;               // or nullptr: attention_combine_* leaves the result here too, as a product's x16
  std::uint32_t max_rows;  // of x16
  std::uint32_t prefill_rows;  // tiles of so many rows of one sequence are prefill_*'s; 0: it doesn't run
};

// hopper/attention/prefill_sm90a.cu, head_dim d: warpgroups of a block, 64 queries each; KV pages in its
// shared memory.
constexpr std::uint32_t kPrefillWarpgroups(std::uint32_t d) { return d > 128 ? 2 : 3; }
constexpr std::uint32_t kPrefillStages(std::uint32_t d) { return d > 128 ? 2 : 4; }
constexpr std::uint32_t kPrefillSharedBytes(std::uint32_t d) {
  return (kPrefillStages(d) * 2 * kPageTokens + kPrefillWarpgroups(d) * 64) * d * 2 +
         1024;  // pages, queries; aligned
}

inline constexpr std::uint32_t kSplitRows =
    64;  // steps of up to so many rows split a row's keys over workers
inline constexpr std::uint32_t kWorkersFewRows = 32, kWorkersManyRows = 8;  // up to 8 rows, up to kSplitRows

// One op of the step kernel (hopper/step/step_sm90a.cu), in device memory.
enum class StepKind : std::int32_t { linear, attention, add_norm };

// Where ops of the step kernel leave their results: as floats for the kernels that follow; or as words of 64
// bits, in which a float or two halves share a word with the tag of the op that wrote it
// (hopper/step/words.cuh).
enum class StepOut : std::int32_t { floats, words, half_words };

inline constexpr std::int32_t kBeforeStep = -1;  // "written by op": floats, from before the kernel

// Where ranks trade a product's partial sums: writer w's word of row i is words[w * stride + i], in memory
// that all of them reach.
struct StepSum {
  std::uint64_t* words;
  std::uint32_t rank, ranks, stride;  // ranks 0: the product is whole
};

struct StepLinear {
  LinearArg linear;          // with a norm, x: floats or words; without, half words
  StepOut out;               // of segments[i].out
  std::int32_t x_op;         // op that wrote x
  std::int32_t residual_op;  // op that wrote the residual's words, or kBeforeStep
  std::int32_t wanted;       // 1: only where the step has outputs
  float* normed;             // x after the norm goes here too, unless nullptr
  StepSum sum;               // before bias and residual are added
};

struct StepAttention {             // rotation and append too
  const std::uint64_t *q, *k, *v;  // words of op qkv_op: [heads or KV heads][head_dim]
  std::uint64_t* out;              // half words: [heads][head_dim / 2]
  std::uint64_t* partials;         // words: [heads][kStepParts][1 + head_dim]
  const float *q_norm, *k_norm, *sinks;
  float q_eps, k_eps;
  RopeArg rope;
  KvView kv;
  std::int32_t qkv_op;
  std::uint32_t n_heads, group, window;
  float scale, softcap;
  std::uint32_t most_parts;        // blocks that share a KV head's keys, at most
  std::uint32_t parts_reciprocal;  // block / most_parts == block * parts_reciprocal >> 16
  std::uint32_t worker_bits;       // log2 of the workers (warps or groups of them) of a block
};

struct StepAddNorm {            // out = residual + norm(branch)
  const std::uint64_t* branch;  // words of the op before
  const float* norm;
  const void* residual;
  std::uint64_t* out;  // words
  float eps;
  std::uint32_t width;
  std::int32_t residual_op;
};

struct alignas(16) StepOp {
  StepKind kind;
  std::uint32_t rotation;  // block b does the work of block (b + rotation) mod blocks: evens out rounding
  union {
    StepLinear linear;
    StepAttention attention;
    StepAddNorm add;
  };
};

struct StepArg {
  const StepOp* ops;
  std::uint32_t n_ops;
  std::uint32_t ring_bytes;         // of one warp
  std::uint32_t region_bytes;       // the input's row, or attention's
  std::uint32_t blocks_reciprocal;  // n / blocks == n * blocks_reciprocal >> 32, for what a share takes
  StepView step;
};

inline constexpr std::uint32_t kStepStaticShared = 6912;  // what the step kernel declares itself, at most

// Dynamic shared memory of the step kernel: partial sums of 16 rows by group of a phase and warp, a float a
// warp, barriers; then the region (the input's row, or attention's) and the rings.
inline constexpr std::uint32_t kStepPhaseGroups = 32;
inline constexpr std::uint32_t kStepScratchOffset = (kStepPhaseGroups + kGemvWarps) * 16 * 4,
                               kStepBarrierOffset = kStepScratchOffset + kGemvWarps * 4,
                               kStepRegionOffset =
                                   (kStepBarrierOffset + kGemvWarps * kSlots * 8 + 127) / 128 * 128;
// Floats of attention's part for the row's own key, value and scores, head_dim d.
constexpr std::uint32_t kStepOwnFloats(std::uint32_t d) { return 2 * d + 16; }

inline constexpr std::uint32_t kStepParts = 16;   // blocks that share the keys of one KV head, at most
inline constexpr std::uint32_t kStepTags = 1024;  // tags of a step, more than its ops
// Steps until their tags (of 32 bits) repeat. No tag is 0, which cleared words have.
inline constexpr std::uint32_t kStepNumbers = 0xffffffffu / kStepTags;

}  // namespace steelyard::cuda::hopper
