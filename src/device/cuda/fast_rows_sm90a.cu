// Matrix times many rows (9 and more). fast_convert norms the input and writes it as halves in the order and
// with the padding that shared memory wants, so that one bulk copy brings a tile of rows x 256 columns.
// fast_rows_*: a warp owns one or two groups of 16 outputs and NT tiles of 8 rows; it reads its weights
// straight into registers (a lane's share of a chunk is contiguous over the warp), turns the codes into
// halves, scale and minimum applied, and feeds the tensor cores. Sums in float.
#include "device/cuda/fast_args.h"
#include "device/cuda/fast_mma.cuh"

namespace strata::cuda::fast {
namespace {

constexpr int kStages = kTileStages;
constexpr std::uint32_t kRowHalves = kTileRowBytes / 2;  // 16 banks between neighbours
static_assert(kRowHalves == kUnitCols + 32 && kTileRows == 128);

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

// What a lane reads of a chunk: low bits (or values), high bits.
template <int T>
struct Raw {
  static constexpr int kVectors = T == kF16 || T == kBF16 ? 4 : T == kQ8_0 ? 2 : 1;
  uint4 low[kVectors];
  std::uint32_t high[2];
  __device__ __forceinline__ void load(const std::uint8_t* chunk, int lane) {
    const std::uint8_t* h = chunk + chunk_scale_bytes(T);
    if constexpr (chunk_high_bytes(T) == 128)
      high[0] = __ldg(reinterpret_cast<const std::uint32_t*>(h) + lane);
    if constexpr (chunk_high_bytes(T) == 256) {
      const uint2 v = __ldg(reinterpret_cast<const uint2*>(h) + lane);
      high[0] = v.x, high[1] = v.y;
    }
#pragma unroll
    for (int i = 0; i < kVectors; i++)
      low[i] = __ldg(reinterpret_cast<const uint4*>(h + chunk_high_bytes(T)) + i * 32 + lane);
  }
};

__device__ inline std::uint32_t bits(__half2 h) { return *reinterpret_cast<const std::uint32_t*>(&h); }
__device__ inline __half2 halves(std::uint32_t w) { return *reinterpret_cast<const __half2*>(&w); }
__device__ inline std::uint32_t word(const uint4& v, int i) {
  return i == 0 ? v.x : i == 1 ? v.y : i == 2 ? v.z : v.w;
}

// Operands a[j] of sub-block `sub` as halves: codes join the exponent of 1024 (or of 1024 with the code 16
// times), from which a subtraction leaves them exactly; then one multiply-add with scale and minimum.
// scale[row half][j].
template <int T>
__device__ __forceinline__ void expand(const Raw<T>& raw, int sub, const __half2 (&scale)[2][2],
                                       const __half2 (&minimum)[2], std::uint32_t (&a)[2][4]) {
#pragma unroll
  for (int j = 0; j < 2; j++)
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if constexpr (T == kF16) {
        a[j][i] = word(raw.low[sub * 2 + j], i);
      } else if constexpr (T == kBF16) {
        const std::uint32_t w = word(raw.low[sub * 2 + j], i);
        a[j][i] = bits(__floats2half2_rn(__uint_as_float(w << 16), __uint_as_float(w & 0xffff0000u)));
      } else if constexpr (T == kMXFP4) {
        a[j][i] = bits(__hmul2(halves(e2m1_pair(word(raw.low[0], i) >> (8 * j + 4 * sub) & 0x000f000fu)),
                               scale[i & 1][j]));
      } else {
        __half2 q;
        if constexpr (T == kQ8_0) {
          const std::uint32_t w = (word(raw.low[sub], i) >> (8 * j) & 0x00ff00ffu) | 0x64006400u;
          q = __hsub2(halves(w), __float2half2_rn(1152.f));
        } else {
          const std::uint32_t u = word(raw.low[0], i) >> (8 * j);
          std::uint32_t w = sub ? u & 0x00f000f0u : u & 0x000f000fu;
          if constexpr (T == kQ6_K) {
            const std::uint32_t h = raw.high[j];
            w |= sub ? h >> (2 * i) & 0x03000300u : (i < 3 ? h << (4 - 2 * i) : h >> 2) & 0x00300030u;
          } else if constexpr (chunk_high_bytes(T) != 0) {
            const std::uint32_t h = raw.high[0];
            const int n = 4 * j + i;
            w |= sub ? h >> n & 0x01000100u : (n <= 4 ? h << (4 - n) : h >> (n - 4)) & 0x00100010u;
          }
          w |= 0x64006400u;
          constexpr float bias = code_bias<T>();
          q = sub ? __hfma2(halves(w), __float2half2_rn(0.0625f), __float2half2_rn(-64.f - bias))
                  : __hsub2(halves(w), __float2half2_rn(1024.f + bias));
        }
        if constexpr (T == kQ4_1 || T == kQ5_1 || T == kQ4_K || T == kQ5_K)
          a[j][i] = bits(__hfma2(q, scale[i & 1][j], minimum[i & 1]));
        else
          a[j][i] = bits(__hmul2(q, scale[i & 1][j]));
      }
    }
}

__device__ inline float activate(float x, bool gelu) {
  if (!gelu) return x / (1.f + __expf(-x));
  return 0.5f * x * (1.f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}

// Results of one group: c[n] = rows (g, g + 8) x step rows (2t, 2t + 1) of tile n. other: the up matrix.
template <int NT>
__device__ __forceinline__ void write(const LinearArg& a, const Segment& s, std::uint32_t group,
                                      std::uint32_t first_row, std::uint32_t rows, const float (&c)[NT][4],
                                      const float (*other)[4]) {
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
  for (int n = 0; n < NT; n++)
#pragma unroll
    for (int e = 0; e < 4; e++) {
      const std::uint32_t row = first_row + n * 8 + 2 * t + (e & 1), o = group * 16 + g + 8 * (e / 2);
      if (row >= rows || o >= s.rows) continue;
      const std::uint64_t at = static_cast<std::uint64_t>(row) * s.rows + o;
      float y = c[n][e];
      if (s.bias) y += s.bias[o];
      if (other) y = activate(y, a.gelu) * other[n][e];
      if (a.epilogue == Epilogue::residual) y += a.residual[at];
      if (a.softcap > 0) y = a.softcap * tanhf(y / a.softcap);
      s.out[at] = y;
    }
}

// Chunks that a warp reads ahead.
template <int T, int NT>
__host__ __device__ constexpr int read_ahead() {
  return T == kF16 || T == kBF16 || NT > 8 ? 1 : T == kQ8_0 || NT == 8 ? 2 : 4;
}

// acc[k] += groups[k] * x over the units u with u mod KS == part. A stage of shared memory holds KS units.
template <int T, int G, int KS, int NT>
__device__ __forceinline__ void product(const LinearArg& a, const std::uint8_t* const (&groups)[G],
                                        const __half* x16, std::uint8_t* tiles, std::uint64_t* full,
                                        std::uint32_t part, float (&acc)[G][NT][4]) {
  constexpr std::uint32_t kTileBytes = NT * 8 * kRowHalves * 2;
  constexpr int kAhead = read_ahead<T, NT>();
  const std::uint32_t units = (a.cols + kUnitCols - 1) / kUnitCols, chunks = a.cols / kChunkCols;
  const std::uint32_t stages = (units + KS - 1) / KS;
  const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  const auto fetch = [&](std::uint32_t s) {
    if (threadIdx.x != 0 || s >= stages) return;
    const std::uint32_t bar = shared_address(full + s % kStages),
                        n = min(static_cast<std::uint32_t>(KS), units - s * KS);
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(n * kTileBytes)
                 : "memory");
    for (std::uint32_t i = 0; i < n; i++)
      asm volatile(
          "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
              shared_address(tiles + (s % kStages * KS + i) * kTileBytes)),
          "l"(x16 + static_cast<std::uint64_t>(s * KS + i) * kTileRows * kRowHalves), "r"(kTileBytes),
          "r"(bar)
          : "memory");
  };
#pragma unroll
  for (int i = 0; i < kStages - 1; i++) fetch(i);
  // The warp's chunks in order: number n is chunk n % 4 of its unit n / 4.
  const auto load = [&](Raw<T>(&to)[G], std::uint32_t n) {
    const std::uint32_t u = n / 4 * KS + part;
    if (u * 4 + n % 4 >= chunks) return;
#pragma unroll
    for (int k = 0; k < G; k++)
      to[k].load(groups[k] + static_cast<std::uint64_t>(u) * unit_bytes(T) + unit_header_bytes(T) +
                     n % 4 * chunk_bytes(T),
                 lane);
  };
  Raw<T> ahead[kAhead][G];
#pragma unroll
  for (int i = 0; i < kAhead; i++) load(ahead[i], i);
  for (std::uint32_t s = 0; s < stages; s++) {
    __syncthreads();  // everybody left the stage that is fetched now
    fetch(s + kStages - 1);
    const std::uint32_t u = s * KS + part;
    asm volatile(
        "{\n .reg .pred done;\n"
        "again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        " @!done bra again;\n}" ::"r"(shared_address(full + s % kStages)),
        "r"(s / kStages & 1)
        : "memory");
    const __half* x = reinterpret_cast<const __half*>(tiles + (s % kStages * KS + part) * kTileBytes) +
                      g * kRowHalves + t * 8;
#pragma unroll kAhead
    for (std::uint32_t c = 0; c < 4; c++) {
      if (u * 4 + c >= chunks) break;
      Raw<T> raw[G];
#pragma unroll
      for (int k = 0; k < G; k++) raw[k] = ahead[c % kAhead][k];
      load(ahead[c % kAhead], s * 4 + c + kAhead);
#pragma unroll
      for (int sub = 0; sub < 2; sub++) {
        std::uint32_t w[G][2][4];
#pragma unroll
        for (int k = 0; k < G; k++) {
          __half2 scale[2][2], minimum[2];
#pragma unroll
          for (int r = 0; r < 2; r++) {
            const SubScale q = sub_scale<T>(groups[k] + static_cast<std::uint64_t>(u) * unit_bytes(T),
                                            g + 8 * r, 2 * c + sub);
            const float unit = T == kMXFP4 ? code_unit<T>(sub) : 1.f;
            scale[r][0] = __float2half2_rn(fminf(q.d * unit, 65504.f));
            scale[r][1] = T == kQ6_K ? __float2half2_rn(q.d16) : scale[r][0];
            minimum[r] = __float2half2_rn(-q.m);
          }
          expand<T>(raw[k], sub, scale, minimum, w[k]);
        }
#pragma unroll
        for (int n = 0; n < NT; n++) {
          const uint4 b = *reinterpret_cast<const uint4*>(x + n * 8 * kRowHalves + (2 * c + sub) * 32);
#pragma unroll
          for (int k = 0; k < G; k++) {
            mma_f16(acc[k][n], w[k][0], b.x, b.y);
            mma_f16(acc[k][n], w[k][1], b.z, b.w);
          }
        }
      }
    }
  }
}

