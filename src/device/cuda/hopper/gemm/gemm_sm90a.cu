// Products with more than 64 rows, and the conversion of every such product's input.
#include "device/cuda/hopper/gemm/gemm.cuh"

namespace steelyard::cuda::hopper {
namespace {

constexpr int kConvertWarps = 16, kConvertRows = 8;

// 1 / rms of eight rows, two warps each.
__device__ inline void row_scales(const LinearArg& a, std::uint32_t first, std::uint32_t rows,
                                  float (&scales)[kConvertRows]) {
  __shared__ float partial[kConvertWarps];
  const std::uint32_t warp = threadIdx.x / 32, row = first + warp / 2;
  float sum = 0;
  if (row < rows) {
    const float4* x = reinterpret_cast<const float4*>(a.x + static_cast<std::uint64_t>(row) * a.cols);
#pragma unroll 8
    for (std::uint32_t i = warp % 2 * 32 + threadIdx.x % 32; i < a.cols / 4; i += 64) {
      const float4 v = __ldcg(x + i);
      sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
  }
  for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
  if (threadIdx.x % 32 == 0) partial[warp] = sum;
  __syncthreads();
  if (threadIdx.x < kConvertRows)
    scales[threadIdx.x] = rsqrtf((partial[2 * threadIdx.x] + partial[2 * threadIdx.x + 1]) / a.cols + a.eps);
  __syncthreads();
}

}  // namespace
}  // namespace steelyard::cuda::hopper

// The input of a product (GemmArg::x16) from floats, normed if the product has a norm. grid: (rows / 8,
// shares of the columns); a lane takes 16 columns of one row, so that a warp writes whole lines.
extern "C" __global__ void __launch_bounds__(512)
    gemm_input(const __grid_constant__ steelyard::cuda::hopper::LinearArg a, __half* x16,
               std::uint32_t tile) {
  using namespace steelyard::cuda::hopper;
  __shared__ float scales[kConvertRows];
  wait_for_predecessor();
  const std::uint32_t rows = a.outputs ? a.header->n_outputs : a.header->n_rows, first = blockIdx.x * 8;
  if (first >= rows) return;
  if (a.norm) row_scales(a, first, rows, scales);
  const std::uint32_t lane = threadIdx.x % 32, row = first + lane % 8;
  if (row >= rows) return;
  const float scale = a.norm ? scales[lane % 8] : 1.f;
  const float* x = a.x + static_cast<std::uint64_t>(row) * a.cols;
  __half* out = x16 + static_cast<std::uint64_t>(row / tile) * tile * a.cols + row % tile * 8;
  const std::uint32_t chunks = a.cols / kChunkCols, end = chunks * (blockIdx.y + 1) / gridDim.y;
  for (std::uint32_t c = chunks * blockIdx.y / gridDim.y + threadIdx.x / 32; c < end; c += kConvertWarps) {
    const std::uint32_t col = c * kChunkCols + lane / 8 * 16;
    float4 v[4];
#pragma unroll
    for (int i = 0; i < 4; i++) v[i] = __ldcg(reinterpret_cast<const float4*>(x + col) + i);
    std::uint32_t w[2][4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (a.norm) {
        const float4 f = __ldg(reinterpret_cast<const float4*>(a.norm + col) + i);
        v[i].x *= scale * f.x, v[i].y *= scale * f.y, v[i].z *= scale * f.z, v[i].w *= scale * f.w;
      }
      const auto clamp = [](float y) { return fminf(fmaxf(y, -65504.f), 65504.f); };
      w[0][i] = bits(__floats2half2_rn(clamp(v[i].x), clamp(v[i].y)));
      w[1][i] = bits(__floats2half2_rn(clamp(v[i].z), clamp(v[i].w)));
    }
#pragma unroll
    for (int h = 0; h < 2; h++)
      *reinterpret_cast<uint4*>(out + (static_cast<std::uint64_t>(col / 8) + h) * tile * 8) =
          make_uint4(w[h][0], w[h][1], w[h][2], w[h][3]);
  }
}

STEELYARD_ROWS(gemm_128_4, 128, 4, 1)
STEELYARD_ROWS(gemm_128_2, 128, 2, 1)
