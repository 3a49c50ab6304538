// Which type each tensor of a quantised model gets. Pure functions.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/dtype.h"

namespace steelyard {

// A recipe: one type for all matrices, or the "Q4_K_M" mixture over a base of Q4_K.
struct Mixture {
  DType base = DType::Q4_K;
  bool q4_k_m = false;
};

// "q4_k_m" or a DType's name, without regard to case; Error bad_input names the known ones.
Mixture parse_mixture(std::string_view name);
// general.file_type: the format's number for the recipe.
std::uint32_t mixture_file_type(const Mixture& mixture);

struct TensorPlace {
  std::string_view name;      // "blk.3.ffn_down.weight"
  std::uint32_t layer = 0;    // of blk.… tensors
  std::uint32_t layers = 0;   // of the model
  std::uint64_t columns = 0;  // row length
  bool matrix = true;         // false: norms, biases, RoPE factors
  bool tied = false;          // the token embedding is the output matrix as well
};
// 1-D tensors are F32. A type whose block doesn't divide the columns falls back to its 32-weight neighbour,
// then to F16.
DType tensor_type(const Mixture& mixture, const TensorPlace& place);

}  // namespace steelyard