// Adds the parts' sums in order; part 0 has the result.
template <int G, int KS, int W, int NT>
__device__ __forceinline__ void add_parts(float* shared, std::uint32_t part, std::uint32_t warp,
                                          float (&acc)[G][NT][4]) {
  constexpr int kFloats = G * NT * 4;
  const std::uint32_t lane = threadIdx.x % 32;
  __syncthreads();
  float* mine = shared + ((part - 1) * W + warp) * kFloats * 32 + lane;
  if (part != 0)
#pragma unroll
    for (int i = 0; i < kFloats; i++) mine[i * 32] = acc[i / (NT * 4)][i / 4 % NT][i % 4];
  __syncthreads();
  if (part != 0) return;
  for (int p = 1; p < KS; p++) {
    const float* from = shared + ((p - 1) * W + warp) * kFloats * 32 + lane;
#pragma unroll
    for (int i = 0; i < kFloats; i++) acc[i / (NT * 4)][i / 4 % NT][i % 4] += from[i * 32];
  }
}

// W * KS warps: warp w owns G groups with the warps w + W, w + 2 W ..., which share the columns. grid: (tiles
// of NT * 8 rows, blocks of W * G groups over all segments)
template <int G, int KS, int W, int NT>
__device__ __forceinline__ void rows_kernel(const LinearArg& a, const __half* x16) {
  extern __shared__ __align__(128) std::uint8_t memory[];
  __shared__ std::uint64_t full[kStages];
  const bool paired = a.epilogue == Epilogue::gate_up;
  const std::uint32_t rows = a.outputs ? a.header->n_outputs : a.header->n_rows,
                      first_row = blockIdx.x * NT * 8;
  if (first_row >= rows) return;
  if (threadIdx.x < kStages) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(full + threadIdx.x))
                 : "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __syncthreads();
  const std::uint32_t warp = threadIdx.x / 32 % W, part = threadIdx.x / 32 / W,
                      per_block = paired ? W * G / 2 : W * G;
  std::uint32_t block = blockIdx.y;
  int segment = 0;
  if (!paired)
    while (block >= (a.segments[segment].groups + per_block - 1) / per_block)
      block -= (a.segments[segment++].groups + per_block - 1) / per_block;
  const Segment& s = a.segments[segment];
  const std::uint8_t* groups[G];
  std::uint32_t group[G];
