// Random weights written straight as blocks, at memory speed: the codes are random bits, the scale fields
// come from a small table of sane ones. Pure and deterministic.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/dtype.h"

namespace steelyard {

// xoshiro256++ (Blackman and Vigna, public domain), seeded through splitmix64.
class SynthRandom {
 public:
  explicit SynthRandom(std::uint64_t seed);
  std::uint64_t next();
  void fill(std::span<std::byte> bytes);

 private:
  std::array<std::uint64_t, 4> state_;
};

// Weights of mean about `mean` (floats only; block types take 0) and standard deviation about `deviation`.
class SynthBlocks {
 public:
  SynthBlocks(DType type, double mean, double deviation);
  // bytes: whole blocks. Any thread.
  void fill(std::span<std::byte> bytes, std::uint64_t seed) const;

 private:
  struct Field {  // of a block, to be taken from a variant
    std::uint32_t offset, bytes;
  };

  DTypeInfo info_;
  std::vector<std::byte> variants_;  // whole blocks (block types) or elements (floats)
  std::vector<Field> fields_;
};

}  // namespace steelyard
