// What a list of models shows of a file. Pure functions of an open file.
#pragma once

#include <cstdint>
#include <string>

#include "gguf/gguf.h"

namespace steelyard {

// Weights in all tensors.
std::uint64_t parameter_count(const GgufFile& file);
// "Q4_K_M": general.file_type by its published name; without it the type that holds most weights; empty for a
// file without tensors.
std::string quantization_name(const GgufFile& file);

}  // namespace steelyard
