// The slow, obvious evaluation of a program in double precision: what every back end is compared with. Tests
// only.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "program/program.h"

namespace steelyard::testing {

using Matrix = std::vector<std::vector<double>>;  // [row][width]

class Reference {
 public:
  // weights: by WeightId, rows * cols floats.
  Reference(const Program& program, std::vector<std::vector<float>> weights);

  // Feeds the next tokens of a sequence; returns after each op the buffers it wrote: result[op index][buffer
  // id]. Logits are given for every row.
  std::vector<std::map<BufferId, Matrix>> feed(std::uint32_t sequence, std::span<const std::int32_t> tokens);
  // Of each row fed last, whether changes of its routers' logits by up to kChange would choose other experts:
  // then whoever rounds may be right with another result.
  const std::vector<bool>& undecided() const { return undecided_; }
  static constexpr double kChange = 0.4;

 private:
  struct State {
    Matrix k, v;  // [position][heads * dim]
  };
  struct Step;

  Program program_;
  std::vector<std::vector<float>> weights_;
  std::map<std::pair<std::uint32_t, StateId>, State> states_;
  std::vector<bool> undecided_;
};

}  // namespace steelyard::testing
