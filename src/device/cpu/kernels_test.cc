// Every instruction set this machine has, against plain loops in double over exactly dequantised values.
#include "device/cpu/kernels.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "base/error.h"
#include "quant/quant.h"

namespace steelyard::cpu {
namespace {

struct AlignedFree {
  void operator()(std::byte* p) const { ::operator delete (p, std::align_val_t{64}); }
};
struct Buffer {
  explicit Buffer(std::uint64_t n)
      : bytes(static_cast<std::byte*>(::operator new (n + 64, std::align_val_t{64}))) {
    std::memset(bytes.get(), 0xff, n + 64);  // NaN: whatever isn't written must not be used
  }
  std::byte* get() const { return bytes.get(); }
  std::unique_ptr<std::byte, AlignedFree> bytes;
};

std::vector<float> random_floats(std::size_t n, unsigned seed, float scale = 1.0f) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> x(n);
  for (float& v : x) v = normal(rng);
  return x;
}

std::vector<Isa> isas() {
  std::vector<Isa> all;
  for (const Isa isa : {Isa::portable, Isa::avx2, Isa::avx512, Isa::avx512vnni, Isa::avx512bf16}) {
    if (isa_available(isa)) all.push_back(isa);
  }
  return all;
}

struct Weights {
  Weights(DType type, std::uint32_t rows, std::uint32_t cols, unsigned seed)
      : raw(row_bytes(type, cols) * rows),
        packed(packed_bytes(type, rows, cols)),
        exact(std::size_t{rows} * cols) {
    const auto values = random_floats(exact.size(), seed);
    for (std::uint32_t r = 0; r < rows; ++r) {
      std::byte* at = raw.data() + r * row_bytes(type, cols);
      quantize(type, values.data() + std::size_t{r} * cols, cols, at);
      dequantize(type, at, cols, exact.data() + std::size_t{r} * cols);
    }
    const std::uint32_t half = rows / 2 / 16 * 16;
    pack(type, raw.data(), rows, cols, half, rows, packed.get());
    pack(type, raw.data(), rows, cols, 0, half, packed.get());
    view = {type, rows, cols, packed.get()};
  }
  std::vector<std::byte> raw;
  Buffer packed;
  std::vector<float> exact;
  PackedMatrix view;
};

// A rank's columns, read where they lie between the others'.
TEST(Pack, ColumnsOfALargerMatrix) {
  constexpr std::uint32_t kRows = 21, kCols = 256;
  for (const DType type : dtypes()) {
    const std::uint64_t row = row_bytes(type, kCols);
    std::vector<std::byte> wide(3 * row * kRows), narrow(row * kRows);
    const auto values = random_floats(kCols, 3);
    for (std::uint32_t r = 0; r < 3 * kRows; ++r) quantize(type, values.data(), kCols, wide.data() + r * row);
    for (std::size_t i = 0; i < wide.size(); i += 7) wide[i] ^= std::byte{1};
    for (std::uint32_t r = 0; r < kRows; ++r)
      std::memcpy(narrow.data() + r * row, wide.data() + (3 * r + 1) * row, row);
    std::vector<std::byte> a(packed_bytes(type, kRows, kCols)), b(a.size());
    pack(type, narrow.data(), kRows, kCols, 0, kRows, a.data());
    pack(type, wide.data() + row, kRows, kCols, 0, kRows, b.data(), 3 * row);
    EXPECT_EQ(a, b) << dtype_info(type).name;
  }
}

struct Acts {
  Acts(const Kernels& k, ActFormat format, std::uint32_t rows, std::uint32_t cols,
       const std::vector<float>& x)
      : data(act_bytes(format, rows, cols)), exact(std::size_t{rows} * cols) {
    view = {format, cols, data.get()};
    for (std::uint32_t r = 0; r < rows; ++r) {
      k.quantize(x.data() + std::size_t{r} * cols, 0, cols, view, r);
      k.dequantize_act(view, r, exact.data() + std::size_t{r} * cols);
    }
  }
  Buffer data;
  std::vector<float> exact;
  ActView view;
};

constexpr DType kTypes[] = {DType::Q4_0, DType::Q4_1,   DType::Q5_0,   DType::Q5_1, DType::Q8_0, DType::Q4_K,
                            DType::Q5_K, DType::Q6_K,   DType::F16,    DType::BF16, DType::F32,  DType::Q2_K,
                            DType::Q3_K, DType::IQ4_NL, DType::IQ4_XS, DType::MXFP4};

std::uint32_t fit_cols(DType type, std::uint32_t cols) {
  const std::uint32_t block = dtype_info(type).block;
  return (cols + block - 1) / block * block;
}

TEST(Pack, RowsComeBackBitExact) {
  for (const DType type : kTypes) {
    for (const std::uint32_t rows : {1u, 16u, 37u, 48u}) {
      const std::uint32_t cols = fit_cols(type, 96);
      const Weights w(type, rows, cols, 7);
      std::vector<float> row(cols);
      for (std::uint32_t r = 0; r < rows; ++r) {
        dequantize_row(w.view, r, row.data());
        ASSERT_EQ(0, std::memcmp(row.data(), w.exact.data() + std::size_t{r} * cols, cols * 4))
            << dtype_info(type).name << " row " << r;
      }
    }
  }
}

TEST(Pack, TakesTheFilesBytes) {
  for (const DType type : kTypes) {
    EXPECT_EQ(packed_bytes(type, 64, 512), row_bytes(type, 512) * 64) << dtype_info(type).name;
  }
}

// y and the sum of |w x| per output, in double.
void reference(const Weights& w, const std::vector<float>& x, std::uint32_t row, std::uint32_t out, double* y,
               double* size) {
  *y = *size = 0.0;
  for (std::uint32_t c = 0; c < w.view.cols; ++c) {
    const double p = static_cast<double>(w.exact[std::size_t{out} * w.view.cols + c]) *
                     x[std::size_t{row} * w.view.cols + c];
    *y += p;
    *size += std::fabs(p);
  }
}

std::vector<ActFormat> formats(DType type) {
  if (!fast_type(type)) return {ActFormat::f32};
  return {ActFormat::f32, ActFormat::q8};
}

// Float sums of n terms differ from the exact one by about n * 2^-24 * sum |terms| at worst; sqrt(n)
// typically.
constexpr double kTolerance = 4e-6;

void check_matmul(const Kernels& k, DType type, ActFormat format, std::uint32_t rows, std::uint32_t cols,
                  std::uint32_t n) {
  const Weights w(type, rows, cols, rows + cols);
  const Acts x(k, format, n, cols, random_floats(std::size_t{n} * cols, n));
  const auto bias = random_floats(rows, 5), residual = random_floats(std::size_t{n} * rows, 6);
  std::vector<float> y(std::size_t{n} * rows, NAN);
  MatmulArgs a{w.view, x.view, n, y.data(), rows, bias.data(), residual.data(), rows, 0, rows};
  a.out_end = rows / 2 / 16 * 16;
  k.matmul(a);
  a.out_begin = a.out_end;
  a.out_end = rows;
  k.matmul(a);
  for (std::uint32_t r = 0; r < n; ++r) {
    for (std::uint32_t o = 0; o < rows; ++o) {
      double expected, size;
      reference(w, x.exact, r, o, &expected, &size);
      // The minimum's part is computed from sums that can be larger than the terms' own.
      const double slack =
          kTolerance * (size + std::fabs(bias[o]) + std::fabs(residual[std::size_t{r} * rows + o]) + 1.0);
      ASSERT_NEAR(y[std::size_t{r} * rows + o], expected + bias[o] + residual[std::size_t{r} * rows + o],
                  slack)
          << isa_name(k.isa) << " " << dtype_info(type).name << " format " << static_cast<int>(format)
          << " rows " << rows << " cols " << cols << " n " << n << " at " << r << "," << o;
    }
  }
}

TEST(Matmul, EveryIsaTypeAndFormatMatchesTheReference) {
  for (const Isa isa : isas()) {
    for (const DType type : kTypes) {
      for (const ActFormat format : formats(type)) {
        check_matmul(kernels(isa), type, format, 40, fit_cols(type, 576), 5);
        check_matmul(kernels(isa), type, format, 16, fit_cols(type, 32), 1);
        check_matmul(kernels(isa), type, format, 33, fit_cols(type, 288), 64);
      }
    }
  }
}

TEST(Matmul, OddColumnsOfFloatTypes) {
  for (const Isa isa : isas()) {
    for (const DType type : {DType::F16, DType::BF16, DType::F32})
      check_matmul(kernels(isa), type, ActFormat::f32, 20, 301, 3);
  }
}

TEST(Matmul, ARowsBitsDontDependOnItsCompany) {
  for (const Isa isa : isas()) {
    const Kernels& k = kernels(isa);
    for (const DType type : kTypes) {
      for (const ActFormat format : formats(type)) {
        const std::uint32_t rows = 48, cols = fit_cols(type, 512), n = 39;  // pairs of groups and one alone
        const Weights w(type, rows, cols, 3);
        const auto x = random_floats(std::size_t{n} * cols, 4);
        const Acts together(k, format, n, cols, x);
        std::vector<float> y(n * rows), alone(rows);
        k.matmul({w.view, together.view, n, y.data(), rows, nullptr, nullptr, 0, 0, rows});
        for (std::uint32_t r = 0; r < n; ++r) {
          const Acts one(k, format, 1, cols, {x.begin() + r * cols, x.begin() + (r + 1) * cols});
          k.matmul({w.view, one.view, 1, alone.data(), rows, nullptr, nullptr, 0, 0, rows});
          ASSERT_EQ(0, std::memcmp(alone.data(), y.data() + r * rows, rows * 4))
              << isa_name(isa) << " " << dtype_info(type).name << " format " << static_cast<int>(format)
              << " row " << r;
        }
      }
    }
  }
}

TEST(GateUp, MatchesTheReference) {
  for (const Isa isa : isas()) {
    const Kernels& k = kernels(isa);
    for (const ActFormat format : {ActFormat::f32, ActFormat::q8}) {
      for (const Gate act : {Gate::silu, Gate::gelu_tanh}) {
        const std::uint32_t rows = act == Gate::silu ? 80 : 86, cols = 256, n = 19;
        const auto biases = random_floats(2 * rows, 4, 1.0f);
        const bool biased = act == Gate::gelu_tanh;
        const float *gate_bias = biased ? biases.data() : nullptr,
                    *up_bias = biased ? gate_bias + rows : nullptr;
        const Weights gate(DType::Q4_K, rows, cols, 1), up(DType::Q6_K, rows, cols, 2);
        auto values = random_floats(n * cols, 3, 0.1f);
        const Acts x(k, format, n, cols, values);
        Buffer data(act_bytes(ActFormat::f32, n, rows));
        const ActView out{ActFormat::f32, rows, data.get()};
        k.gate_up({gate.view, up.view, x.view, n, act, out, 0, 64, gate_bias, up_bias});
        k.gate_up({gate.view, up.view, x.view, n, act, out, 64, rows, gate_bias, up_bias});
        std::vector<float> row(rows);
        for (std::uint32_t r = 0; r < n; ++r) {
          k.dequantize_act(out, r, row.data());
          for (std::uint32_t o = 0; o < rows; ++o) {
            double g, u, size;
            reference(up, x.exact, r, o, &u, &size);
            reference(gate, x.exact, r, o, &g, &size);
            if (biased) g += gate_bias[o], u += up_bias[o];
            const double t =
                act == Gate::silu
                    ? g / (1.0 + std::exp(-g))
                    : 0.5 * g * (1.0 + std::tanh(0.7978845608028654 * (g + 0.044715 * g * g * g)));
            ASSERT_NEAR(row[o], t * u, 2e-5 * (1.0 + std::fabs(t * u)))
                << isa_name(isa) << " " << r << "," << o;
          }
        }
      }
    }
  }
}

TEST(Activations, ErrorIsHalfAStepOfTheBlocksRange) {
  const std::uint32_t cols = 96;
  auto x = random_floats(cols, 9);
  for (std::uint32_t c = 32; c < 64; ++c) x[c] = 3.0f;  // no range at all
  for (const Isa isa : isas()) {
    const Acts a(kernels(isa), ActFormat::q8, 1, cols, x);
    for (std::uint32_t c = 0; c < cols; ++c) {
      const auto [low, high] = std::minmax_element(x.begin() + c / 32 * 32, x.begin() + c / 32 * 32 + 32);
      EXPECT_NEAR(a.exact[c], x[c], (*high - *low) / 254.0 * 0.501 + 1e-6);
    }
    const Acts zero(kernels(isa), ActFormat::q8, 1, cols, std::vector<float>(cols, 0.0f));
    EXPECT_THAT(zero.exact, ::testing::Each(0.0f));
  }
}

TEST(Activations, EveryIsaAgrees) {  // but for a fused multiply-add when reading back
  const std::uint32_t cols = 300;
  const auto x = random_floats(cols, 10);
  const Acts base(kernels(Isa::portable), ActFormat::q8, 1, cols, x);
  for (const Isa isa : isas())
    EXPECT_THAT(Acts(kernels(isa), ActFormat::q8, 1, cols, x).exact,
                ::testing::Pointwise(::testing::FloatNear(1e-6f), base.exact));
}

TEST(Elementwise, NormExpTanhRope) {
  const std::uint32_t n = 83;
  for (const Isa isa : isas()) {
    const Kernels& k = kernels(isa);
    const auto x = random_floats(n, 1, 3.0f), w = random_floats(n, 2);
    std::vector<float> y(n);
    k.rms_norm(x.data(), w.data(), 1e-5f, n, y.data());
    double mean = 0.0;
    for (const float v : x) mean += static_cast<double>(v) * v / n;
    for (std::uint32_t i = 0; i < n; ++i) EXPECT_NEAR(y[i], x[i] / std::sqrt(mean + 1e-5) * w[i], 1e-5);
    k.exp_sub(x.data(), 2.0f, n, y.data());
    for (std::uint32_t i = 0; i < n; ++i)
      EXPECT_NEAR(y[i] / std::exp(static_cast<double>(x[i]) - 2.0), 1.0, 3e-7);
    for (std::uint32_t i = 0; i < n; ++i) y[i] = x[i] * std::pow(10.0f, static_cast<float>(i % 7) - 4.0f);
    const auto before = y;
    k.softcap(30.0f, n, y.data());
    for (std::uint32_t i = 0; i < n; ++i) {
      const double t = 30.0 * std::tanh(static_cast<double>(before[i]) / 30.0);
      EXPECT_NEAR(y[i], t, 4e-7 * std::fabs(t) + 1e-12);
    }
    EXPECT_EQ(k.max(x.data(), n), *std::max_element(x.begin(), x.end()));
    EXPECT_EQ(k.argmax(x.data(), n), std::max_element(x.begin(), x.end()) - x.begin());
    const float far[16] = {-200.0f, -INFINITY, 0.0f};
    float e[16];
    k.exp_sub(far, 0.0f, 16, e);
    EXPECT_EQ(e[0], 0.0f);
    EXPECT_EQ(e[1], 0.0f);
    EXPECT_EQ(e[2], 1.0f);
  }
}

TEST(Rope, BothLayouts) {
  const std::uint32_t heads = 3, dim = 80, rot = 72;
  double inv_freq[36];
  rope_inv_freq({rot, 10000.0, 0.5}, nullptr, inv_freq);
  float angles[72];
  rope_angles(1234, inv_freq, 36, 1.5f, angles);
  const auto x = random_floats(heads * dim, 1);
  for (const Isa isa : isas()) {
    auto halves = x, adjacent = x;
    kernels(isa).rope_halves(halves.data(), heads, dim, rot, angles);
    kernels(isa).rope_adjacent(adjacent.data(), heads, dim, rot, angles);
    for (std::uint32_t h = 0; h < heads; ++h) {
      for (std::uint32_t i = 0; i < rot / 2; ++i) {
        const double t = 1234 * 0.5 * std::pow(10000.0, -2.0 * i / rot);
        const double c = 1.5 * std::cos(t), s = 1.5 * std::sin(t);
        const float *p = x.data() + h * dim + i, *q = x.data() + h * dim + 2 * i;
        EXPECT_NEAR(halves[h * dim + i], p[0] * c - p[rot / 2] * s, 1e-5);
        EXPECT_NEAR(halves[h * dim + i + rot / 2], p[0] * s + p[rot / 2] * c, 1e-5);
        EXPECT_NEAR(adjacent[h * dim + 2 * i], q[0] * c - q[1] * s, 1e-5);
        EXPECT_NEAR(adjacent[h * dim + 2 * i + 1], q[0] * s + q[1] * c, 1e-5);
      }
      for (std::uint32_t i = rot; i < dim; ++i) EXPECT_EQ(halves[h * dim + i], x[h * dim + i]);
    }
  }
}

TEST(Isa, UnknownOrMissingNamesAreErrors) {
  setenv("STEELYARD_CPU_ISA", "sse9", 1);
  EXPECT_THROW(choose_isa(), Error);
  setenv("STEELYARD_CPU_ISA", "portable", 1);
  EXPECT_EQ(choose_isa(), Isa::portable);
  unsetenv("STEELYARD_CPU_ISA");
  EXPECT_TRUE(isa_available(choose_isa()));
}

}  // namespace
}  // namespace steelyard::cpu
