// Attention computed plainly over KV pages, for tests of kernels on the CPU (emulation.h).
#pragma once

#include <cmath>

#include "device/cuda/common/device_step.h"
#include "device/cuda/emulation/matrix.h"

namespace emulation {

// Pages of one layer's state in f16 with random contents, as KvView has them.
struct Pages {
  steelyard::cuda::KvView view{};
  Aligned<_Float16> halves{0};

  Pages(std::uint32_t kv_heads, std::uint32_t head_dim, std::size_t n_pages) {
    view.type = 1, view.n_kv_heads = kv_heads, view.head_dim_k = view.head_dim_v = head_dim;
    view.v_offset = kv_heads * steelyard::cuda::kPageTokens * head_dim * 2,
    view.page_bytes = 2 * view.v_offset;
    const std::size_t n = n_pages * view.page_bytes / 2;
    halves = Aligned<_Float16>(n);
    for (std::size_t i = 0; i < n; i++) halves[i] = static_cast<_Float16>(normal());
    view.base = reinterpret_cast<std::uint64_t>(halves.data());
  }
  // Column d of a head's key or value; table: the sequence's pages.
  double at(const std::int32_t* table, bool value, std::uint32_t token, std::uint32_t head,
            std::uint32_t d) const {
    using steelyard::cuda::kPageTokens;
    const std::size_t page =
        table[token / kPageTokens] * (view.page_bytes / 2) + (value ? view.v_offset / 2 : 0);
    return static_cast<double>(
        halves[page + (head * kPageTokens + token % kPageTokens) * view.head_dim_k + d]);
  }
};

struct Query {
  const std::int32_t* table;
  std::uint32_t position, kv_head, window;
  double scale, softcap = 0;
  double sum = 0;  // of weights that have no value: a sink's
};

// The head's result for query values q[0 .. head_dim).
template <typename T>
Vector attend(const Pages& pages, const Query& query, const T* q) {
  const std::uint32_t dim = pages.view.head_dim_k, end = query.position + 1;
  Vector result(dim);
  double sum = query.sum;
  for (std::uint32_t t = query.window && end > query.window ? end - query.window : 0; t < end; t++) {
    double score = 0;
    for (std::uint32_t d = 0; d < dim; d++)
      score += double{q[d]} * pages.at(query.table, false, t, query.kv_head, d) * query.scale;
    if (query.softcap > 0) score = query.softcap * std::tanh(score / query.softcap);
    const double weight = std::exp(score);
    sum += weight;
    for (std::uint32_t d = 0; d < dim; d++)
      result[d] += weight * pages.at(query.table, true, t, query.kv_head, d);
  }
  for (double& v : result) v /= sum;
  return result;
}

}  // namespace emulation