#pragma unroll
  for (int k = 0; k < G; k++) {  // the last group stands in for those beyond the matrix
    group[k] = block * per_block + (paired ? warp : warp * G + k);
    const Segment& from = paired ? a.segments[k] : s;
    groups[k] = from.w + min(group[k], s.groups - 1) * from.group_bytes;
  }
  const std::uint32_t units = (a.cols + kUnitCols - 1) / kUnitCols;
  x16 += (static_cast<std::uint64_t>(first_row / kTileRows) * units * kTileRows + first_row % kTileRows) *
         kRowHalves;
  float acc[G][NT][4] = {};
  switch (s.type) {
#define STRATA_CASE(T)                                              \
  case T:                                                           \
    product<T, G, KS, NT>(a, groups, x16, memory, full, part, acc); \
    break;
    STRATA_CASE(kF16)
    STRATA_CASE(kQ4_0)
    STRATA_CASE(kQ4_1)
    STRATA_CASE(kQ5_0)
    STRATA_CASE(kQ5_1)
    STRATA_CASE(kQ8_0)
    STRATA_CASE(kQ4_K)
    STRATA_CASE(kQ5_K)
    STRATA_CASE(kQ6_K)
    STRATA_CASE(kBF16)
    STRATA_CASE(kMXFP4)
#undef STRATA_CASE
  }
  if constexpr (KS > 1) {
    add_parts<G, KS, W, NT>(reinterpret_cast<float*>(memory), part, warp, acc);
    if (part != 0) return;
  }
  if (paired) {
    if (group[0] < s.groups) write<NT>(a, s, group[0], first_row, rows, acc[0], acc[G - 1]);
  } else {
#pragma unroll
    for (int k = 0; k < G; k++)
      if (group[k] < s.groups) write<NT>(a, s, group[k], first_row, rows, acc[k], nullptr);
  }
}

}  // namespace
}  // namespace strata::cuda::fast

