// A part of a program: the units of it that one device would run, and of each the rank's piece. Pure.
//
// Units in order: 0 is the embedding, 1 … n the layers, n + 1 the output layer with the sampler.
// Ranks divide in four places: heads, KV heads, feed-forward and vocabulary. Everything as wide as the model
// (residual, norms, biases after a sum) is whole on every rank.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "program/program.h"

namespace steelyard {

struct Share {
  std::uint32_t begin = 0, end = 0;  // units [begin, end)
  std::uint32_t rank = 0, ranks = 1;
  bool operator==(const Share&) const = default;
};

std::uint32_t layer_count(const Program& program);
std::uint32_t unit_count(const Program& program);  // layers + 2
std::uint32_t unit_of(const Op& op, std::uint32_t layers);

// The program of a part: the ops of its units, and of weights, buffers and states those that they use. State
// groups and ropes keep their numbers, so that page ids mean the same in every part. With ranks, vocabulary
// and widths are this rank's; the first ranks take what doesn't divide. Needs !why_not_ranks().
Program part_of(const Program& program, const Share& share);

// The programs of parts that cover the units in order, joined by links: what each device runs. A stage's
// ranks follow each other, from 0 on. Throws Error(bad_input) where the program can't be divided so.
std::vector<Program> part_programs(const Program& program, std::span<const Share> shares);

// Why the program can't be divided into so many ranks, one clause; empty when it can. KV heads are repeated
// where there are more ranks than KV heads.
std::string why_not_ranks(const Program& program, std::uint32_t ranks);

}  // namespace steelyard
