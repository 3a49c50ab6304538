#include "store/mixture.h"

#include <fmt/ranges.h>

#include <cctype>
#include <optional>
#include <string>
#include <vector>

#include "base/error.h"

namespace steelyard {
namespace {

using Size = Mixture::Size;
using enum DType;

// Recipes that have a number in the format, general.file_type; the first eight are known by their own names.
struct Recipe {
  DType base;
  Size size;
  std::uint32_t file_type;
  std::string_view name;  // empty: the base's own
};
constexpr Recipe kRecipes[] = {
    {Q2_K, Size::S, 21, "q2_k_s"},   {Q3_K, Size::S, 11, "q3_k_s"}, {Q3_K, Size::M, 12, "q3_k_m"},
    {Q3_K, Size::L, 13, "q3_k_l"},   {Q4_K, Size::S, 14, "q4_k_s"}, {Q4_K, Size::M, 15, "q4_k_m"},
    {Q5_K, Size::S, 16, "q5_k_s"},   {Q5_K, Size::M, 17, "q5_k_m"}, {F32, Size::uniform, 0, {}},
    {F16, Size::uniform, 1, {}},     {Q4_0, Size::uniform, 2, {}},  {Q4_1, Size::uniform, 3, {}},
    {Q8_0, Size::uniform, 7, {}},    {Q5_0, Size::uniform, 8, {}},  {Q5_1, Size::uniform, 9, {}},
    {Q2_K, Size::uniform, 10, {}},   {Q3_K, Size::uniform, 11, {}}, {Q4_K, Size::uniform, 14, {}},
    {Q5_K, Size::uniform, 16, {}},   {Q6_K, Size::uniform, 18, {}}, {IQ4_NL, Size::uniform, 25, {}},
    {IQ4_XS, Size::uniform, 30, {}}, {BF16, Size::uniform, 32, {}}, {MXFP4, Size::uniform, 38, {}},
};

bool contains(std::string_view name, std::string_view part) {
  return name.find(part) != std::string_view::npos;
}

// The layers whose value and down projections get more bits: the first and last eighth, and every third
// between.
bool more_bits(std::uint32_t i, std::uint32_t n) {
  return i < n / 8 || i >= 7 * n / 8 || (i - n / 8) % 3 == 2;
}

// Attention's values: errors of them reach the output as they are.
DType value_type(const Mixture& m, const TensorPlace& p) {
  const bool shared = p.heads_per_kv_head >= 4;  // a small matrix that many heads read
  if (m.base == Q2_K) return m.size == Size::S && !shared ? Q2_K : shared ? Q4_K : Q3_K;
  if (m.base == Q3_K && m.size == Size::M) return p.layer < 2 ? Q5_K : Q4_K;
  if (m.base == Q3_K && m.size == Size::L) return Q5_K;
  if ((m.base == IQ4_NL || m.base == IQ4_XS) && shared) return Q5_K;
  if ((m.base == Q4_K || m.base == Q5_K) && m.size == Size::M && more_bits(p.layer, p.layers)) return Q6_K;
  if (m.base == Q4_K && m.size == Size::S && p.layer < 4) return Q5_K;
  return (m.base == Q3_K || m.base == Q4_K) && p.layers == 80 ? Q5_K : m.base;
}

DType down_type(const Mixture& m, const TensorPlace& p) {
  const bool first = p.layer < p.layers / 8;
  if (m.base == Q2_K) return m.size != Size::S ? Q3_K : first ? Q4_K : Q2_K;
  if (m.base == Q3_K && m.size == Size::M) return p.layer < p.layers / 16 ? Q5_K : Q4_K;
  if (m.base == Q3_K && m.size == Size::L) return Q5_K;
  if ((m.base == Q4_K || m.base == Q5_K) && m.size == Size::M)
    return more_bits(p.layer, p.layers) ? Q6_K : m.base;
  const bool small = (m.base == Q4_K && m.size == Size::S) || m.base == IQ4_NL || m.base == IQ4_XS;
  return small && first ? Q5_K : m.base;
}

DType attention_output_type(const Mixture& m, const TensorPlace& p) {
  const bool low = m.base == Q2_K || m.base == Q3_K || m.base == Q4_K || m.base == IQ4_NL || m.base == IQ4_XS;
  if (p.experts == 8 && low) return Q5_K;
  if (m.base == Q2_K && m.size != Size::S) return Q3_K;
  if (m.base != Q3_K) return m.base;
  return m.size == Size::L ? Q5_K : m.size == Size::M ? Q4_K : Q3_K;
}

DType mixed_type(const Mixture& m, const TensorPlace& p) {
  const bool head = p.name == "output.weight" || (p.tied && p.name == "token_embd.weight");
  if (head) return m.base == Q8_0 ? Q8_0 : Q6_K;
  const bool value = contains(p.name, "attn_v.") || contains(p.name, "attn_qkv.");
  // Eight experts share an attention that is small beside them.
  if (p.experts == 8 && (value || contains(p.name, "attn_k."))) return Q8_0;
  if (value) return value_type(m, p);
  if (contains(p.name, "ffn_down")) return down_type(m, p);
  return contains(p.name, "attn_output.") ? attention_output_type(m, p) : m.base;
}

}  // namespace

DType fitting_type(DType type, std::uint64_t columns) {
  if (columns % dtype_info(type).block == 0) return type;
  switch (type) {
    case Q2_K:
    case Q3_K:
    case IQ4_XS:
      type = IQ4_NL;
      break;
    case Q4_K:
      type = Q5_0;
      break;
    case Q5_K:
      type = Q5_1;
      break;
    case Q6_K:
      type = Q8_0;
      break;
    default:
      return F16;
  }
  return columns % 32 == 0 ? type : F16;
}

Mixture parse_mixture(std::string_view name) {
  std::string lower(name);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  std::vector<std::string> known;
  for (const Recipe& r : kRecipes) {
    if (!r.name.empty() && lower == r.name) return {r.base, r.size};
    if (!r.name.empty()) known.emplace_back(r.name);
  }
  if (const auto info = find_dtype(lower)) return {info->type, Size::uniform};
  for (const DType type : dtypes()) {
    known.emplace_back(dtype_info(type).name);
    for (char& c : known.back()) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  throw_error(ErrorKind::bad_input, "there is no weight type '{}'; known are {}", name,
              fmt::join(known, ", "));
}

Mixture usual_mixture(const Mixture& mixture) {
  if (mixture.size != Size::uniform || dtype_info(mixture.base).block == 1) return mixture;
  const bool k = mixture.base == Q2_K || mixture.base == Q3_K || mixture.base == Q4_K || mixture.base == Q5_K;
  return {mixture.base, k ? Size::M : Size::S};
}

Mixture asked_mixture(std::string_view name, bool pure) {
  const Mixture named = parse_mixture(name);
  return pure ? Mixture{named.base, Size::uniform} : usual_mixture(named);
}

std::uint32_t mixture_file_type(const Mixture& mixture) {
  const Recipe* best = nullptr;
  for (const Recipe& r : kRecipes)
    if (r.base == mixture.base && (r.size == mixture.size || (!best && r.size == Size::uniform))) best = &r;
  return best->file_type;
}

DType tensor_type(const Mixture& mixture, const TensorPlace& place) {
  if (!place.matrix) return F32;
  return fitting_type(mixture.size == Size::uniform ? mixture.base : mixed_type(mixture, place),
                      place.columns);
}

}  // namespace steelyard
