// The CPU's inner loops, one table of functions per instruction set, chosen at run time.
//
// Every result element is computed by one fixed sequence of operations that depends on nothing but its own
// row, weight and position: not on the number of rows, the chunking, the tile or the thread. So the fast mode
// is bit-equal however a batch is put together ("invariant" costs nothing), on one machine and instruction
// set. All functions are pure but for their outputs; threads may call them at once on disjoint outputs.
// Nothing is allocated, nothing throws. Float pointers need no alignment unless said.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/dtype.h"
#include "device/cpu/pack.h"

namespace steelyard::cpu {

enum class Isa : std::uint8_t { portable, avx2, avx512, avx512vnni, avx512bf16 };
const char* isa_name(Isa isa);
bool isa_available(Isa isa);
// The best this CPU can run, or what the environment's STEELYARD_CPU_ISA names. Throws Error(bad_input) for
// an unknown name or an instruction set the CPU lacks.
Isa choose_isa();

// ---- Activations: the right-hand side of a product ----

// Rows in tiles of 16; a tile holds, per block of 32 columns, 16 records, one a row: row r, block b is at
// (r / 16) * tile_bytes + (b * 16 + r % 16) * record_bytes. Columns beyond `cols` are zero. A record is
// - f32: 32 floats;
// - q8: 32 x i8 q, then QTail. x = scale * q + middle, with the middle of the block's range: no code is spent
//   on a sign that doesn't occur, which halves the error of blocks with one large value.
enum class ActFormat : std::uint8_t { f32, q8 };

struct QTail {
  float scale;                // (max - min) / 254: q is in -127..127
  float middle;               // (max + min) / 2
  std::int32_t minus_sum[3];  // -(sum of q) of columns 0..15, 16..31, 0..31
  float sum;                  // scale * (sum of q) + 32 middle
};
static_assert(sizeof(QTail) == 24);

inline constexpr std::uint32_t kActTile = 16;
inline constexpr std::uint32_t kActBlock = 32;
[[gnu::always_inline]] constexpr std::uint32_t record_bytes(ActFormat format) {
  return format == ActFormat::f32 ? 128 : 56;
}
[[gnu::always_inline]] constexpr std::uint64_t act_tile_bytes(ActFormat format, std::uint32_t cols) {
  return std::uint64_t{(cols + kActBlock - 1) / kActBlock} * kActTile * record_bytes(format);
}
// Room for `rows` rows; data must be 64-byte aligned.
[[gnu::always_inline]] constexpr std::uint64_t act_bytes(ActFormat format, std::uint32_t rows,
                                                         std::uint32_t cols) {
  return std::uint64_t{(rows + kActTile - 1) / kActTile} * act_tile_bytes(format, cols);
}

struct ActView {
  ActFormat format = ActFormat::f32;
  std::uint32_t cols = 0;
  std::byte* data = nullptr;
};

// ---- Products ----

// y[r][o] = sum_c W[o][c] x[r][c] (+ bias[o]) (+ residual[r][o]) for r < n_rows, out_begin <= o < out_end.
// out_begin is a multiple of 16, out_end too or == rows. residual may be y itself. x.cols == w.cols. With
// x.format == f32 every type is multiplied as exactly dequantised floats, f32 sums in column order. With a
// quantised x, types for which !fast_type(type) must not be passed: give those f32.
struct MatmulArgs {
  PackedMatrix w;
  ActView x;
  std::uint32_t n_rows = 0;
  float* y = nullptr;
  std::uint64_t y_stride = 0;  // floats from row to row
  const float* bias = nullptr;
  const float* residual = nullptr;
  std::uint64_t residual_stride = 0;
  std::uint32_t out_begin = 0, out_end = 0;
};
// True: the type has kernels for quantised activations. Else (F16, BF16, F32, raw types) use ActFormat::f32.
bool fast_type(DType type);

enum class Gate : std::uint8_t { silu, gelu_tanh, clamped_swiglu };  // Activation in program/program.h
// out[r][o] = act(gate[o]·x[r] + gate_bias[o]) * (up[o]·x[r] + up_bias[o]) for out_begin <= o < out_end,
// written as the next product's activations. out_begin is a multiple of 32, out_end too or == rows.
struct GateUpArgs {
  PackedMatrix gate, up;
  ActView x;
  std::uint32_t n_rows = 0;
  Gate act = Gate::silu;
  ActView out;  // out.cols == gate.rows
  std::uint32_t out_begin = 0, out_end = 0;
  const float *gate_bias = nullptr, *up_bias = nullptr;  // [gate.rows], or none
};

// ---- KV pages and attention ----

// A step of the online softmax takes a block of 32 tokens; a page is two of them.
inline constexpr std::uint32_t kBlockTokens = 32;
inline constexpr std::uint32_t kPageTokens = 64;
// A page of one layer, per KV head two blocks: K transposed, [head_dim_k][32 tokens], then V,
// [32 tokens][head_dim_v]. head_dim_v is padded to a multiple of 16 (Q8_0: both to 32). Q8_0: K and V as i8,
// then K's scales f16 [head_dim_k/32][32 tokens], then V's scales f16 [32 tokens][head_dim_v/32];
// x = scale * q, scale = max|x|/127 over 32 neighbouring dimensions of a token.
struct KvLayout {
  DType type = DType::F16;  // F16, Q8_0 or F32
  std::uint32_t n_kv_heads = 0, head_dim_k = 0, head_dim_v = 0;
};
std::uint64_t kv_head_bytes(const KvLayout& layout);  // one head of a page; a multiple of 64
std::uint64_t kv_page_bytes(const KvLayout& layout);  // a multiple of 64

// Where a sequence's pages of one layer are: page p (tokens 64p .. 64p+63) at base + table[p] * page_stride.
struct KvPages {
  std::byte* base = nullptr;
  std::uint64_t page_stride = 0;
  const std::int32_t* table = nullptr;
};

struct AttentionArgs {
  KvLayout layout;
  KvPages pages;
  std::uint32_t n_heads = 0;   // query heads; n_heads % n_kv_heads == 0
  const float* q = nullptr;    // [rows][n_heads * head_dim_k], after RoPE
  std::uint64_t q_stride = 0;  // floats from row to row
  float scale = 1.0f;
  float softcap = 0.0f;          // 0: none
  std::uint32_t window = 0;      // 0: none; else keys in (position - window, position]
  const float* sinks = nullptr;  // [n_heads] or null
};

// Softmax runs online over the blocks of one chunk of 128 tokens (by absolute position); the chunks' partial
// results are then merged in order. Both ways below do the same operations in the same order.
inline constexpr std::uint32_t kChunkTokens = 128;
inline constexpr std::uint32_t kMaxHeadDim = 512;
inline constexpr std::uint32_t kQueryTile = 32;  // queries (rows x heads of a group) handled at once
// First and one-past-last chunk that a query at `position` sees.
[[gnu::always_inline]] constexpr std::uint32_t first_chunk(std::int32_t position, std::uint32_t window) {
  const std::int32_t first = window != 0 && position >= static_cast<std::int32_t>(window)
                                 ? position - static_cast<std::int32_t>(window) + 1
                                 : 0;
  return static_cast<std::uint32_t>(first) / kChunkTokens;
}
[[gnu::always_inline]] constexpr std::uint32_t end_chunk(std::int32_t position) {
  return static_cast<std::uint32_t>(position) / kChunkTokens + 1;
}
// Partial result of one query head and chunk: [max, sum, unused 14][head_dim_v rounded up to 32] floats.
[[gnu::always_inline]] constexpr std::uint32_t partial_floats(std::uint32_t head_dim_v) {
  return 16 + (head_dim_v + 31) / 32 * 32;
}

inline constexpr std::uint64_t kDotsPerSpin = 12 * 64, kFmasPerSpin = 12 * 16;

// ---- The table ----

struct Kernels {
  Isa isa;

