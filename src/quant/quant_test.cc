#include "quant/quant.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "quant/half.h"

namespace steelyard {
namespace {

std::vector<char> read_golden(const std::string& name) {
  std::ifstream file(std::string(STEELYARD_SOURCE_DIR) + "/tests/data/quant/" + name, std::ios::binary);
  EXPECT_TRUE(file) << name;
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<float> normal_values(std::size_t n, unsigned seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(n);
  for (float& v : values) v = normal(random);
  return values;
}

std::vector<float> round_trip(DType type, const std::vector<float>& values) {
  std::vector<std::byte> blocks(row_bytes(type, values.size()));
  std::vector<float> out(values.size());
  quantize(type, values.data(), values.size(), blocks.data());
  dequantize(type, blocks.data(), values.size(), out.data());
  return out;
}

double relative_rms_error(const std::vector<float>& values, const std::vector<float>& approximate) {
  double error = 0, square = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    error += std::pow(static_cast<double>(values[i]) - approximate[i], 2);
    square += std::pow(static_cast<double>(values[i]), 2);
  }
  return std::sqrt(error / square);
}

class QuantTest : public ::testing::TestWithParam<DType> {};
std::string type_name(const ::testing::TestParamInfo<DType>& info) {
  return std::string(dtype_info(info.param).name);
}

// Blocks and floats made by an independent package, see tools/make_quant_goldens.py.
TEST_P(QuantTest, DequantisesBitExactly) {
  if (GetParam() == DType::F32) return;  // a copy; covered below
  const std::string name(dtype_info(GetParam()).name);
  const std::vector<char> blocks = read_golden(name + ".blocks"), golden = read_golden(name + ".f32");
  const std::size_t n = golden.size() / 4;
  ASSERT_EQ(blocks.size(), row_bytes(GetParam(), n));
  std::vector<float> out(n);
  dequantize(GetParam(), reinterpret_cast<const std::byte*>(blocks.data()), n, out.data());
  for (std::size_t i = 0; i < n; ++i) {
    float expected;
    std::memcpy(&expected, golden.data() + 4 * i, 4);
    // Zeros may differ in sign: the package sums where the definition multiplies.
    if (expected == 0 && out[i] == 0) continue;
    ASSERT_EQ(std::bit_cast<std::uint32_t>(out[i]), std::bit_cast<std::uint32_t>(expected))
        << "element " << i;
  }
}

TEST_P(QuantTest, ReadsBlocksAtAnyAddress) {
  const std::size_t n = 512;
  const std::vector<float> values = normal_values(n, 3);
  std::vector<std::byte> blocks(row_bytes(GetParam(), n)), shifted(blocks.size() + 1);
  quantize(GetParam(), values.data(), n, blocks.data());
  quantize(GetParam(), values.data(), n, shifted.data() + 1);
  EXPECT_EQ(std::memcmp(blocks.data(), shifted.data() + 1, blocks.size()), 0);
  std::vector<float> a(n), b(n);
  dequantize(GetParam(), blocks.data(), n, a.data());
  dequantize(GetParam(), shifted.data() + 1, n, b.data());
  EXPECT_EQ(a, b);
}

// Relative RMS error on normal weights. Bounds: uniform grids of L levels over a group's range err about
// range / L / √12; they are loose by a quarter.
double error_bound(DType type) {
  switch (type) {
    case DType::F32:
      return 0;
    case DType::F16:
      return 3e-4;
    case DType::BF16:
      return 2.5e-3;
    case DType::Q8_0:
      return 0.007;
    case DType::Q6_K:
      return 0.021;
    case DType::Q5_1:
    case DType::Q5_K:
      return 0.042;
    case DType::Q5_0:
      return 0.046;
    case DType::Q4_1:
    case DType::Q4_K:
      return 0.085;
    case DType::IQ4_NL:
    case DType::IQ4_XS:
      return 0.085;
    case DType::Q4_0:
      return 0.09;
    case DType::MXFP4:
      return 0.13;
    case DType::Q3_K:
      return 0.18;
    case DType::Q2_K:
      return 0.32;
  }
  return 0;
}

TEST_P(QuantTest, KeepsNormalWeightsClose) {
  const std::vector<float> values = normal_values(256 * 64, 11, 0.02f);
  const double error = relative_rms_error(values, round_trip(GetParam(), values));
  RecordProperty("relative_rms_error", std::to_string(error));
  EXPECT_LE(error, error_bound(GetParam()));
}

TEST_P(QuantTest, HoldsExtremes) {
  const std::size_t n = 256;
  for (const float value : {0.0f, 1.0f, -3.0f, 1e-7f, -1e-20f, 60000.0f, -60000.0f}) {
    std::vector<float> values(n, value);
    const std::vector<float> out = round_trip(GetParam(), values);
    for (const float v : out) {
      ASSERT_TRUE(std::isfinite(v)) << value;
      // A constant row: every type has a code close to its end; tiny values may vanish in the half scale.
      ASSERT_NEAR(v, value, std::abs(value) * 0.13 + 1e-7) << value;
    }
  }
  // One outlier among small values, of either sign.
  for (const float outlier : {8.0f, -8.0f}) {
    std::vector<float> values = normal_values(n, 5, 0.01f);
    values[77] = outlier;
    const std::vector<float> out = round_trip(GetParam(), values);
    EXPECT_NEAR(out[77], outlier, 0.6) << outlier;
  }
}

TEST_P(QuantTest, CountsWhatIsNotFiniteAsZeroInBlocks) {
  if (dtype_info(GetParam()).block == 1) return;
  std::vector<float> values = normal_values(256, 9);
  std::vector<float> zeroed = values;
  values[3] = NAN;
  values[40] = INFINITY;
  values[200] = -INFINITY;
  zeroed[3] = zeroed[40] = zeroed[200] = 0;
  EXPECT_EQ(round_trip(GetParam(), values), round_trip(GetParam(), zeroed));
}

TEST_P(QuantTest, KeepsItsOwnValues) {
  // What a block can hold exactly survives a second round nearly unchanged.
  const std::vector<float> once = round_trip(GetParam(), normal_values(256 * 8, 21));
  EXPECT_LE(relative_rms_error(once, round_trip(GetParam(), once)), error_bound(GetParam()) / 2);
}

TEST_P(QuantTest, RefusesPartBlocks) {
  if (dtype_info(GetParam()).block == 1) return;
  std::byte byte{};
  float value = 0;
  EXPECT_THROW(dequantize(GetParam(), &byte, 31, &value), Error);
  EXPECT_THROW(quantize(GetParam(), &value, 31, &byte), Error);
}

INSTANTIATE_TEST_SUITE_P(Types, QuantTest, ::testing::ValuesIn(dtypes().begin(), dtypes().end()), type_name);

TEST(Quant, CopiesFloats) {
  const std::vector<float> values = normal_values(37, 1);
  EXPECT_EQ(round_trip(DType::F32, values), values);
  dequantize(DType::F32, nullptr, 0, nullptr);
  quantize(DType::F32, nullptr, 0, nullptr);
}

#ifdef __FLT16_MAX__
// The compiler's own half type is the oracle.
TEST(Half, AllHalvesToFloat) {
  for (std::uint32_t h = 0; h < 65536; ++h) {
    const auto bits = static_cast<std::uint16_t>(h);
    const float expected = static_cast<float>(std::bit_cast<_Float16>(bits));
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(half_to_float(bits))) << h;
    } else {
      ASSERT_EQ(std::bit_cast<std::uint32_t>(half_to_float(bits)), std::bit_cast<std::uint32_t>(expected))
          << h;
    }
  }
}

