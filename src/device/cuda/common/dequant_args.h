// A weight matrix as kernels see it; shared by the host side and nvcc.
#pragma once

#include <cstdint>

namespace steelyard::cuda {

struct MatrixArg {
  const std::uint8_t* data;
  std::int32_t type;  // DType
  std::uint32_t rows, cols;
  std::uint32_t row_bytes;  // of the file's form
  std::int32_t repacked;    // in the Hopper kernels' layout
};

}  // namespace steelyard::cuda
