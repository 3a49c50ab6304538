// General kernels of one row at a time: embedding, norms, rotation and append, residual, activations.
#include "device/cuda/common/dequant.cuh"
#include "device/cuda/common/kv.cuh"
#include "device/cuda/common/rope.cuh"
#include "device/cuda/general/args.h"

using namespace steelyard::cuda;

namespace {

__device__ std::uint32_t row_count(const RowsArg& rows) {
  return rows.outputs ? rows.header->n_outputs : rows.header->n_rows;
}

// Sum over the block's 256 threads, the same on all; one fixed order.
__device__ float block_sum(float value) {
  __shared__ float partial[8];
  for (int i = 16; i > 0; i /= 2) value += __shfl_xor_sync(~0u, value, i);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0;
  for (int i = 0; i < 8; ++i) sum += partial[i];
  return sum;
}

__device__ float norm_scale(const float* x, std::uint32_t width, float eps) {
  float sum = 0;
  for (std::uint32_t i = threadIdx.x; i < width; i += 256) sum += x[i] * x[i];
  return 1.0f / sqrtf(block_sum(sum) / static_cast<float>(width) + eps);
}

}  // namespace

// grid: rows. The table holds tokens from `first` on. One outside of it gives `outside`: of a rank's piece 0,
// as it is another's; of the whole NaN and not some other token's values, since the host refuses it before a
// launch.
extern "C" __global__ void __launch_bounds__(256)
    general_embed(MatrixArg table, StepView step, float scale, std::uint32_t first, float outside,
                  float* out) {
  const std::uint32_t row = blockIdx.x;
  if (row >= step.header->n_rows) return;
  const std::uint32_t token = static_cast<std::uint32_t>(step.tokens[row]) - first;
  float* y = out + static_cast<std::uint64_t>(row) * table.cols;
  for (std::uint32_t block = threadIdx.x; block * 32 < table.cols; block += 256) {
    float values[32];
    if (token < table.rows) load32(table, token, block, values);
    for (std::uint32_t i = 0; i < 32 && block * 32 + i < table.cols; ++i)
      y[block * 32 + i] = token < table.rows ? values[i] * scale : outside;
  }
}

// grid: rows or outputs. gather: row r of the result is the step's row outputs[r].row. weight nullptr: a
// plain copy.
extern "C" __global__ void __launch_bounds__(256)
    general_norm(const float* x, const float* weight, float eps, std::uint32_t width, float* y, RowsArg rows,
                 const DeviceOutput* gather) {
  const std::uint32_t row = blockIdx.x;
  if (row >= row_count(rows)) return;
  x += static_cast<std::uint64_t>(gather ? gather[row].row : row) * width;
  y += static_cast<std::uint64_t>(row) * width;
  const float scale = weight ? norm_scale(x, width, eps) : 1.0f;
  for (std::uint32_t i = threadIdx.x; i < width; i += 256) y[i] = weight ? x[i] * scale * weight[i] : x[i];
}

// grid: rows. out = residual + post_norm(branch); weight nullptr: no norm.
extern "C" __global__ void __launch_bounds__(256)
    general_residual(const float* branch, const float* weight, float eps, const float* residual,
                     std::uint32_t width, float* out, RowsArg rows) {
  const std::uint32_t row = blockIdx.x;
  if (row >= row_count(rows)) return;
  const std::uint64_t at = static_cast<std::uint64_t>(row) * width;
  const float scale = weight ? norm_scale(branch + at, width, eps) : 1.0f;
  for (std::uint32_t i = threadIdx.x; i < width; i += 256)
    out[at + i] = residual[at + i] + (weight ? branch[at + i] * scale * weight[i] : branch[at + i]);
}

// grid: (blocks, rows). out = activation(gate) * up; gelu: the tanh form.
extern "C" __global__ void __launch_bounds__(256)
    general_activation(const float* gate, const float* up, std::uint32_t width, std::int32_t gelu, float* out,
                       RowsArg rows) {
  if (blockIdx.y >= row_count(rows)) return;
  const std::uint32_t i = blockIdx.x * 256 + threadIdx.x;
  if (i >= width) return;
  const std::uint64_t at = static_cast<std::uint64_t>(blockIdx.y) * width + i;
  const float x = gate[at];
  const float a = gelu ? 0.5f * x * (1.0f + tanhf(0.7978845608028654f * x * (1.0f + 0.044715f * x * x)))
                       : x / (1.0f + expf(-x));
  out[at] = a * up[at];
}

