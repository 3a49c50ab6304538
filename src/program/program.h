// One step of a model as data: a flat list of coarse ops over buffers, weights and states.
// model/ writes it; back ends, plan/, observe/ and the tests read it. Plain values, no device, no pointers:
// immutable once written and safe to share between threads.
//
// Shapes. A matrix weight has `rows` outputs and `cols` inputs (GGUF's dims reversed); y[i] = sum_j W[i][j] *
// x[j]. A buffer holds `width` elements for every row of the step (RowSet::all) or for every row whose output
// is wanted (RowSet::outputs). What a back end stores there is its own business (float, or quantised by the
// producer).
#pragma once

#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "base/dtype.h"

namespace steelyard {

using BufferId = std::int16_t;
using WeightId = std::int32_t;
using StateId = std::int16_t;
using LinkId = std::int16_t;
inline constexpr BufferId kNoBuffer = -1;
inline constexpr WeightId kNoWeight = -1;
inline constexpr LinkId kNoLink = -1;

// fast: quantised activations, the back end's best kernels.
// invariant: a row's result has the same bits whatever else is in the batch, however its prompt was chunked.
// exact: float activations, exactly dequantised weights, f32 state; slow, the proof of the forward pass.
enum class Mode : std::uint8_t { fast, invariant, exact };

enum class RowSet : std::uint8_t { all, outputs };

struct BufferSpec {
  std::string name;     // "hidden", "q": for traces
  std::uint32_t width;  // elements a row
  RowSet rows = RowSet::all;
};

enum class WeightRole : std::uint8_t {
  embedding,
  head,
  norm,
  bias,
  qkv,
  attn_out,
  gate_up,
  down,
  rope_factors,
  sinks,
  router,
  experts
};

struct WeightSpec {
  std::string name;  // unique in the program: the GGUF tensor's name, with "[q]" and the like for a slice of
                     // a fused one
  WeightRole role;
  std::int16_t layer;  // -1: belongs to no layer
  DType type;
  std::uint32_t rows;  // 1 for vectors (norm, bias, rope factors, sinks), which are F32 in every layout
  std::uint32_t cols;
  // Of a tensor rank's piece: where it begins in the whole model's weight.
  std::uint32_t first_row = 0, first_col = 0;
  // Role experts: matrices, or vectors, of so many experts lie one behind another; rows (of vectors, columns)
  // are those of all together.
  std::uint32_t experts = 1;
  bool is_vector() const { return rows == 1 && role != WeightRole::embedding && role != WeightRole::head; }
  std::uint64_t elements() const { return std::uint64_t{rows} * cols; }
  std::uint64_t file_bytes() const { return row_bytes(type, cols) * rows; }
};

// Layers that share a block table: full attention keeps every page, a window keeps the last `window` tokens.
struct StateGroup {
  std::string name;          // "full", "window 512"
  std::uint32_t window = 0;  // 0: no window
};

// KV state of one layer. Pages of Target::page_tokens() tokens; a page id is valid in every state of its
// group.
struct StateSpec {
  std::int16_t layer;
  std::int16_t group;  // index into Program::groups
  DType type;          // F16, Q8_0 or F32
  std::uint32_t n_kv_heads;
  std::uint32_t head_dim_k;
  std::uint32_t head_dim_v;
};

// Where parts of a model hand each other floats. Every part names the same links, in the same order.
//   rows    of one stage to the next: `width` for every row of the step
//   sum     partial sums of tensor ranks: each writes its own, all read all; `uses` times a step, in turn
//   logits  of tensor ranks to the one that samples: each writes its columns of `width`, for every output
struct LinkSpec {
  enum class Kind : std::uint8_t { rows, sum, logits };
  std::string name;  // "units 0-12" (share.h): what was computed just before it
  std::uint32_t width;
  Kind kind = Kind::rows;
  std::uint32_t writers = 1, uses = 1;
};

// Rotary embedding (RoFormer, arXiv:2104.09864). Pair i of n_rot/2 turns by position * (1 + r (freq_scale -
// 1)) * base^(-2i/n_rot) / factor[i]; cos and sin are multiplied by `magnitude`. r rises from 0 at pair
// ramp_begin to 1 at ramp_end (YaRN, arXiv:2309.00071); without a ramp it is 1.
struct RopeSpec {
  enum class Pairs : std::uint8_t { adjacent, halves };  // (2i, 2i+1) or (i, i + n_rot/2)
  Pairs pairs;
  std::uint32_t n_rot;
  float base;
  float freq_scale = 1.0f;
  float magnitude = 1.0f;
  float ramp_begin = -2.0f, ramp_end = -1.0f;  // ramp_begin < ramp_end
  WeightId factors = kNoWeight;                // F32 [n_rot/2]
};

// RMS norm: x / sqrt(mean(x^2) + eps) * weight. weight == kNoWeight: no norm at all.
struct NormRef {
  WeightId weight = kNoWeight;
  float eps = 0.0f;
  explicit operator bool() const { return weight != kNoWeight; }
};

struct EmbedOp {  // out = table[token] * scale; of a rank's piece of the table: zeros for the others' tokens
  WeightId table;
  float scale;
  BufferId out;
};

struct QkvOp {  // q, k, v = W · norm(in) + bias; also writes nothing else
  BufferId in;
  NormRef norm;
  WeightId q, k, v;
  WeightId q_bias = kNoWeight, k_bias = kNoWeight, v_bias = kNoWeight;
  BufferId q_out, k_out, v_out;
};

struct RopeAppendOp {  // per-head norm of q and k, rotation of both, then k and v go to the state at the
                       // row's position; q in place (what is left in k and v is the back end's)
  BufferId q, k, v;
  std::uint32_t n_heads;
  NormRef q_norm, k_norm;  // width head_dim_k
  // Temperature of long contexts: q times 1 + q_growth * ln(1 + floor(position / q_growth_from)); 0: not.
  float q_growth = 0.0f;
  std::uint32_t q_growth_from = 1;
  std::int16_t rope;  // index into Program::ropes, -1: none
  StateId state;
};

struct AttentionOp {  // out = softmax(softcap(scale · q·k) + causal and window mask, sinks) · v; heads
                      // grouped over KV heads
  BufferId q, out;
  std::uint32_t n_heads;
  StateId state;
  float scale;
  std::uint32_t window = 0;    // 0: none; else key positions in (position - window, position]
  float softcap = 0.0f;        // 0: none; else cap * tanh(x / cap)
  WeightId sinks = kNoWeight;  // F32 [n_heads]: one more logit in each head's softmax, without a value
};

struct ResidualLinearOp {  // out = residual + post_norm(W · in + bias); out may be residual
  BufferId in;
  WeightId weight, bias = kNoWeight;
  NormRef post_norm;
  BufferId residual, out;  // kNoBuffer as residual: out = W · in + bias, a rank's partial sum
};

// clamped_swiglu (gpt-oss), experts only: g = min(gate, 7), u = min(max(up, -7), 7); g sigmoid(1.702 g) (u +
// 1)
enum class Activation : std::uint8_t { silu, gelu_tanh, clamped_swiglu };

struct GateUpOp {  // out = activation(W_gate · norm(in) + gate_bias) * (W_up · norm(in) + up_bias)
  BufferId in;
  NormRef norm;
  WeightId gate, up;
  WeightId gate_bias = kNoWeight, up_bias = kNoWeight;
  Activation activation;
  BufferId out;
};

// How a row's experts are chosen, and what their results count. logits = router · x + router_bias; scores are
// the logits' softmax, their sigmoids, or the logits themselves (softmax_of_chosen). Those of the n_used
// largest score + choice_bias are chosen, of equals the first; with groups (of neighbours, equally many each)
// from the n_groups_used groups whose two best sum to most. Their weights are the scores, of
// softmax_of_chosen the softmax of the chosen; divided by their sum if `renormalise`; times `scale`.
enum class Scoring : std::uint8_t { softmax, softmax_of_chosen, sigmoid };
struct Routing {
  std::uint32_t n_experts = 0, n_used = 0;
  Scoring scoring = Scoring::softmax;
  std::uint32_t n_groups = 1, n_groups_used = 1;
  bool renormalise = false;
  float scale = 1.0f;
};
inline constexpr std::uint32_t kMostExperts = 1024, kMostUsedExperts = 64;
// Kernels take the experts' matrices by groups of so many rows.
inline constexpr std::uint32_t kExpertRowUnit = 16;

// out = residual + sum over the chosen experts e of weight[e] * (W_down[e] · activation(W_gate[e] · x +
// gate_bias[e], W_up[e] · x + up_bias[e]) + down_bias[e]) with x = norm(in). out may be residual. A shared
// expert is a GateUpOp before it, on the same input, and a ResidualLinearOp after it.
struct ExpertsOp {
  BufferId in;
  NormRef norm;
  Routing routing;
  WeightId router;                                                             // [n_experts, width of in]
  WeightId router_bias = kNoWeight, choice_bias = kNoWeight;                   // F32 [n_experts]
  WeightId gate, up, down;                                                     // WeightSpec::experts of them
  WeightId gate_bias = kNoWeight, up_bias = kNoWeight, down_bias = kNoWeight;  // F32, as many
  Activation activation;
  BufferId residual, out;
};

struct HeadOp {  // logits[output rows] = softcap(scale * W · norm(in))
  BufferId in;
  NormRef norm;
  WeightId weight;
  float scale = 1.0f;
  float softcap = 0.0f;
  BufferId logits;  // RowSet::outputs
};

struct SampleOp {  // a token for every output row that wants one (device/step.h), from its slot's history and
                   // parameters
  BufferId logits;
};

struct ReceiveOp {  // out = what the part before this one sent, of the same step
  LinkId link;
  BufferId out;
};

struct SendOp {  // hands `in` to the part after this one
  BufferId in;
  LinkId link;
};

struct SumOp {  // out = residual + post_norm(Σ over ranks, in their order, of in + bias); the same on each
  BufferId in;
  WeightId bias = kNoWeight;
  NormRef post_norm;
  BufferId residual = kNoBuffer, out = kNoBuffer;  // no residual: the sum alone; out may be residual
  LinkId link = kNoLink;
  std::uint32_t turn = 0;  // which of the link's uses in a step
};

struct GatherOp {  // out = the ranks' logits, each at its columns, on the rank that samples; the others give
  BufferId in;     // theirs, and have no out
  BufferId out = kNoBuffer;
  std::uint32_t first_col = 0;
  LinkId link = kNoLink;
};

using OpBody = std::variant<EmbedOp, QkvOp, RopeAppendOp, AttentionOp, ResidualLinearOp, GateUpOp, ExpertsOp,
                            HeadOp, SampleOp, ReceiveOp, SendOp, SumOp, GatherOp>;

struct Op {
  std::int16_t layer;  // -1: belongs to no layer
  OpBody body;
};

// A model's step, or one part's share of it: then it begins with ReceiveOp where the tokens are another
// part's, ends with SendOp where the rest is, and has an EmbedOp or a SampleOp only where these are its own.
// Of several tensor ranks each has its piece of every matrix; what they hand each other are SumOp and
// GatherOp, and the last of them samples, or sends.
struct Program {
  std::uint32_t rank = 0, ranks = 1;  // of its stage
  std::uint32_t n_embd = 0;
  std::uint32_t vocab_size = 0;
  std::vector<BufferSpec> buffers;
  std::vector<WeightSpec> weights;
  std::vector<StateGroup> groups;
  std::vector<StateSpec> states;
  std::vector<RopeSpec> ropes;
  std::vector<LinkSpec> links;  // empty: one part has everything
  std::vector<Op> ops;
};

const char* op_name(const Op& op);

// Throws Error(internal) naming the first op whose ids, shapes or row sets don't fit together.
void check(const Program& program);

}  // namespace steelyard
