// Products with 2 to 8 rows on the CPU (emulation/), against plain ones: what the kernels compute, and in a
// build with a sanitizer how their warps share memory.
#include <gtest/gtest.h>

#include "base/dtype.h"
#include "device/cuda/emulation/matrix.h"
// The kernels themselves; their headers find CUDA's and common/ptx.cuh in emulation/.
#include "device/cuda/hopper/gemv/gemv_sm90a.cu"

namespace {

using namespace steelyard::cuda;
using namespace steelyard::cuda::hopper;
using emulation::Aligned;
using emulation::Matrix;
using emulation::Vector;

struct Case {
  const char* name;
  std::uint32_t rows, cols, outputs, blocks, span;  // span: units of the input at a time
  bool norm = false;
  Epilogue epilogue = Epilogue::store;
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

class GemvShapesTest : public ::testing::TestWithParam<Case> {};

TEST_P(GemvShapesTest, IsTheProduct) {
  const Case& c = GetParam();
  if (!emulation::has_threads(c.blocks * kThreads))
    GTEST_SKIP() << "needs " << c.blocks * kThreads << " threads, more than the system gives";
  const bool paired = c.epilogue == Epilogue::gate_up;
  const std::uint32_t max_rows = kGemvRows;
  const Matrix first(c.outputs, c.cols), second(paired ? c.outputs : 100, c.cols);
  Aligned<float> x(c.rows * c.cols), norm(c.cols), bias(c.outputs), y(c.rows * c.outputs), z(c.rows * 100),
      residual(c.rows * c.outputs);
  for (std::uint32_t i = 0; i < c.rows * c.cols; i++) x[i] = emulation::normal();
  for (std::uint32_t i = 0; i < c.cols; i++) norm[i] = 1 + 0.1f * emulation::normal();
  for (std::uint32_t i = 0; i < c.outputs; i++) bias[i] = emulation::normal();
  for (std::uint32_t i = 0; i < c.rows * c.outputs; i++) residual[i] = emulation::normal(), y[i] = NAN;
  Aligned<std::uint8_t> x16(kGemvInputBytes(units_of(c.cols), max_rows));
  Aligned<std::uint8_t> y16(kGemvInputBytes(units_of(c.outputs), max_rows));
  StepHeader header{c.rows, 1, 1, 1, 0, {}};

  LinearArg a{};
  a.segments[0] = first.segment(y.data()), a.segments[0].bias = bias.data();
  a.segments[1] = second.segment(paired ? nullptr : z.data());
  a.n_segments = c.epilogue == Epilogue::residual ? 1 : 2, a.epilogue = c.epilogue;
  a.x = x.data(), a.norm = c.norm ? norm.data() : nullptr, a.residual = residual.data(), a.header = &header;
  a.eps = 1e-5f, a.cols = c.cols, a.x16 = x16.data(), a.y16 = paired ? y16.data() : nullptr,
  a.max_rows = max_rows, a.unit_span = c.span;
  for (int i = 0; i < (paired ? 1 : a.n_segments); i++) a.groups += a.segments[i].groups;
  a.ring_bytes = unit_bytes(kF16) * 5 / 2;
  emulation::launch({c.rows, c.norm ? 1u : 2u, 1}, kThreads, 0, [&] { gemv_input(a); });
  const std::size_t bytes = kGemvSharedBytes(max_rows, c.span, a.ring_bytes);
  emulation::launch({c.blocks, 1, 1}, kThreads, bytes, [&] { gemv_8(a); });

  double error = 0, size = 0;
  for (std::uint32_t row = 0; row < c.rows; row++) {
    Vector in(c.cols);
    double squares = 0;
    for (std::uint32_t i = 0; i < c.cols; i++) in[i] = x[row * c.cols + i], squares += in[i] * in[i];
    if (c.norm)
      for (std::uint32_t i = 0; i < c.cols; i++) in[i] *= norm[i] / std::sqrt(squares / c.cols + 1e-5);
    const Vector products = first * in, others = second * in;
    const auto compare = [&](float got, double want) {
      error += (got - want) * (got - want), size += want * want;
    };
    for (std::uint32_t o = 0; o < c.outputs; o++) {
      double want = products[o] + bias[o];
      if (paired) want *= others[o] / (1 + std::exp(-want));
      if (c.epilogue == Epilogue::residual) want += residual[row * c.outputs + o];
      compare(y[row * c.outputs + o], want);
    }
    if (a.n_segments == 2 && !paired)
      for (std::uint32_t o = 0; o < 100; o++) compare(z[row * 100 + o], others[o]);
  }
  EXPECT_LT(std::sqrt(error / size), 1e-3);  // inputs in halves
  if (!paired) return;
  const GemvInput passed(y16.data(), units_of(c.outputs), max_rows);
  for (std::uint32_t row = 0; row < c.rows; row++)
    for (std::uint32_t o = 0; o < c.outputs; o += 16) {
      float sum = 0;
      for (std::uint32_t i = o; i < o + 16; i++) {
        const float half = static_cast<float>(emulation::half_of(passed, row, i));
        EXPECT_EQ(half, emulation::rounded(y[row * c.outputs + i])) << "row " << row << ", output " << i;
        sum += half;
      }
      EXPECT_NEAR(passed.sums[o / 16 * 8 + row], sum, 1e-4);
    }
}

INSTANTIATE_TEST_SUITE_P(
    Emulated, GemvShapesTest,
    ::testing::Values(Case{"norm_two_segments", 5, 320, 300, 2, 2, true},
                      Case{"columns_in_phases", 5, 1344, 170, 2, 2, false, Epilogue::residual},
                      Case{"eight_rows", 8, 256, 100, 2, 1, true},
                      Case{"two_rows_gate_up", 2, 512, 608, 2, 2, true, Epilogue::gate_up}),
    [](const auto& info) { return std::string(info.param.name); });

// Every type's products, with one row and with eight.
class GemvTypesTest : public ::testing::TestWithParam<int> {};

TEST_P(GemvTypesTest, OneRowAndEight) {
  const int type = GetParam();
  constexpr std::uint32_t kOutputs = 72, kBlocks = 2;
  const std::uint32_t cols = is_super(type) ? 768 : 704, units = units_of(cols);
  const Matrix matrix(kOutputs, cols, type);
  for (const std::uint32_t rows : {1u, kGemvRows}) {
    Aligned<float> x(rows * cols), y(rows * kOutputs);
    for (std::uint32_t i = 0; i < rows * cols; i++) x[i] = emulation::rounded(emulation::normal());
    Aligned<std::uint8_t> x16(kGemvInputBytes(units, rows));
    StepHeader header{rows, 1, 1, 1, 0, {}};
    LinearArg a{};
    a.segments[0] = matrix.segment(y.data()), a.n_segments = 1, a.groups = a.segments[0].groups;
    a.x = x.data(), a.header = &header, a.cols = cols, a.x16 = x16.data(), a.max_rows = rows,
    a.unit_span = units;
    a.ring_bytes = (unit_bytes(type) * 2 + 127) / 128 * 128;
    const std::size_t bytes = kGemvSharedBytes(rows, units, a.ring_bytes);
    if (rows > 1) emulation::launch({rows, 1, 1}, kThreads, 0, [&] { gemv_input(a); });
    emulation::launch({kBlocks, 1, 1}, kThreads, bytes, [&] { rows == 1 ? gemv_1(a) : gemv_8(a); });
    for (std::uint32_t row = 0; row < rows; row++) {
      const Vector want = matrix * Vector(x.data() + row * cols, x.data() + (row + 1) * cols);
      for (std::uint32_t o = 0; o < kOutputs; o++)
        EXPECT_NEAR(y[row * kOutputs + o], want[o], 2e-4) << rows << " rows, row " << row << ", output " << o;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Emulated, GemvTypesTest,
                         ::testing::Values(kF16, kQ4_0, kQ4_1, kQ5_0, kQ5_1, kQ8_0, kQ4_K, kQ5_K, kQ6_K,
                                           kBF16, kMXFP4),
                         [](const auto& info) {
                           return std::string(
                               steelyard::dtype_info(static_cast<steelyard::DType>(info.param)).name);
                         });

// The scales that several rows share are those of sub_scale() to the bit.
template <int T>
void expect_same_scales() {
  std::vector<std::uint32_t> unit(unit_bytes(T) / 4);
  for (int repeat = 0; repeat < 20; repeat++) {
    for (std::uint32_t& word : unit) word = emulation::random_bits();
    auto* bytes = reinterpret_cast<std::uint8_t*>(unit.data());
    auto* halves = reinterpret_cast<_Float16*>(bytes);  // of d, and of d and dmin, ordinary numbers
    for (int row = 0; row < 16; row++)
      for (int i = 0; i < (T == kQ6_K ? 1 : 2); i++)
        halves[T == kQ6_K ? row : row * 8 + i] = static_cast<_Float16>(emulation::normal());
    for (int g = 0; g < 8; g++)
      for (int i = 0; i < 16; i++) {
        const int chunk = i / 4, sub = i / 2 % 2, r = i % 2;
        const SubScale want = sub_scale<T>(bytes, g + 8 * r, 2 * chunk + sub);
        const float2 got = UnitScales<T>(bytes, g).at(chunk, sub, r);
        const float unit_of_code = T == kQ6_K ? 1 : code_unit<T>(sub);
        EXPECT_EQ(got.x, want.d * unit_of_code);
        EXPECT_EQ(got.y, T == kQ6_K ? want.d16 : want.m);
      }
  }
}
TEST(GemvTest, ScalesAreExact) {
  expect_same_scales<kQ4_K>();
  expect_same_scales<kQ5_K>();
  expect_same_scales<kQ6_K>();
}

}  // namespace
