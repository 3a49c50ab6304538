#include "base/dtype.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "base/error.h"

namespace steelyard {
namespace {

constexpr std::array kTypes = {
    DTypeInfo{DType::F32, "F32", 1, 4},         DTypeInfo{DType::F16, "F16", 1, 2},
    DTypeInfo{DType::Q4_0, "Q4_0", 32, 18},     DTypeInfo{DType::Q4_1, "Q4_1", 32, 20},
    DTypeInfo{DType::Q5_0, "Q5_0", 32, 22},     DTypeInfo{DType::Q5_1, "Q5_1", 32, 24},
    DTypeInfo{DType::Q8_0, "Q8_0", 32, 34},     DTypeInfo{DType::Q2_K, "Q2_K", 256, 84},
    DTypeInfo{DType::Q3_K, "Q3_K", 256, 110},   DTypeInfo{DType::Q4_K, "Q4_K", 256, 144},
    DTypeInfo{DType::Q5_K, "Q5_K", 256, 176},   DTypeInfo{DType::Q6_K, "Q6_K", 256, 210},
    DTypeInfo{DType::IQ4_NL, "IQ4_NL", 32, 18}, DTypeInfo{DType::IQ4_XS, "IQ4_XS", 256, 136},
    DTypeInfo{DType::BF16, "BF16", 1, 2},       DTypeInfo{DType::MXFP4, "MXFP4", 32, 17},
};

constexpr auto kIds = [] {
  std::array<DType, kTypes.size()> ids{};
  for (std::size_t i = 0; i < ids.size(); ++i) ids[i] = kTypes[i].type;
  return ids;
}();

bool same_ignoring_case(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

}  // namespace

std::optional<DTypeInfo> find_dtype(std::int32_t gguf_id) {
  for (const auto& t : kTypes)
    if (static_cast<std::int32_t>(t.type) == gguf_id) return t;
  return std::nullopt;
}

std::optional<DTypeInfo> find_dtype(std::string_view name) {
  for (const auto& t : kTypes)
    if (same_ignoring_case(t.name, name)) return t;
  return std::nullopt;
}

std::span<const DType> dtypes() { return kIds; }

const DTypeInfo& dtype_info(DType type) {
  for (const auto& t : kTypes)
    if (t.type == type) return t;
  throw_error(ErrorKind::internal, "unknown tensor type id {}", static_cast<int>(type));
}

}  // namespace steelyard