  // x[cols] -> y[cols] = x / sqrt(mean(x^2) + eps) * weight (weight null: ones). y may be x.
  void (*rms_norm)(const float* x, const float* weight, float eps, std::uint32_t cols, float* y);
  // Columns [col_begin, col_begin + cols) of row `row`; col_begin is a multiple of 32; x points at
  // col_begin's value. The last block of the row is padded with zeros.
  void (*quantize)(const float* x, std::uint32_t col_begin, std::uint32_t cols, const ActView& dst,
                   std::uint32_t row);
  // rms_norm and quantize of a whole row in one; weight null: ones. eps < 0: no norm, x as it is.
  void (*rms_norm_quantize)(const float* x, const float* weight, float eps, const ActView& dst,
                            std::uint32_t row);
  // Back to floats: for tests and traces.
  void (*dequantize_act)(const ActView& src, std::uint32_t row, float* out);

  void (*matmul)(const MatmulArgs& args);
  void (*gate_up)(const GateUpArgs& args);

  // Rotates n_heads heads of head_dim floats in place; cos_sin from rope_angles: [n_rot/2] cos, [n_rot/2]
  // sin.
  void (*rope_halves)(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot,
                      const float* cos_sin);
  void (*rope_adjacent)(float* x, std::uint32_t n_heads, std::uint32_t head_dim, std::uint32_t n_rot,
                        const float* cos_sin);

