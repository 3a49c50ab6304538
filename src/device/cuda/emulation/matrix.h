// Random weights for tests of kernels on the CPU (emulation.h).
#pragma once

#include <cmath>
#include <random>
#include <vector>

#include "device/cuda/emulation/emulation.h"
//
#include "device/cuda/fast_args.h"
#include "device/cuda/fast_layout.cuh"

namespace emulation {

namespace fast = strata::cuda::fast;

inline std::mt19937 random_bits(3);
inline float normal() { return std::normal_distribution<float>()(random_bits); }
inline float rounded(float x) { return static_cast<float>(static_cast<_Float16>(x)); }

using Vector = std::vector<double>;

// Weights in f16, as floats and as the kernel reads them (fast_format.h, fast_mma.cuh).
struct Matrix {
  std::uint32_t rows, cols;
  std::vector<float> values;
  Aligned<std::uint8_t> packed;

  Matrix(std::uint32_t r, std::uint32_t c)
      : rows(r), cols(c), values(r * c), packed((r + 15) / 16 * fast::group_bytes(fast::kF16, c)) {
    for (float& v : values) v = rounded(normal() / std::sqrt(static_cast<float>(c)));
    for (std::uint32_t row = 0; row < r; row++)
      for (std::uint32_t col = 0; col < c; col++)
        *place(row, col) = static_cast<_Float16>(values[row * c + col]);
  }
  _Float16* place(std::uint32_t row, std::uint32_t col) const {
    const std::uint32_t g = row % 8, high = row % 16 / 8, t = col % 16 / 4, pair = col % 4 / 2;
    std::uint8_t* chunk = packed.data() + row / 16 * fast::group_bytes(fast::kF16, cols) +
                          col / 256 * fast::unit_bytes(fast::kF16) + fast::unit_header_bytes(fast::kF16) +
                          col % 256 / 64 * fast::chunk_bytes(fast::kF16);
    const std::uint32_t lane = 4 * g + t, word = (col % 64 / 16 * 32 + lane) * 4 + high + 2 * pair;
    return reinterpret_cast<_Float16*>(chunk) + word * 2 + col % 2;
  }
  fast::Segment segment(void* out) const {
    return {
        packed.data(), nullptr,          static_cast<float*>(out),     fast::group_bytes(fast::kF16, cols),
        rows,          (rows + 15) / 16, fast::unit_bytes(fast::kF16), fast::chunk_bytes(fast::kF16),
        fast::kF16};
  }
  Vector operator*(const Vector& x) const {
    Vector y(rows);
    for (std::uint32_t r = 0; r < rows; r++)
      for (std::uint32_t c = 0; c < cols; c++) y[r] += double{values[r * cols + c]} * x[c];
    return y;
  }
};

}  // namespace emulation
