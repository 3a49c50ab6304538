// Reading and writing a page of KV state (layout: KvView).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/common/device_step.h"

namespace steelyard::cuda {

// Positions [begin, end) that a row at `position` attends to; window 0: none.
struct Keys {
  std::uint32_t begin, end;
};
__device__ inline Keys keys_of(std::uint32_t position, std::uint32_t window) {
  return {window && position + 1 > window ? position + 1 - window : 0, position + 1};
}

// Id of the page that holds tokens [index * kPageTokens, …) of a sequence; -1: not there.
__device__ inline std::int32_t kv_page(const StepView& step, const KvView& kv, std::uint32_t sequence,
                                       std::uint32_t index) {
  const std::uint64_t table = static_cast<std::uint64_t>(kv.group) * step.header->n_sequences + sequence;
  return step.block_tables[table * step.header->table_stride + index];
}

// The values of one head and token: where they start, and for Q8_0 their scales.
struct KvAddress {
  std::uint8_t* values;
  __half* scales;
};

__device__ inline KvAddress kv_address(const KvView& kv, std::int32_t page, bool is_v, std::uint32_t head,
                                       std::uint32_t token) {
  std::uint8_t* base = reinterpret_cast<std::uint8_t*>(kv.base + page * kv.page_bytes);
  const std::uint32_t dim = is_v ? kv.head_dim_v : kv.head_dim_k;
  const std::uint32_t element = kv.type == 0 ? 4 : kv.type == 1 ? 2 : 1;
  const std::uint64_t index = static_cast<std::uint64_t>(head) * kPageTokens + token;
  return {
      base + (is_v ? kv.v_offset : 0) + index * dim * element,
      reinterpret_cast<__half*>(base + (is_v ? kv.v_scale_offset : kv.k_scale_offset)) + index * (dim / 32)};
}

__device__ inline float kv_load(const KvView& kv, const KvAddress& at, std::uint32_t i) {
  if (kv.type == 1) return __half2float(reinterpret_cast<const __half*>(at.values)[i]);
  if (kv.type == 0) return reinterpret_cast<const float*>(at.values)[i];
  return static_cast<float>(reinterpret_cast<const std::int8_t*>(at.values)[i]) *
         __half2float(at.scales[i / 32]);
}

// One warp writes one head of one token; `head` holds head_dim floats. Q8_0: d = max|x| / 127 rounded to
// half, codes round(x * 127 / max|x|).
__device__ inline void kv_store(const KvView& kv, std::int32_t page, bool is_v, std::uint32_t head_index,
                                std::uint32_t token, const float* head) {
  const KvAddress at = kv_address(kv, page, is_v, head_index, token);
  const std::uint32_t dim = is_v ? kv.head_dim_v : kv.head_dim_k, lane = threadIdx.x % 32;
  for (std::uint32_t first = 0; first < dim; first += 32) {
    const std::uint32_t i = first + lane;
    const float x = i < dim ? head[i] : 0.0f;
    if (kv.type == 0) {
      if (i < dim) reinterpret_cast<float*>(at.values)[i] = x;
    } else if (kv.type == 1) {
      if (i < dim) reinterpret_cast<__half*>(at.values)[i] = __float2half_rn(x);
    } else {
      float most = fabsf(x);
      for (int j = 16; j > 0; j /= 2) most = fmaxf(most, __shfl_xor_sync(~0u, most, j));
      const float d = most / 127.0f;
      const float inverse = d > 0 ? 1.0f / d : 0.0f;
      reinterpret_cast<std::int8_t*>(at.values)[i] = static_cast<std::int8_t>(rintf(x * inverse));
      if (lane == 0) at.scales[first / 32] = __float2half_rn(d);
    }
  }
}

}  // namespace steelyard::cuda
