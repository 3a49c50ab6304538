// Which type each tensor of a quantised model gets. Pure functions.
//
// The mixtures are the ones that llama.cpp's quantiser made usual (its public source, src/llama-quant.cpp),
// for models without and with experts; an importance matrix changes none of those here.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/dtype.h"

namespace steelyard {

// A recipe: one type for all matrices (uniform), or the usual mixture over a base type, which gives more bits
// to what matters most: "Q4_K_M" is {Q4_K, M}. S has the fewest bits of a base, L the most.
struct Mixture {
  enum class Size : std::uint8_t { uniform, S, M, L };
  DType base = DType::Q4_K;
  Size size = Size::uniform;
};

// "q4_k_m" or a DType's name, which means uniform, without regard to case; Error bad_input names the known
// ones.
Mixture parse_mixture(std::string_view name);
// What people mean by a base type's name alone: Q4_K is Q4_K_M, of Q4_0 and others the output matrix is Q6_K.
Mixture usual_mixture(const Mixture& mixture);
// The mixture that a name asks for: the usual one, or, `pure`, its base type for every matrix.
Mixture asked_mixture(std::string_view name, bool pure);
// general.file_type: the format's number for the recipe.
std::uint32_t mixture_file_type(const Mixture& mixture);

struct TensorPlace {
  std::string_view name;      // "blk.3.ffn_down.weight"
  std::uint32_t layer = 0;    // of blk.… tensors
  std::uint32_t layers = 0;   // of the model
  std::uint64_t columns = 0;  // row length
  bool matrix = true;         // false: norms, biases, RoPE factors
  bool tied = false;          // the token embedding is the output matrix as well
  std::uint32_t heads_per_kv_head = 1;
  std::uint32_t experts = 0;
};
// 1-D tensors are F32. A type whose block doesn't divide the columns falls back to its 32-weight neighbour,
// then to F16.
DType tensor_type(const Mixture& mixture, const TensorPlace& place);
// The last step of it, for a type that somebody chose.
DType fitting_type(DType type, std::uint64_t columns);

}  // namespace steelyard
