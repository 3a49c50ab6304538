#include "store/synth_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/error.h"
#include "quant/blocks.h"
#include "quant/codebooks.h"
#include "quant/half.h"
#include "quant/quant.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kBlockVariants = 64;
constexpr std::uint32_t kFloatVariants = 4096;

std::uint64_t splitmix(std::uint64_t& state) {
  std::uint64_t z = state += 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

// The value below which a share p of a standard normal distribution lies, by bisection of its integral.
double normal_quantile(double p) {
  double lo = -6, hi = 6;
  for (int i = 0; i < 60; ++i) {
    const double mid = (lo + hi) / 2;
    (0.5 * std::erfc(-mid / std::sqrt(2.0)) < p ? lo : hi) = mid;
  }
  return (lo + hi) / 2;
}

// Standard deviation of uniformly random codes of L levels.
double uniform_deviation(double levels) { return std::sqrt((levels * levels - 1) / 12); }

double codebook_deviation(const std::array<std::int8_t, 16>& values) {
  double sum = 0, squares = 0;
  for (const int v : values) {
    sum += v;
    squares += static_cast<double>(v) * v;
  }
  return std::sqrt(squares / 16 - sum * sum / 256);
}

std::uint16_t half(double value) { return float_to_half(static_cast<float>(value)); }

// Sub-scales scatter around `middle` by a quarter; their deviation from it is small enough to ignore.
int scatter(SynthRandom& random, int middle) {
  return middle - middle / 4 + static_cast<int>(random.next() >> 33) % (middle / 2 + 1);
}

double sign(SynthRandom& random) { return random.next() >> 63 != 0 ? 1 : -1; }

// Each `scales` sets a block's scale fields so that random codes give weights of deviation s around 0.
// Codes whose mean isn't 0 need scales of both signs.
void scales(BlockQ4_0& b, double s, SynthRandom& random) {
  b.d = half(sign(random) * s / uniform_deviation(16));
}
void scales(BlockQ5_0& b, double s, SynthRandom& random) {
  b.d = half(sign(random) * s / uniform_deviation(32));
}
void scales(BlockQ8_0& b, double s, SynthRandom& random) {
  b.d = half(sign(random) * s / uniform_deviation(256));
}
void scales(BlockIq4Nl& b, double s, SynthRandom& random) {
  b.d = half(sign(random) * s / codebook_deviation(kIq4Values));
}
void scales(BlockQ4_1& b, double s, SynthRandom&) {
  b.d = half(s / uniform_deviation(16));
  b.m = half(-7.5 * s / uniform_deviation(16));
}
void scales(BlockQ5_1& b, double s, SynthRandom&) {
  b.d = half(s / uniform_deviation(32));
  b.m = half(-15.5 * s / uniform_deviation(32));
}
void scales(BlockMxfp4& b, double s, SynthRandom&) {
  const double exponent = std::round(std::log2(s / codebook_deviation(kMxfp4Values))) + 128;
  b.e = static_cast<std::uint8_t>(std::clamp(exponent, 0.0, 254.0));
}
void scales(BlockQ2K& b, double s, SynthRandom& random) {
  b.d = half(s / uniform_deviation(4) / 10);
  b.dmin = half(1.5 * s / uniform_deviation(4) / 10);
  for (std::uint8_t& byte : b.scales)
    byte = static_cast<std::uint8_t>(scatter(random, 10) * 17);  // both nibbles
}
void scales(BlockQ3K& b, double s, SynthRandom& random) {
  b.d = half(s / uniform_deviation(8) / 24);
  for (int g = 0; g < 16; ++g) {
    const int scale = static_cast<int>(sign(random)) * scatter(random, 24);
    pack_scale_q3k(b.scales, g, static_cast<std::uint8_t>(32 + scale));
  }
}
void scales(BlockQ6K& b, double s, SynthRandom& random) {
  b.d = half(s / uniform_deviation(64) / 64);
  for (std::int8_t& scale : b.scales)
    scale = static_cast<std::int8_t>(static_cast<int>(sign(random)) * scatter(random, 64));
}
void scales(BlockIq4Xs& b, double s, SynthRandom& random) {
  b.d = half(s / codebook_deviation(kIq4Values) / 24);
  for (int g = 0; g < 8; ++g) {
    const int code = 32 + static_cast<int>(sign(random)) * scatter(random, 24);
    b.scales_l[g / 2] |= static_cast<std::uint8_t>((code & 15) << 4 * (g % 2));
    b.scales_h = static_cast<std::uint16_t>(b.scales_h | code >> 4 << 2 * g);
  }
}
template <typename Block>
void affine_scales(Block& b, double s, double levels, SynthRandom& random) {
  b.d = half(s / uniform_deviation(levels) / 40);
  b.dmin = half((levels - 1) / 2 * s / uniform_deviation(levels) / 40);
  for (int g = 0; g < 8; ++g) {  // the same code for scale and minimum centres the weights
    const auto code = static_cast<std::uint8_t>(scatter(random, 40));
    pack_scale_min(b.scales, g, {code, code});
  }
}
void scales(BlockQ4K& b, double s, SynthRandom& random) { affine_scales(b, s, 16, random); }
void scales(BlockQ5K& b, double s, SynthRandom& random) { affine_scales(b, s, 32, random); }

template <typename Block>
std::vector<std::byte> block_variants(double deviation) {
  std::vector<std::byte> out(kBlockVariants * sizeof(Block));
  SynthRandom random(1);
  for (std::uint32_t i = 0; i < kBlockVariants; ++i) {
    Block b{};
    scales(b, deviation * (0.75 + 0.5 * i / kBlockVariants), random);
    std::memcpy(out.data() + i * sizeof b, &b, sizeof b);
  }
  return out;
}

std::vector<std::byte> float_variants(DType type, double mean, double deviation) {
  std::vector<float> values(kFloatVariants);
  for (std::uint32_t i = 0; i < kFloatVariants; ++i)
    values[i] = static_cast<float>(mean + deviation * normal_quantile((i + 0.5) / kFloatVariants));
  std::vector<std::byte> out(row_bytes(type, kFloatVariants));
  quantize(type, values.data(), kFloatVariants, out.data());
  return out;
}

}  // namespace

