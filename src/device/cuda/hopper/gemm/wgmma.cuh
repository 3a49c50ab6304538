// What the kernels for many rows share: bulk copies to shared memory, and the tensor cores'
// warpgroup products with the left operand in registers (layouts: PTX ISA, wgmma).
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/common/ptx.cuh"

namespace steelyard::cuda::hopper {

// 16-byte aligned, a multiple of 16 bytes.
__device__ inline void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes,
                                 std::uint32_t barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(to),
      "l"(from), "r"(bytes), "r"(barrier)
      : "memory");
}

// Low half of the descriptor of a right operand of N columns (rows of x) and 16 of K, `address` / 16 in
// shared memory: pieces of 8 of K (16 bytes), N of them in a row, then the next 8 of K. No swizzle. The high
// half is the stride of eight pieces, / 16.
template <int N>
__device__ inline std::uint32_t operand(std::uint32_t address) {
  return address | static_cast<std::uint32_t>(N) << 16;
}

// Keeps a value from being computed again and again: the compiler would rather multiply out an address in
// every step of a loop than hold it in a register.
__device__ __forceinline__ void keep(std::uint32_t& v) { asm volatile("" : "+r"(v)); }

__device__ __forceinline__ void wgmma_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
__device__ __forceinline__ void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int Left>
__device__ __forceinline__ void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(Left) : "memory");
}
// Keeps reads and writes of sums on their side of a wait: after wgmma_wait<0>(); pin(c); a product of c can't
// be moved up to where the tensor cores still write c.
template <int Count>
__device__ __forceinline__ void pin(float (&c)[Count]) {
#pragma unroll
  for (int i = 0; i < Count; i++) asm volatile("" : "+f"(c[i])::"memory");
}

#define STEELYARD_F8(c, i)                                                                    \
  "+f"(c[i]), "+f"(c[i + 1]), "+f"(c[i + 2]), "+f"(c[i + 3]), "+f"(c[i + 4]), "+f"(c[i + 5]), \
      "+f"(c[i + 6]), "+f"(c[i + 7])

// c += A * B: 64 rows (16 a warp; a as for mma.m16n8k16) x N columns, c[4 n + e] as mma's for columns 8 n ...
template <int N>
__device__ __forceinline__ void wgmma(float (&c)[N / 2], const std::uint32_t (&a)[4], std::uint32_t b) {
  if constexpr (N == 16) {
    asm volatile(
        "{\n .reg .b64 d;\n mov.b64 d, {%12, 8};\n"
        "wgmma.mma_async.sync.aligned.m64n16k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7}, {%8,%9,%10,%11}, "
        "d, 1, 1, 1, 0;\n}"
        : STEELYARD_F8(c, 0)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
  } else if constexpr (N == 32) {
    asm volatile(
        "{\n .reg .b64 d;\n mov.b64 d, {%20, 8};\n"
        "wgmma.mma_async.sync.aligned.m64n32k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"
        "%14,%15}, {%16,%17,%18,%19}, d, 1, 1, 1, 0;\n}"
        : STEELYARD_F8(c, 0), STEELYARD_F8(c, 8)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
  } else if constexpr (N == 64) {
    asm volatile(
        "{\n .reg .b64 d;\n mov.b64 d, {%36, 8};\n"
        "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"
        "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, d, "
        "1, 1, 1, 0;\n}"
        : STEELYARD_F8(c, 0), STEELYARD_F8(c, 8), STEELYARD_F8(c, 16), STEELYARD_F8(c, 24)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
  } else {
    static_assert(N == 128);
    asm volatile(
        "{\n .reg .b64 d;\n mov.b64 d, {%68, 8};\n"
        "wgmma.mma_async.sync.aligned.m64n128k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,"
        "%13,%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31,%32,%33,%34,%35,%36,"
        "%37,%38,%39,%40,%41,%42,%43,%44,%45,%46,%47,%48,%49,%50,%51,%52,%53,%54,%55,%56,%57,%58,%59,%60,"
        "%61,%62,%63}, {%64,%65,%66,%67}, d, 1, 1, 1, 0;\n}"
        : STEELYARD_F8(c, 0), STEELYARD_F8(c, 8), STEELYARD_F8(c, 16), STEELYARD_F8(c, 24),
          STEELYARD_F8(c, 32), STEELYARD_F8(c, 40), STEELYARD_F8(c, 48), STEELYARD_F8(c, 56)
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b));
  }
}
#undef STEELYARD_F8

template <int N>
__device__ __forceinline__ void pin(float (&c)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++) pin(c[n]);
}
// Operands in registers are written before the fence that follows.
template <int N>
__device__ __forceinline__ void pin(std::uint32_t (&a)[N][4]) {
#pragma unroll
  for (int n = 0; n < N; n++)
#pragma unroll
    for (int i = 0; i < 4; i++) keep(a[n][i]);
}

// Descriptor of an operand in a slice: lines of 128 bytes, the 16-byte pieces of line n in the order
// piece ^ n % 8; the slice starts at a multiple of 1024. Eight lines are 1024 bytes, whichever way they run.
__device__ inline std::uint64_t slice(std::uint32_t address) {
  return std::uint64_t{1} << 62 | std::uint64_t{64} << 32 | 64 << 16 | address >> 4;
}

#define STEELYARD_F4(c, n) "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define STEELYARD_F4_8(c, n)                                                                  \
  STEELYARD_F4(c, n), STEELYARD_F4(c, n + 1), STEELYARD_F4(c, n + 2), STEELYARD_F4(c, n + 3), \
      STEELYARD_F4(c, n + 4), STEELYARD_F4(c, n + 5), STEELYARD_F4(c, n + 6), STEELYARD_F4(c, n + 7)
// c (Add: added to) = A * B, 64 x 64, 16 of K: lines of A's slice are rows, of B's slice columns.
template <bool Add>
__device__ __forceinline__ void wgmma_slices(float (&c)[8][4], std::uint64_t a, std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"
      "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, %32, %33, %34, 1, 1, 0, 0;"
      : STEELYARD_F4_8(c, 0)
      : "l"(a), "l"(b), "n"(Add));
}
// Columns 8 n ... 8 n + 63 of c += A * B, 16 of K: A in registers, lines of B's slice are of one K.
template <int N>
__device__ __forceinline__ void wgmma_slice(float (&c)[N][4], int n, const std::uint32_t (&a)[4],
                                            std::uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.f16.f16 {%0,%1,%2,%3,%4,%5,%6,%7,%8,%9,%10,%11,%12,%13,"
      "%14,%15,%16,%17,%18,%19,%20,%21,%22,%23,%24,%25,%26,%27,%28,%29,%30,%31}, {%32,%33,%34,%35}, %36, "
      "1, 1, 1, 1;"
      : STEELYARD_F4_8(c, n)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));
}
#undef STEELYARD_F4_8
#undef STEELYARD_F4

}  // namespace steelyard::cuda::hopper