// grid: rows, 256 threads. x16: tiles [rows / kTileRows][units][kTileRows][kRowHalves].
extern "C" __global__ void __launch_bounds__(256)
    fast_convert(const __grid_constant__ strata::cuda::fast::LinearArg a, __half* x16) {
  using namespace strata::cuda::fast;
  __shared__ float partial[8];
  const std::uint32_t row = blockIdx.x;
  if (row >= (a.outputs ? a.header->n_outputs : a.header->n_rows)) return;
  const float* x = a.x + static_cast<std::uint64_t>(row) * a.cols;
  float scale = 1.f;
  if (a.norm) {
    float sum = 0;
    for (std::uint32_t i = threadIdx.x; i < a.cols / 4; i += 256) {
      const float4 v = reinterpret_cast<const float4*>(x)[i];
      sum += v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
    }
    for (int i = 16; i; i /= 2) sum += __shfl_xor_sync(~0u, sum, i);
    if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = sum;
    __syncthreads();
    sum = 0;
    for (int i = 0; i < 8; i++) sum += partial[i];
    scale = rsqrtf(sum / a.cols + a.eps);
  }
  const std::uint32_t units = (a.cols + kUnitCols - 1) / kUnitCols;
  __half* out =
      x16 + (static_cast<std::uint64_t>(row / kTileRows) * units * kTileRows + row % kTileRows) * kRowHalves;
  for (std::uint32_t i = threadIdx.x; i < units * 32; i += 256) {
    const std::uint32_t col = i * 8, u = i & 3;
    __half2 h[4] = {};
    if (col < a.cols) {
      const float4 p = *reinterpret_cast<const float4*>(x + col),
                   q = *reinterpret_cast<const float4*>(x + col + 4);
      float v[8] = {p.x, p.y, p.z, p.w, q.x, q.y, q.z, q.w};
#pragma unroll
      for (int k = 0; k < 8; k++) {
        if (a.norm) v[k] *= scale * a.norm[col + k];
        v[k] = fminf(fmaxf(v[k], -65504.f), 65504.f);
      }
#pragma unroll
      for (int k = 0; k < 4; k++) h[k] = __floats2half2_rn(v[2 * k], v[2 * k + 1]);
    }
    __half* at = out + static_cast<std::uint64_t>(i / 32) * kTileRows * kRowHalves + (i % 32 / 4) * 32 +
                 (u & 1) * 16 + (u >> 1) * 4;
    *reinterpret_cast<uint2*>(at) = *reinterpret_cast<const uint2*>(h);
    *reinterpret_cast<uint2*>(at + 8) = *reinterpret_cast<const uint2*>(h + 2);
  }
}

#define STRATA_ROWS(name, G, KS, W, NT, blocks)                                          \
  extern "C" __global__ void __launch_bounds__(W* KS * 32, blocks)                       \
      name(const __grid_constant__ strata::cuda::fast::LinearArg a, const __half* x16) { \
    strata::cuda::fast::rows_kernel<G, KS, W, NT>(a, x16);                               \
  }
STRATA_ROWS(fast_rows_16_1, 1, 4, 2, 2, 2)
STRATA_ROWS(fast_rows_16_2, 2, 4, 2, 2, 2)
STRATA_ROWS(fast_rows_32_1, 1, 4, 2, 4, 1)
STRATA_ROWS(fast_rows_32_2, 2, 4, 2, 4, 1)
STRATA_ROWS(fast_rows_64_1, 1, 2, 4, 8, 1)
STRATA_ROWS(fast_rows_64_2, 2, 2, 4, 8, 1)
STRATA_ROWS(fast_rows_many, 2, 1, 8, 16, 1)
