#include "device/cuda/emulation/matrix.h"

#include "base/dtype.h"
#include "quant/quant.h"
//
#include "device/cuda/hopper/weights/repack.cu"

namespace emulation {

Matrix::Matrix(std::uint32_t r, std::uint32_t c, int t)
    : rows(r), cols(c), type(t), values(r * c), packed((r + 15) / 16 * hopper::group_bytes(t, c)) {
  const auto dtype = static_cast<steelyard::DType>(type);
  for (float& v : values) v = normal() / std::sqrt(static_cast<float>(cols));
  std::vector<std::byte> blocks(steelyard::row_bytes(dtype, values.size()));
  steelyard::quantize(dtype, values.data(), values.size(), blocks.data());
  steelyard::dequantize(dtype, blocks.data(), values.size(), values.data());
  launch({1, 1, 1}, 64, 0, [&] {
    repack_weights(type, rows, cols, 0, rows, reinterpret_cast<const std::uint8_t*>(blocks.data()),
                   packed.data());
  });
}

}  // namespace emulation
