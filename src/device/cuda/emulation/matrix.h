// Random weights for tests of kernels on the CPU (emulation.h).
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "device/cuda/emulation/emulation.h"
//
#include "device/cuda/hopper/args.h"
#include "device/cuda/hopper/weights/layout.cuh"

namespace emulation {

namespace hopper = steelyard::cuda::hopper;

inline std::mt19937 random_bits(3);
inline float normal() { return std::normal_distribution<float>()(random_bits); }
inline float rounded(float x) { return static_cast<float>(static_cast<_Float16>(x)); }

using Vector = std::vector<double>;

// Weights as floats, and in a type's blocks as the kernels read them (hopper/weights/format.h): quantised by
// quant/, repacked by the kernel that does it at load.
struct Matrix {
  std::uint32_t rows, cols;
  int type;
  std::vector<float> values;
  Aligned<std::uint8_t> packed;

  Matrix(std::uint32_t rows, std::uint32_t cols, int type = hopper::kF16);
  hopper::Segment segment(void* out) const {
    return {packed.data(), nullptr,          static_cast<float*>(out), hopper::group_bytes(type, cols),
            rows,          (rows + 15) / 16, hopper::unit_bytes(type), hopper::chunk_bytes(type),
            type};
  }
  Vector operator*(const Vector& x) const {
    Vector y(rows);
    for (std::uint32_t r = 0; r < rows; r++)
      for (std::uint32_t c = 0; c < cols; c++) y[r] += double{values[r * cols + c]} * x[c];
    return y;
  }
};

// Column `column` of row `row` of a GemvInput (hopper/gemv/units.cuh): 16 j + 4 t + e of every 32 stands at 8
// t + 4 j
// + e.
template <typename Input>
_Float16 half_of(const Input& input, std::uint32_t row, std::uint32_t column) {
  const std::uint32_t place = column / 4 % 4 * 8 + column / 16 % 2 * 4 + column % 4;
  return input.halves[(column / 32 * input.max_rows + row) * 32 + place].value;
}

}  // namespace emulation