TEST(Half, FloatsToHalfRoundToNearestEven) {
  const auto check = [](std::uint32_t bits) {
    const float f = std::bit_cast<float>(bits);
    const std::uint16_t h = float_to_half(f);
    if (std::isnan(f)) {
      ASSERT_TRUE((h & 0x7c00) == 0x7c00 && (h & 0x3ff) != 0) << bits;
    } else {
      ASSERT_EQ(h, std::bit_cast<std::uint16_t>(static_cast<_Float16>(f))) << bits;
    }
  };
  for (std::uint64_t bits = 0; bits < 1ull << 32; bits += 4099) check(static_cast<std::uint32_t>(bits));
  // Every half, every tie between halves, and one step to either side of the tie.
  for (std::uint32_t h = 0; h < 0x7c00; ++h) {
    const float a = half_to_float(static_cast<std::uint16_t>(h));
    const float b = h == 0x7bff ? 65536.0f : half_to_float(static_cast<std::uint16_t>(h + 1));
    const auto tie = std::bit_cast<std::uint32_t>((a + b) / 2);
    for (const std::uint32_t bits : {std::bit_cast<std::uint32_t>(a), tie - 1, tie, tie + 1}) {
      check(bits);
      check(bits | 0x80000000u);
    }
  }
}
#endif

TEST(Half, Bf16RoundsToNearestEven) {
  EXPECT_EQ(float_to_bf16(1.0f), 0x3f80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808000u)), 0x3f80);  // tie, even below
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f818000u)), 0x3f82);  // tie, even above
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x3f808001u)), 0x3f81);
  EXPECT_EQ(float_to_bf16(-INFINITY), 0xff80);
  EXPECT_EQ(float_to_bf16(std::bit_cast<float>(0x7f7fffffu)), 0x7f80);  // rounds up to infinity
  EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(std::bit_cast<float>(0x7f800001u)))));
  for (std::uint32_t b = 0; b < 0x7f80; ++b)
    ASSERT_EQ(float_to_bf16(bf16_to_float(static_cast<std::uint16_t>(b))), b);
}

}  // namespace
}  // namespace steelyard
