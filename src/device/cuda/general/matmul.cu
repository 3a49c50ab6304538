// General matrix products: y[r][o] = sum over c of W[o][c] * x[r][c] (+ bias[o]), float throughout, any type.
#include "device/cuda/common/dequant.cuh"
#include "device/cuda/general/args.h"

using namespace steelyard::cuda;

namespace {

constexpr std::uint32_t kRows = 8;  // activation rows a warp holds

__device__ std::uint32_t row_count(const RowsArg& rows) {
  return rows.outputs ? rows.header->n_outputs : rows.header->n_rows;
}

}  // namespace

// One warp an output, kRows rows a warp; lane l takes blocks l, l + 32, … of 32 columns, then a butterfly
// adds the lanes: the order of additions depends on `cols` alone, so a row's bits don't depend on its
// neighbours. grid: (⌈outputs / 8⌉, ⌈rows / kRows⌉), 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    general_matmul(MatrixArg w, const float* x, const float* bias, float* y, RowsArg rows) {
  const std::uint32_t n = row_count(rows), first = blockIdx.y * kRows, lane = threadIdx.x % 32;
  const std::uint32_t o = blockIdx.x * 8 + threadIdx.x / 32;
  if (first >= n || o >= w.rows) return;
  const std::uint32_t count = min(kRows, n - first);
  float sums[kRows] = {};
  for (std::uint32_t block = lane; block * 32 < w.cols; block += 32) {
    float values[32];
    load32(w, o, block, values);
    const std::uint32_t columns = min(32u, w.cols - block * 32);
#pragma unroll
    for (std::uint32_t r = 0; r < kRows; ++r) {
      if (r >= count) break;
      const float* a = x + static_cast<std::uint64_t>(first + r) * w.cols + block * 32;
      float sum = sums[r];
      if (columns == 32) {
#pragma unroll
        for (int i = 0; i < 32; ++i) sum = fmaf(values[i], a[i], sum);
      } else {
        for (std::uint32_t i = 0; i < columns; ++i) sum = fmaf(values[i], a[i], sum);
      }
      sums[r] = sum;
    }
  }
#pragma unroll
  for (std::uint32_t r = 0; r < kRows; ++r) {
    if (r >= count) break;
    float sum = sums[r];
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    if (lane == 0) y[static_cast<std::uint64_t>(first + r) * w.rows + o] = bias ? sum + bias[o] : sum;
  }
}

// Many rows: 64 outputs x 64 rows a block, 32 columns at a time through shared memory, 4 x 4 results a
// thread. grid: (⌈outputs / 64⌉, ⌈rows / 64⌉), 256 threads.
extern "C" __global__ void __launch_bounds__(256)
    general_matmul_tile(MatrixArg w, const float* x, const float* bias, float* y, RowsArg rows) {
  __shared__ __align__(16) float weights[32][68], inputs[32][68];
  const std::uint32_t n = row_count(rows), first_row = blockIdx.y * 64, first_output = blockIdx.x * 64;
  if (first_row >= n) return;
  const std::uint32_t tx = threadIdx.x % 16, ty = threadIdx.x / 16;
  float sums[4][4] = {};
  for (std::uint32_t block = 0; block * 32 < w.cols; ++block) {
    __syncthreads();
    if (threadIdx.x < 64) {
      float values[32] = {};
      if (first_output + threadIdx.x < w.rows) load32(w, first_output + threadIdx.x, block, values);
#pragma unroll
      for (int i = 0; i < 32; ++i) weights[i][threadIdx.x] = values[i];
    } else {
      for (std::uint32_t i = threadIdx.x - 64; i < 64 * 32; i += 192) {
        const std::uint32_t r = first_row + i / 32, c = block * 32 + i % 32;
        inputs[i % 32][i / 32] = r < n && c < w.cols ? x[static_cast<std::uint64_t>(r) * w.cols + c] : 0.0f;
      }
    }
    __syncthreads();
#pragma unroll 8
    for (int c = 0; c < 32; ++c) {
      const float4 a = *reinterpret_cast<const float4*>(&inputs[c][4 * ty]);
      const float4 b = *reinterpret_cast<const float4*>(&weights[c][4 * tx]);
      const float as[4] = {a.x, a.y, a.z, a.w}, bs[4] = {b.x, b.y, b.z, b.w};
#pragma unroll
      for (int i = 0; i < 4; ++i)
#pragma unroll
        for (int j = 0; j < 4; ++j) sums[i][j] = fmaf(as[i], bs[j], sums[i][j]);
    }
  }
  for (int i = 0; i < 4; ++i)
    for (int j = 0; j < 4; ++j) {
      const std::uint32_t r = first_row + 4 * ty + i, o = first_output + 4 * tx + j;
      if (r < n && o < w.rows)
        y[static_cast<std::uint64_t>(r) * w.rows + o] = bias ? sums[i][j] + bias[o] : sums[i][j];
    }
}
