// Per-head norm and rotation (RopeSpec in program/program.h).
#pragma once

#include "device/cuda/general/args.h"

namespace steelyard::cuda {

// Norm and rotation of one head by one warp; `head` lies in shared memory.
__device__ inline void norm_and_rotate(float* head, std::uint32_t dim, const float* norm, float eps,
                                       const RopeArg& rope, std::uint32_t row) {
  const std::uint32_t lane = threadIdx.x % 32;
  if (norm) {
    float sum = 0;
    for (std::uint32_t i = lane; i < dim; i += 32) sum += head[i] * head[i];
    for (int i = 16; i > 0; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    const float scale = 1.0f / sqrtf(sum / static_cast<float>(dim) + eps);
    for (std::uint32_t i = lane; i < dim; i += 32) head[i] = head[i] * scale * norm[i];
    __syncwarp();
  }
  if (!rope.cos_sin) return;
  const std::uint32_t half = rope.n_rot / 2;
  const float* table = rope.cos_sin + static_cast<std::uint64_t>(row) * rope.n_rot;
  for (std::uint32_t i = lane; i < half; i += 32) {
    const std::uint32_t a = rope.halves ? i : 2 * i, b = rope.halves ? i + half : 2 * i + 1;
    const float c = table[2 * i], s = table[2 * i + 1], x = head[a], y = head[b];
    head[a] = x * c - y * s;
    head[b] = x * s + y * c;
  }
  __syncwarp();
}

}  // namespace steelyard::cuda
