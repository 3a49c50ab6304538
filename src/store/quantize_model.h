// A model's file in other types: which type each tensor gets, and the new file.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <regex>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "gguf/gguf.h"
#include "store/mixture.h"

namespace steelyard {

// Tensors whose name holds a match get this type.
struct TypeRule {
  std::regex name;
  DType type;
};
// "attn_v=q8_0", a regular expression (ECMAScript) and a type. Error bad_input says what is wrong with it.
TypeRule parse_type_rule(const std::string& text);

struct QuantizeOptions {
  Mixture mixture;
  std::vector<TypeRule> rules;             // the first that matches counts, before everything else
  std::optional<DType> output, embedding;  // of output.weight and token_embd.weight
  bool requantize = false;                 // from types that have lost something already
  unsigned threads = 1;
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes read; may throw
};

struct TensorChange {
  const GgufTensor* tensor;  // of the file
  DType to;
  std::uint64_t bytes;  // then

  bool converts() const { return to != tensor->type; }
};

struct SizeTotals {
  std::uint64_t weights = 0, before = 0, after = 0;  // before, after: bytes

  double bits() const;  // a weight, then
};
SizeTotals totals_of(std::span<const TensorChange> changes);

// The new types, in the file's order. What isn't a matrix of weights (norms, biases, routers of experts)
// keeps its own. Throws Error(bad_input) where a quantised tensor would be quantised again and nobody asked
// for that, or a chosen type's block doesn't divide a tensor's rows.
std::vector<TensorChange> choose_types(const GgufFile& file, const QuantizeOptions& options);

// Writes the model with these types: metadata as it is but for general.file_type; the file appears when it is
// complete. Reads each tensor once, in pieces, so that neither model needs to fit into memory;
// `options.threads` of them are converted at once. Throws Error: bad_input for weights that are no finite
// numbers, io for a disk without room (before anything is written, where the system tells) or a source that
// changes meanwhile.
void write_quantized(const GgufFile& file, std::span<const TensorChange> changes,
                     const QuantizeOptions& options, const std::filesystem::path& path);

}  // namespace steelyard