  // Writes one token's k [n_kv_heads * head_dim_k] and v [n_kv_heads * head_dim_v] of heads [head_begin,
  // head_end).
  void (*append_kv)(const KvLayout& layout, const KvPages& pages, std::int32_t position, const float* k,
                    const float* v, std::uint32_t head_begin, std::uint32_t head_end);
  // Attention of the query heads that share `kv_head`, for rows [row_begin, row_end) of one sequence; row r
  // is at position first_position + r. Writes out[r * out_stride + head * head_dim_v ...]. Any number of
  // rows; several at once share the keys that are read. scratch:
  // attention_scratch_bytes, 64-aligned.
  void (*attention)(const AttentionArgs& args, std::uint32_t kv_head, std::uint32_t row_begin,
                    std::uint32_t row_end, std::int32_t first_position, float* out, std::uint64_t out_stride,
                    std::byte* scratch);
  // The same for one row and one chunk, so that threads can share a long context: partials
  // [n_heads / n_kv_heads][partial_floats], 64-aligned.
  void (*attention_chunk)(const AttentionArgs& args, std::uint32_t kv_head, std::uint32_t row,
                          std::int32_t position, std::uint32_t chunk, float* partials);
  // Merges one head's partials, `stride` floats apart, of chunks in ascending order into out[head_dim_v].
  void (*attention_merge)(const float* partials, std::uint64_t stride, std::uint32_t n_chunks,
                          std::uint32_t head_dim_v, const float* sink, float* out);

  void (*add)(const float* x, std::uint32_t n, float* y);                       // y += x
  void (*add_scaled)(float factor, const float* x, std::uint32_t n, float* y);  // y += factor x
  void (*scale)(float factor, std::uint32_t n, float* x);                       // x *= factor
  void (*softcap)(float cap, std::uint32_t n, float* x);                        // x = cap tanh(x / cap)
  float (*max)(const float* x, std::uint32_t n);                                // n > 0
  // The first of the largest; n where one of them is NaN or +infinity.
  std::uint32_t (*argmax)(const float* x, std::uint32_t n);
  void (*exp_sub)(const float* x, float minus, std::uint32_t n, float* y);  // y = exp(x - minus)

  // For measuring the machine (probe.h); the results mean nothing.
  std::uint64_t (*read_all)(const std::byte* data, std::uint64_t bytes);  // reads all, as fast as it can
  std::uint64_t (*spin_dots)(std::uint64_t iterations);  // kDotsPerSpin int8 multiply-adds each, in registers
  std::uint64_t (*spin_fmas)(std::uint64_t iterations);  // kFmasPerSpin float multiply-adds each
};

[[gnu::always_inline]] constexpr std::uint64_t attention_scratch_bytes(std::uint32_t heads_per_group,
                                                                       std::uint32_t head_dim_v) {
  // Chunk state and merged state of the queries handled at once.
  const std::uint64_t queries = heads_per_group > kQueryTile ? heads_per_group : kQueryTile;
  return queries * 2 * partial_floats(head_dim_v) * sizeof(float);
}

// The table of an instruction set; isa_available(isa) must hold.
const Kernels& kernels(Isa isa);

// cos and sin of position * inv_freq[i], computed in double, times magnitude: out[0..half) cos, out[half..)
// sin.
void rope_angles(std::int32_t position, const double* inv_freq, std::uint32_t half, float magnitude,
                 float* out);
// Frequencies of pairs; ramp_begin < ramp_end as in RopeSpec (program/program.h).
struct RopeFrequencies {
  std::uint32_t n_rot;
  double base, freq_scale, ramp_begin = -2, ramp_end = -1;
};
// inv_freq[i] = (1 + r(i) (freq_scale - 1)) * base^(-2i/n_rot) / factors[i] (factors may be null), i <
// n_rot/2.
void rope_inv_freq(const RopeFrequencies& rope, const float* factors, double* inv_freq);

}  // namespace steelyard::cpu
