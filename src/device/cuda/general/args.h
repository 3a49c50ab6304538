// Parameters of the general kernels, shared by the host side and nvcc.
#pragma once

#include <cstdint>

#include "device/cuda/common/dequant_args.h"
#include "device/cuda/common/device_step.h"

namespace steelyard::cuda {

// Which rows a kernel works on: all rows of the step, or one for every output.
struct RowsArg {
  const StepHeader* header;
  std::int32_t outputs;
};

struct RopeArg {
  float* cos_sin;  // [rows][n_rot / 2][2]
  std::int32_t halves;
  std::uint32_t n_rot;
};

struct AttentionArg {
  const float* q;   // [rows][heads][head_dim_k]
  float* out;       // [rows][heads][head_dim_v]
  float* partials;  // [rows][heads][kAttentionWorkers][head_dim_v + 2], where the work is split over blocks
  const float* sinks;
  std::uint32_t n_heads;
  std::uint32_t window;
  float scale, softcap;
};

// A row's keys are shared by this many workers: worker w takes the pages p with p mod workers == w, in order.
// The partial results are merged in the workers' order, so the bits depend on the row alone.
inline constexpr std::uint32_t kAttentionWorkers = 32;
inline constexpr std::uint32_t kAttentionWarps = 4;    // a block
inline constexpr std::uint32_t kRopeWarps = 8;         // heads of a block, rotation and append
inline constexpr std::uint32_t kMaxCandidates = 1024;  // of a sampled token, see general/sample.cu
inline constexpr std::uint32_t kSampleThreads = 1024;

inline constexpr std::uint32_t kMostRanks = 8;
inline constexpr std::uint32_t kExchangeThreads = 256, kExchangeColumns = 4096;

// A link between tensor ranks (LinkBox in device/link.h), as a GPU sees it.
struct Inbox {  // of one reader; all may have the same
  float* rows;
  std::uint64_t* sent;  // [writers][most rows][chunks]
};
struct ExchangeArg {
  Inbox mine;            // where this rank reads
  Inbox to[kMostRanks];  // where it writes
  const std::uint32_t* abort;
  std::uint64_t turn_floats, writer_floats;
  std::uint32_t readers, writers, rank;
  std::uint32_t turns, most_rows, chunks, uses;
  std::uint32_t turn;    // of the uses
  std::uint64_t* words;  // LinkBox::words, for the step kernel
};

// Experts (general/experts.cu). Entry e is row e / n_used's use of its (e mod n_used)-th best expert.
inline constexpr std::uint32_t kMostRouted = 1024, kMostChosen = 64;  // experts of an op; of a row
inline constexpr std::int32_t kScoringSoftmax = 0, kScoringChosen = 1, kScoringSigmoid = 2;  // Scoring
inline constexpr std::uint32_t kExpertsTileBytes = 28 << 10;
struct RouteArg {
  const float* scores;       // [rows][n_experts], the router's product
  const float* choice_bias;  // [n_experts] or none
  std::uint32_t* chosen;     // [entries]
  float* weights;            // [entries]
  std::int32_t scoring, renormalise;
  std::uint32_t n_experts, n_used, n_groups, n_groups_used;
  float scale;
};
struct ExpertsArg {
  MatrixArg gate, up, down;  // all experts'
  const float *gate_bias, *up_bias, *down_bias;
  const float* x;  // [rows][width], normed
  const std::uint32_t* chosen;
  const float* weights;
  float* inner;                                     // [entries][n_ff]
  float* branch;                                    // [entries][width]; this and the next three for many rows
  std::uint32_t *order, *first_entry, *first_tile;  // [entries], [n_experts + 1] twice
  const float* residual;
  float* out;
  std::uint32_t n_experts, n_used, n_ff, width;
  std::int32_t activation;  // Activation
};

struct TokensArg {
  std::int32_t* tokens;             // [rows] of the step; kLastSample becomes the token it stands for
  std::int32_t* history;            // [slots][context] by position
  const std::int32_t* last_sample;  // [slots]
  std::uint32_t context;
};

struct SampleArg {
  float* logits;              // [outputs][vocab], changed by penalties and masks
  std::uint32_t* counts;      // [outputs][vocab], all zero before and after
  std::int32_t* history;      // [slots][context] by position
  std::int32_t* last_sample;  // [slots]
  std::int32_t* sampled;      // [outputs]
  std::uint32_t vocab, context;
};

}  // namespace steelyard::cuda
