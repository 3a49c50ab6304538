#include "gguf/summary.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>

#include "base/dtype.h"

namespace steelyard {
namespace {

// general.file_type values; the empty ones were retired.
constexpr std::array<std::string_view, 39> kFileTypes = {
    "F32",    "F16",    "Q4_0",   "Q4_1",    "",       "",       "",       "Q8_0",   "Q5_0",  "Q5_1",
    "Q2_K",   "Q3_K_S", "Q3_K_M", "Q3_K_L",  "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q5_K_M", "Q6_K",  "IQ2_XXS",
    "IQ2_XS", "Q2_K_S", "IQ3_XS", "IQ3_XXS", "IQ1_S",  "IQ4_NL", "IQ3_S",  "IQ3_M",  "IQ2_S", "IQ2_M",
    "IQ4_XS", "IQ1_M",  "BF16",   "",        "",       "",       "TQ1_0",  "TQ2_0",  "MXFP4"};

}  // namespace

std::uint64_t parameter_count(const GgufFile& file) {
  std::uint64_t sum = 0;
  for (const GgufTensor& tensor : file.tensors()) sum += tensor.shape.elements();
  return sum;
}

std::string quantization_name(const GgufFile& file) {
  if (file.tensors().empty()) return "";
  const GgufEntry* entry = file.metadata().find("general.file_type");
  if (entry != nullptr && (entry->type() == GgufType::u32 || entry->type() == GgufType::i32)) {
    const auto id = file.metadata().find_int("general.file_type").value_or(-1);
    if (id >= 0 && id < static_cast<std::int64_t>(kFileTypes.size()) && !kFileTypes[id].empty())
      return std::string(kFileTypes[id]);
  }
  std::map<DType, std::uint64_t> weights;
  for (const GgufTensor& tensor : file.tensors()) weights[tensor.type] += tensor.shape.elements();
  const auto most = std::ranges::max_element(weights, {}, [](const auto& item) { return item.second; });
  return std::string(dtype_info(most->first).name);
}

}  // namespace steelyard
