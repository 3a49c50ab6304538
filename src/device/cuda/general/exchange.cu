// What tensor ranks trade in the middle of a step (device/link.h): partial sums, and the logits' columns.
// Giving and taking are kernels of their own, so that what a rank waits for never waits behind this rank's
// waiting blocks.
#include "device/cuda/common/ptx.cuh"
#include "device/cuda/general/args.h"

using namespace steelyard::cuda;

namespace {

constexpr std::uint32_t kThreads = kExchangeThreads;

__device__ std::uint32_t exchanged_rows(const RowsArg& rows) {
  return rows.outputs ? rows.header->n_outputs : rows.header->n_rows;
}

__device__ std::uint64_t exchange_number(const ExchangeArg& e, const StepHeader* header) {
  const std::uint64_t step = static_cast<std::uint64_t>(header->number_high) << 32 | header->number_low;
  return step * e.uses + e.turn;
}

__device__ std::uint64_t row_offset(const ExchangeArg& e, std::uint64_t number, std::uint32_t writer,
                                    std::uint32_t row, std::uint32_t stride) {
  return number % e.turns * e.turn_floats + writer * e.writer_floats +
         static_cast<std::uint64_t>(row) * stride;
}

__device__ std::uint64_t count_index(const ExchangeArg& e, std::uint32_t writer, std::uint32_t row,
                                     std::uint32_t chunk) {
  return (static_cast<std::uint64_t>(writer) * e.most_rows + row) * e.chunks + chunk;
}

// Until every other rank has given its part of the row, or the step is given up.
__device__ void wait_for_ranks(const ExchangeArg& e, std::uint32_t row, std::uint64_t count) {
  for (std::uint32_t i = threadIdx.x; i < e.writers * e.chunks; i += kThreads) {
    const std::uint32_t writer = i / e.chunks;
    if (writer == e.rank) continue;
    const std::uint64_t* sent = e.mine.sent + count_index(e, writer, row, i % e.chunks);
    for (std::uint32_t looks = 1; hopper::load_count(sent) < count; ++looks)
      if (looks % 1024 == 0 && hopper::load_flag(e.abort) != 0) break;
  }
  __syncthreads();
}

// Of the columns [begin, end) those of this thread, a few loads on their way at once.
template <typename Load, typename Store>
__device__ void each_column(std::uint32_t begin, std::uint32_t end, Load load, Store store) {
  constexpr int kBatch = 8;
  for (std::uint32_t first = begin + threadIdx.x; first < end; first += kBatch * kThreads) {
    float v[kBatch] = {};
#pragma unroll
    for (int k = 0; k < kBatch; k++)
      if (first + k * kThreads < end) v[k] = load(first + k * kThreads);
#pragma unroll
    for (int k = 0; k < kBatch; k++)
      if (first + k * kThreads < end) store(first + k * kThreads, v[k]);
  }
}

// A block's share of a row of `width`: all of it, or one of the link's chunks.
__device__ std::uint32_t chunk_begin(const ExchangeArg& e, std::uint32_t width) {
  return e.chunks == 1 ? 0 : min(width, blockIdx.y * kExchangeColumns);
}
__device__ std::uint32_t chunk_end(const ExchangeArg& e, std::uint32_t width) {
  return e.chunks == 1 ? width : min(width, (blockIdx.y + 1) * kExchangeColumns);
}

// Sum over the block's threads, the same on all; one fixed order.
__device__ float sum_of_block(float value) {
  auto* partial = reinterpret_cast<float*>(hopper::static_shared<kThreads / 32 * sizeof(float)>());
  for (int i = 16; i > 0; i /= 2) value += __shfl_xor_sync(~0u, value, i);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (std::uint32_t i = 0; i < kThreads / 32; ++i) sum += partial[i];
  return sum;
}

}  // namespace

// grid: (rows or outputs, chunks). Gives row [width] of `in` to every reader, at column `first` of rows of
// `stride`.
extern "C" __global__ void __launch_bounds__(kThreads)
    general_give(ExchangeArg e, const float* in, std::uint32_t width, std::uint32_t first,
                 std::uint32_t stride, RowsArg rows) {
  const std::uint32_t row = blockIdx.x;
  if (row >= exchanged_rows(rows)) return;
  const std::uint64_t number = exchange_number(e, rows.header);
  const std::uint64_t to = row_offset(e, number, e.rank, row, stride) + first;
  in += static_cast<std::uint64_t>(row) * width;
  for (std::uint32_t reader = 0; reader < e.readers; ++reader)
    each_column(
        chunk_begin(e, width), chunk_end(e, width), [&](std::uint32_t i) { return in[i]; },
        [&](std::uint32_t i, float v) { e.to[reader].rows[to + i] = v; });
  __syncthreads();
  if (threadIdx.x < e.readers)
    hopper::store_count(e.to[threadIdx.x].sent + count_index(e, e.rank, row, blockIdx.y), number + 1);
}

// grid: rows. out = residual + norm(Σ over ranks + bias); `partial` is this rank's, and used up. What is
// nullptr is left out.
extern "C" __global__ void __launch_bounds__(kThreads)
    general_sum(ExchangeArg e, float* partial, const float* bias, const float* norm, float eps,
                const float* residual, std::uint32_t width, float* out, RowsArg rows) {
  const std::uint32_t row = blockIdx.x;
  if (row >= exchanged_rows(rows)) return;
  const std::uint64_t number = exchange_number(e, rows.header);
  wait_for_ranks(e, row, number + 1);
  const std::uint64_t at = static_cast<std::uint64_t>(row) * width;
  const auto of_writer = [&](std::uint32_t w, std::uint32_t i) {
    if (w == e.rank) return partial[at + i];
    return hopper::load_given(e.mine.rows + row_offset(e, number, w, row, width) + i);
  };
  float squares = 0;
  each_column(
      0, width,
      [&](std::uint32_t i) {
        float sum = of_writer(0, i);
        for (std::uint32_t w = 1; w < e.writers; ++w) sum += of_writer(w, i);
        return sum;
      },
      [&](std::uint32_t i, float sum) {
        if (bias) sum += bias[i];
        partial[at + i] = sum;
        squares += sum * sum;
      });
  const float scale = norm ? 1.0f / sqrtf(sum_of_block(squares) / static_cast<float>(width) + eps) : 1.0f;
  for (std::uint32_t i = threadIdx.x; i < width; i += kThreads) {
    const float sum = norm ? partial[at + i] * scale * norm[i] : partial[at + i];
    out[at + i] = residual ? residual[at + i] + sum : sum;
  }
}

// grid: (outputs, chunks). out = the row [width] that all ranks have filled.
extern "C" __global__ void __launch_bounds__(kThreads)
    general_take(ExchangeArg e, std::uint32_t width, float* out, RowsArg rows) {
  const std::uint32_t row = blockIdx.x;
  if (row >= exchanged_rows(rows)) return;
  const std::uint64_t number = exchange_number(e, rows.header);
  wait_for_ranks(e, row, number + 1);
  const float* from = e.mine.rows + row_offset(e, number, 0, row, width);
  out += static_cast<std::uint64_t>(row) * width;
  each_column(
      chunk_begin(e, width), chunk_end(e, width),
      [&](std::uint32_t i) { return hopper::load_given(from + i); },
      [&](std::uint32_t i, float v) { out[i] = v; });
}