SynthRandom::SynthRandom(std::uint64_t seed) {
  for (std::uint64_t& s : state_) s = splitmix(seed);
}

std::uint64_t SynthRandom::next() {
  auto& s = state_;
  const std::uint64_t result = std::rotl(s[0] + s[3], 23) + s[0];
  const std::uint64_t t = s[1] << 17;
  s[2] ^= s[0];
  s[3] ^= s[1];
  s[1] ^= s[2];
  s[0] ^= s[3];
  s[2] ^= t;
  s[3] = std::rotl(s[3], 45);
  return result;
}

void SynthRandom::fill(std::span<std::byte> bytes) {
  std::size_t i = 0;
  for (; i + 8 <= bytes.size(); i += 8) {
    const std::uint64_t bits = next();
    std::memcpy(bytes.data() + i, &bits, 8);
  }
  const std::uint64_t bits = next();
  std::memcpy(bytes.data() + i, &bits, bytes.size() - i);
}

SynthBlocks::SynthBlocks(DType type, double mean, double deviation) : info_(dtype_info(type)) {
  switch (type) {
    case DType::F32:
    case DType::F16:
    case DType::BF16:
      variants_ = float_variants(type, mean, deviation);
      return;
    case DType::Q4_0:
      variants_ = block_variants<BlockQ4_0>(deviation), fields_ = {{0, 2}};
      return;
    case DType::Q4_1:
      variants_ = block_variants<BlockQ4_1>(deviation), fields_ = {{0, 4}};
      return;
    case DType::Q5_0:
      variants_ = block_variants<BlockQ5_0>(deviation), fields_ = {{0, 2}};
      return;
    case DType::Q5_1:
      variants_ = block_variants<BlockQ5_1>(deviation), fields_ = {{0, 4}};
      return;
    case DType::Q8_0:
      variants_ = block_variants<BlockQ8_0>(deviation), fields_ = {{0, 2}};
      return;
    case DType::IQ4_NL:
      variants_ = block_variants<BlockIq4Nl>(deviation), fields_ = {{0, 2}};
      return;
    case DType::MXFP4:
      variants_ = block_variants<BlockMxfp4>(deviation), fields_ = {{0, 1}};
      return;
    case DType::Q2_K:
      variants_ = block_variants<BlockQ2K>(deviation), fields_ = {{0, 16}, {80, 4}};
      return;
    case DType::Q3_K:
      variants_ = block_variants<BlockQ3K>(deviation), fields_ = {{96, 14}};
      return;
    case DType::Q4_K:
      variants_ = block_variants<BlockQ4K>(deviation), fields_ = {{0, 16}};
      return;
    case DType::Q5_K:
      variants_ = block_variants<BlockQ5K>(deviation), fields_ = {{0, 16}};
      return;
    case DType::Q6_K:
      variants_ = block_variants<BlockQ6K>(deviation), fields_ = {{192, 18}};
      return;
    case DType::IQ4_XS:
      variants_ = block_variants<BlockIq4Xs>(deviation), fields_ = {{0, 8}};
      return;
  }
}

namespace {

// Sizes are template arguments so that each copy is a move or two.
template <std::size_t kWidth>
void fill_floats(std::span<std::byte> bytes, const std::byte* variants, SynthRandom random) {
  for (std::size_t i = 0; i < bytes.size();) {
    std::uint64_t bits = random.next();
    for (int j = 0; j < 5 && i < bytes.size(); ++j, bits >>= 12, i += kWidth)
      std::memcpy(bytes.data() + i, variants + bits % kFloatVariants * kWidth, kWidth);
  }
}

template <std::size_t kBytes>
void patch(std::span<std::byte> bytes, std::size_t block, std::size_t offset, const std::byte* variants,
           SynthRandom random) {
  variants += offset;
  for (std::size_t at = offset; at < bytes.size();) {
    std::uint64_t bits = random.next();
    for (int j = 0; j < 10 && at < bytes.size(); ++j, bits >>= 6, at += block)
      std::memcpy(bytes.data() + at, variants + bits % kBlockVariants * block, kBytes);
  }
}

}  // namespace

void SynthBlocks::fill(std::span<std::byte> bytes, std::uint64_t seed) const {
  SynthRandom random(seed);
  const std::byte* variants = variants_.data();
  const std::size_t size = info_.block_bytes;
  if (fields_.empty())
    return size == 2 ? fill_floats<2>(bytes, variants, random) : fill_floats<4>(bytes, variants, random);
  random.fill(bytes);
  for (const Field& field : fields_) {  // each with the same choices of variants
    switch (field.bytes) {
      case 1:
        patch<1>(bytes, size, field.offset, variants, random);
        break;
      case 2:
        patch<2>(bytes, size, field.offset, variants, random);
        break;
      case 4:
        patch<4>(bytes, size, field.offset, variants, random);
        break;
      case 8:
        patch<8>(bytes, size, field.offset, variants, random);
        break;
      case 14:
        patch<14>(bytes, size, field.offset, variants, random);
        break;
      case 16:
        patch<16>(bytes, size, field.offset, variants, random);
        break;
      case 18:
        patch<18>(bytes, size, field.offset, variants, random);
        break;
      default:
        throw_error(ErrorKind::internal, "no scale field has {} bytes", field.bytes);
    }
  }
}

}  // namespace steelyard