// grid: (blocks, rows). x = cap * tanh(scale * x / cap); cap 0: no cap
extern "C" __global__ void __launch_bounds__(256)
    general_softcap(float* x, std::uint32_t width, float scale, float cap, RowsArg rows) {
  if (blockIdx.y >= row_count(rows)) return;
  const std::uint32_t i = blockIdx.x * 256 + threadIdx.x;
  if (i >= width) return;
  float& value = x[static_cast<std::uint64_t>(blockIdx.y) * width + i];
  value *= scale;
  if (cap > 0) value = cap * tanhf(value / cap);
}

// grid: rows. Angles in double: a float's 24 bits aren't enough at position 100 000.
extern "C" __global__ void __launch_bounds__(256)
    general_rope_table(StepView step, RopeArg rope, float base, float freq_scale, float ramp_begin,
                       float ramp_end, float magnitude, const float* factors) {
  const std::uint32_t row = blockIdx.x;
  if (row >= step.header->n_rows) return;
  const double position = step.positions[row];
  for (std::uint32_t i = threadIdx.x; i < rope.n_rot / 2; i += 256) {
    const double ramp = (i - static_cast<double>(ramp_begin)) / (static_cast<double>(ramp_end) - ramp_begin);
    const double scale = 1 + min(max(ramp, 0.0), 1.0) * (static_cast<double>(freq_scale) - 1);
    double angle = position * scale * pow(static_cast<double>(base), -2.0 * i / rope.n_rot);
    if (factors) angle /= factors[i];
    double s, c;
    sincos(angle, &s, &c);
    float* to = rope.cos_sin + (static_cast<std::uint64_t>(row) * (rope.n_rot / 2) + i) * 2;
    to[0] = static_cast<float>(c * magnitude);
    to[1] = static_cast<float>(s * magnitude);
  }
}

// grid: (rows, blocks of kRopeWarps of the n_heads + n_kv_heads), a warp a head; dynamic shared memory: the
// longer head's floats for every warp.
extern "C" __global__ void __launch_bounds__(kRopeWarps * 32)
    general_rope_append(StepView step, KvView kv, float* q, const float* k, const float* v,
                        std::uint32_t n_heads, const float* q_norm, float q_eps, const float* k_norm,
                        float k_eps, RopeArg rope, float q_growth, std::uint32_t q_growth_from) {
  extern __shared__ float heads[];
#if __CUDA_ARCH__ >= 900  // a dependent launch starts before its predecessor ended; does nothing in others
  asm volatile("griddepcontrol.launch_dependents;\n griddepcontrol.wait;" ::: "memory");
#endif
  const std::uint32_t row = blockIdx.x, lane = threadIdx.x % 32, dim = kv.head_dim_k,
                      index = blockIdx.y * kRopeWarps + threadIdx.x / 32;
  if (row >= step.header->n_rows || index >= n_heads + kv.n_kv_heads) return;
  float* head = heads + threadIdx.x / 32 * max(kv.head_dim_k, kv.head_dim_v);
  if (index < n_heads) {
    float* x = q + (static_cast<std::uint64_t>(row) * n_heads + index) * dim;
    for (std::uint32_t i = lane; i < dim; i += 32) head[i] = x[i];
    __syncwarp();
    norm_and_rotate(head, dim, q_norm, q_eps, rope, row);
    const auto steps = static_cast<float>(static_cast<std::uint32_t>(step.positions[row]) / q_growth_from);
    const float growth = 1.0f + q_growth * logf(1.0f + steps);
    for (std::uint32_t i = lane; i < dim; i += 32) x[i] = head[i] * growth;
    return;
  }
  const std::uint32_t kv_head = index - n_heads;
  const std::uint32_t position = step.positions[row];
  const std::int32_t page = kv_page(step, kv, step.row_sequence[row], position / kPageTokens);
  if (page < 0) return;
  const float* x = k + (static_cast<std::uint64_t>(row) * kv.n_kv_heads + kv_head) * dim;
  for (std::uint32_t i = lane; i < dim; i += 32) head[i] = x[i];
  __syncwarp();
  norm_and_rotate(head, dim, k_norm, k_eps, rope, row);
  kv_store(kv, page, false, kv_head, position % kPageTokens, head);
  __syncwarp();
  const float* y = v + (static_cast<std::uint64_t>(row) * kv.n_kv_heads + kv_head) * kv.head_dim_v;
  for (std::uint32_t i = lane; i < kv.head_dim_v; i += 32) head[i] = y[i];
  __syncwarp();
  kv_store(kv, page, true, kv_head, position % kPageTokens, head);
}

// grid: at least one block an SM; all of its dynamic shared memory becomes NaN (Gpu::poisons()).
extern "C" __global__ void __launch_bounds__(256) general_poison(std::uint32_t bytes) {
  extern __shared__ std::uint32_t words[];
  volatile std::uint32_t* all = words;
  for (std::uint32_t i = threadIdx.x; i < bytes / 4; i += 256) all[i] = 0xffffffff;
}
