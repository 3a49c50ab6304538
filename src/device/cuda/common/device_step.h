// The step block as kernels see it. Plain data shared by the host side (g++) and the kernels (nvcc); no CUDA
// header. One contiguous block of device memory at a fixed address, filled by one copy before each step.
#pragma once

#include <cstdint>

namespace steelyard::cuda {

inline constexpr std::uint32_t kPageTokens = 64;  // tokens of a KV page (Target::page_tokens)

struct StepHeader {
  std::uint32_t n_rows;  // ≤ the bucket a kernel was launched for: rows beyond it are skipped
  std::uint32_t n_sequences;
  std::uint32_t n_outputs;
  std::uint32_t table_stride;  // pages_per_sequence of this step
  std::uint32_t step;          // number of the step, ascending from 0 to kStepNumbers - 1, then 0 again
  std::uint32_t number_low, number_high;  // the step's number without end
  std::uint32_t unused;
};

struct DeviceSequence {  // as StepSequence
  std::uint32_t slot, first_row, n_rows;
  std::int32_t first_position;
};

inline constexpr std::uint32_t kWantSample = 1;  // a bit of DeviceOutput::want; the others are the host's

struct DeviceOutput {  // as StepOutput; 64 bytes
  std::uint32_t row, sequence, want;
  std::int32_t mask;  // index of the row's mask in StepView::masks, -1: none
  float temperature, top_p, min_p, typical_p;
  float repeat_penalty, presence_penalty, frequency_penalty;
  std::int32_t top_k, repeat_last_n;
  std::uint32_t seed_low, seed_high;
  std::uint32_t position;  // of the row
};

// Device addresses, fixed for the executable's life; passed to kernels by value.
struct StepView {
  const StepHeader* header;
  const std::int32_t* tokens;         // [rows], none of them kLastSample once general_tokens has run
  const std::int32_t* positions;      // [rows]
  const std::uint32_t* row_sequence;  // [rows]
  const DeviceSequence* sequences;    // [slots]
  const DeviceOutput* outputs;        // [outputs], rows ascending
  const std::uint32_t* masks;         // [masks][⌈vocab/32⌉]
  const std::int32_t* block_tables;   // [groups][n_sequences][table_stride] page ids, -1: not there
  const std::uint32_t* abort;         // host memory: not 0 = every spin must end now
};

// KV state of one layer. Page p is at base + p * page_bytes:
//   F16, F32   K [kv_head][token][head_dim_k] | V [kv_head][token][head_dim_v]
//   Q8_0       the same with i8 values, then K scales [kv_head][token][head_dim_k / 32] f16, then V scales
//   likewise
// Each of these parts starts at a multiple of 128 bytes (kv_layout() in host/workspace.h).
struct KvView {
  std::uint64_t base;
  std::uint64_t page_bytes;
  std::int32_t type;  // DType: F16, Q8_0, F32
  std::int32_t group;
  std::uint32_t n_kv_heads, head_dim_k, head_dim_v;
  std::uint32_t v_offset, k_scale_offset, v_scale_offset;  // bytes from the page's start
};

}  // namespace steelyard::cuda
