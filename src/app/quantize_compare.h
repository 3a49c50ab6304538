// What the types of a model's weights cost and bring, measured here: for `steelyard quantize --compare`.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "app/evaluation.h"
#include "app/progress.h"
#include "gguf/gguf.h"
#include "store/quantize_model.h"

namespace steelyard {

struct CompareOptions {
  std::vector<std::string> types;  // as --type takes them; each beside the model as it is
  TextOptions text;                // what the models are judged by
  std::string svg;                 // a file for the picture; empty: none
  bool json = false;
};

// write_quantized(), whose progress is shown; Ctrl-C throws Error(cancelled).
void write_shown(const GgufFile& file, std::span<const TensorChange> changes, QuantizeOptions options,
                 const std::filesystem::path& out, Progress& progress);

// Makes each file in a folder of its own for as long as it is measured, so that the disk needs room for the
// largest of them and the logits of the text. `base`: all options but the mixture. `pure`: types themselves,
// no mixtures.
void compare_types(const std::filesystem::path& model, const QuantizeOptions& base, bool pure,
                   const CompareOptions& options);

}  // namespace steelyard
