// Products with many rows on the CPU (emulation/), against plain ones: conversion of the input, rings, codes
// expanded to halves, warpgroup products. Not emulated: clusters, the norm in the conversion.
#include <gtest/gtest.h>

#include "base/dtype.h"
#include "device/cuda/emulation/matrix.h"
// The kernels themselves; their headers find CUDA's, common/ptx.cuh and hopper/gemm/wgmma.cuh in emulation/.
#include "device/cuda/hopper/gemm/gemm_9_64_sm90a.cu"
#include "device/cuda/hopper/gemm/gemm_sm90a.cu"

namespace {

using namespace steelyard::cuda;
using namespace steelyard::cuda::hopper;
using emulation::Aligned;
using emulation::Matrix;
using emulation::Vector;

struct Kernel {
  const char* name;
  void (*run)(LinearArg, GemmArg);
  std::uint32_t rows, wide, deep;  // of a tile; warpgroups side by side and over the columns
  std::uint32_t warpgroups() const { return wide * deep; }
};
const Kernel kRows16{"rows_16_1", gemm_16_1, 16, 1, 4}, kRows32{"rows_32_2", gemm_32_2, 32, 2, 2},
    kRows64{"rows_64_4", gemm_64_4, 64, 4, 1}, kRows128{"rows_128_2", gemm_128_2, 128, 2, 1};

struct Case {
  const Kernel* kernel;
  int type;
  std::uint32_t rows, cols, outputs;
  Epilogue epilogue = Epilogue::store;
};
std::string name_of(const Case& c) {
  return std::string(c.kernel->name) + "_" +
         std::string(steelyard::dtype_info(static_cast<steelyard::DType>(c.type)).name);
}
void PrintTo(const Case& c, std::ostream* out) { *out << name_of(c); }

class GemmTest : public ::testing::TestWithParam<Case> {};

TEST_P(GemmTest, IsTheProduct) {
  const Case& c = GetParam();
  const bool paired = c.epilogue == Epilogue::gate_up;
  const unsigned threads = c.kernel->warpgroups() * 128 + 128;
  if (!emulation::has_threads(2 * threads)) GTEST_SKIP() << "needs more threads than the system gives";
  const Matrix first(c.outputs, c.cols, c.type), second(c.outputs, c.cols, c.type);
  Aligned<float> x(c.rows * c.cols), y(c.rows * c.outputs), residual(c.rows * c.outputs);
  for (std::uint32_t i = 0; i < c.rows * c.cols; i++) x[i] = emulation::normal();
  for (std::uint32_t i = 0; i < c.rows * c.outputs; i++) residual[i] = emulation::normal(), y[i] = NAN;
  StepHeader header{c.rows, 1, 1, 1, 0, {}};
  LinearArg a{};
  a.segments[0] = first.segment(y.data()), a.segments[1] = second.segment(nullptr);
  a.n_segments = paired ? 2 : 1, a.groups = a.segments[0].groups, a.epilogue = c.epilogue;
  a.x = x.data(), a.residual = residual.data(), a.header = &header;
  a.cols = c.cols;
  const Kernel& k = *c.kernel;
  const std::uint32_t groups = a.groups * (paired ? 2 : 1);
  GemmArg m{};
  m.splits = 1, m.stages = 3;  // so that the ring goes round
  m.row_tiles = (c.rows + k.rows - 1) / k.rows;
  m.tiles = m.row_tiles * ((groups + 4 * k.wide - 1) / (4 * k.wide));
  const std::uint32_t bytes = place_ring(m, k.rows, k.wide, k.deep, chunk_bytes(c.type),
                                         unit_bytes(c.type) - 4 * chunk_bytes(c.type));
  Aligned<_Float16> x16(m.row_tiles * c.kernel->rows * c.cols);
  m.x16 = x16.data();
  emulation::launch({(c.rows + 7) / 8, 1, 1}, 512, 0,
                    [&] { gemm_input(a, reinterpret_cast<__half*>(x16.data()), c.kernel->rows); });
  emulation::launch({2, 1, 1}, threads, bytes, [&] { c.kernel->run(a, m); });

  double error = 0, size = 0;
  for (std::uint32_t row = 0; row < c.rows; row++) {
    const Vector in(x.data() + row * c.cols, x.data() + (row + 1) * c.cols);
    const Vector products = first * in, others = paired ? second * in : Vector(c.outputs);
    for (std::uint32_t o = 0; o < c.outputs; o++) {
      double want = products[o];
      if (paired) want *= others[o] / (1 + std::exp(-want));
      if (c.epilogue == Epilogue::residual) want += residual[row * c.outputs + o];
      error += std::pow(y[row * c.outputs + o] - want, 2), size += want * want;
    }
  }
  EXPECT_LT(std::sqrt(error / size), 2e-3);  // weights and inputs in halves
}

INSTANTIATE_TEST_SUITE_P(
    Emulated, GemmTest,
    ::testing::Values(Case{&kRows16, kF16, 9, 704, 100}, Case{&kRows16, kQ4_0, 9, 704, 100},
                      Case{&kRows16, kQ4_1, 9, 704, 100}, Case{&kRows16, kQ5_0, 9, 704, 100},
                      Case{&kRows16, kQ5_1, 9, 704, 100}, Case{&kRows16, kQ8_0, 9, 704, 100},
                      Case{&kRows16, kQ4_K, 9, 768, 100}, Case{&kRows16, kQ5_K, 9, 768, 100},
                      Case{&kRows16, kQ6_K, 9, 768, 100}, Case{&kRows16, kBF16, 9, 704, 100},
                      Case{&kRows16, kMXFP4, 9, 704, 100},
                      Case{&kRows32, kQ4_K, 20, 512, 170, Epilogue::gate_up},
                      Case{&kRows64, kQ6_K, 50, 512, 300, Epilogue::residual},
                      Case{&kRows128, kQ4_K, 140, 256, 200}),
    [](const auto& info) { return name_of(info.param); });

}  // namespace
