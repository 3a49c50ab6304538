// What a type of weights costs and brings: one row of `steelyard quantize --compare`, and the picture of all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "app/evaluation.h"

namespace steelyard {

struct TypeCost {
  std::string type;
  std::uint64_t bytes = 0;           // of the weights
  double bits = 0;                   // a weight
  std::uint64_t memory = 0;          // that the plan asks for, at the text's context
  Score score;                       // the first row's has no divergences: the others' are against it
  double prompt = 0, generated = 0;  // tokens/s
  std::vector<std::string> slow;     // types without a fast kernel here

  double same_top() const;  // of the text's places, the share with the same likeliest word
};

// An SVG document: divergence against size, and against speed of generation; those that none beats in both
// are joined. `rows`: the original first.
std::string to_svg(std::span<const TypeCost> rows, const std::string& title);

}  // namespace steelyard
