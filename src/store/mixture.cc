#include "store/mixture.h"

#include <cctype>
#include <string>

#include "base/error.h"

namespace steelyard {
namespace {

bool contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

// The layers whose value and down projections get more bits: the first and last eighth, and every third
// between.
bool more_bits(std::uint32_t i, std::uint32_t n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

DType q4_k_m_type(const TensorPlace& place) {
  const bool head = place.name == "output.weight" || (place.tied && place.name == "token_embd.weight");
  if (head) return DType::Q6_K;
  const bool value = contains(place.name, "attn_v.") || contains(place.name, "attn_qkv.");
  if (value || contains(place.name, "ffn_down.")) {
    if (more_bits(place.layer, place.layers)) return DType::Q6_K;
    if (value && place.layers == 80) return DType::Q5_K;
  }
  return DType::Q4_K;
}

DType fitting(DType type, std::uint64_t columns) {
  if (columns % dtype_info(type).block == 0) return type;
  switch (type) {
    case DType::Q2_K:
    case DType::Q3_K:
    case DType::IQ4_XS:
      type = DType::IQ4_NL;
      break;
    case DType::Q4_K:
      type = DType::Q5_0;
      break;
    case DType::Q5_K:
      type = DType::Q5_1;
      break;
    case DType::Q6_K:
      type = DType::Q8_0;
      break;
    default:
      return DType::F16;
  }
  return columns % 32 == 0 ? type : DType::F16;
}

}  // namespace

Mixture parse_mixture(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  if (lower == "q4_k_m") return {DType::Q4_K, true};
  const auto info = find_dtype(lower);
  if (!info) {
    throw_error(
        ErrorKind::bad_input,
        "there is no weight type '{}'; known are q4_k_m, f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q2_k, "
        "q3_k, q4_k, q5_k, q6_k, iq4_nl, iq4_xs and mxfp4",
        name);
  }
  return {info->type, false};
}

std::uint32_t mixture_file_type(const Mixture& mixture) {
  if (mixture.q4_k_m) return 15;
  switch (mixture.base) {
    case DType::F32:
      return 0;
    case DType::F16:
      return 1;
    case DType::Q4_0:
      return 2;
    case DType::Q4_1:
      return 3;
    case DType::Q8_0:
      return 7;
    case DType::Q5_0:
      return 8;
    case DType::Q5_1:
      return 9;
    case DType::Q2_K:
      return 10;
    case DType::Q3_K:
      return 11;
    case DType::Q4_K:
      return 14;
    case DType::Q5_K:
      return 16;
    case DType::Q6_K:
      return 18;
    case DType::IQ4_NL:
      return 25;
    case DType::IQ4_XS:
      return 30;
    case DType::BF16:
      return 32;
    case DType::MXFP4:
      return 38;
  }
  return 0;
}

DType tensor_type(const Mixture& mixture, const TensorPlace& place) {
  if (!place.matrix) return DType::F32;
  return fitting(mixture.q4_k_m ? q4_k_m_type(place) : mixture.base, place.columns);
}

}  // namespace steelyard
