// The forward pass of the llama, qwen, gemma and phi families, written as a Program, and where its weights
// lie in the file.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {

struct ForwardOptions {
  DType kv_type = DType::F16;    // F16, Q8_0 or F32
  std::uint32_t context = 4096;  // longest sequence; chooses phi3's rope factors
};

// Where a weight of the program lies: rows [row_begin, row_begin + spec.rows) of a tensor, and of them
// columns [col_begin, col_begin + spec.cols). By WeightId.
struct WeightSource {
  const GgufTensor* tensor;  // owned by the file
  std::uint32_t row_begin;
  std::uint32_t col_begin = 0;
};

struct Forward {
  Program program;
  std::vector<WeightSource> sources;  // parallel to program.weights
};

// Throws Error(bad_input) naming a tensor that is missing or whose shape or type doesn't fit the
// configuration. The file must outlive the result.
Forward write_forward(const GgufFile& file, const ModelConfig& config, const ForwardOptions& options);

// The same in parts for several devices (part_programs() in program/share.h).
std::vector<Forward> in_parts(const Forward& whole, std::span<const Share> shares);

// Where a weight begins in its tensor's bytes; bytes from row to row there; and the weight's bytes in the
// file, from its first to its last, with what lies between its rows.
std::uint64_t weight_begin(const WeightSpec& spec, const WeightSource& source);
std::uint64_t weight_stride(const WeightSource& source);
std::span<const std::byte> weight_bytes(const GgufFile& file, const WeightSpec& spec,
                                        const WeightSource& source);

}  // namespace steelyard
