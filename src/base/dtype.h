// Element types of tensors and their block geometry. Values are GGUF's type ids (the format's public
// definition). Thread-safe: constant tables only.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace steelyard {

enum class DType : std::int32_t {
  F32 = 0,
  F16 = 1,
  Q4_0 = 2,
  Q4_1 = 3,
  Q5_0 = 6,
  Q5_1 = 7,
  Q8_0 = 8,
  Q2_K = 10,
  Q3_K = 11,
  Q4_K = 12,
  Q5_K = 13,
  Q6_K = 14,
  IQ4_NL = 20,
  IQ4_XS = 23,
  BF16 = 30,
  MXFP4 = 39,
};

struct DTypeInfo {
  DType type;
  std::string_view name;      // "Q4_K": as GGUF tools print it
  std::uint32_t block;        // elements per block; 1 for plain floats
  std::uint32_t block_bytes;  // bytes per block
};

// The table's entry, or nullopt when the id is no type that Steelyard knows.
std::optional<DTypeInfo> find_dtype(std::int32_t gguf_id);
std::optional<DTypeInfo> find_dtype(std::string_view name);  // case-insensitive
const DTypeInfo& dtype_info(DType type);
std::span<const DType> dtypes();  // all of them, by id

// Bytes of a row of `elements`; elements must be a multiple of the block size.
constexpr std::uint64_t row_bytes(const DTypeInfo& info, std::uint64_t elements) {
  return elements / info.block * info.block_bytes;
}
inline std::uint64_t row_bytes(DType type, std::uint64_t elements) {
  return row_bytes(dtype_info(type), elements);
}

}  // namespace steelyard
