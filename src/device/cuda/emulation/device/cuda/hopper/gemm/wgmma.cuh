// The functions of device/cuda/hopper/gemm/wgmma.cuh that kernels on the CPU use (emulation.h): a warp
// multiplies its 16 rows at once, so that nothing is left to wait for.
#pragma once

#include "device/cuda/common/ptx.cuh"

namespace steelyard::cuda::hopper {

inline void bulk_copy(std::uint32_t to, const void* from, std::uint32_t bytes, std::uint32_t barrier) {
  std::memcpy(emulation::block->shared + to, from, bytes);
  barrier_change(barrier, 0, -std::int64_t{bytes});
}
template <int N>
std::uint32_t operand(std::uint32_t address) {
  return address;
}
inline void keep(std::uint32_t&) {}
inline void wgmma_fence() {}
inline void wgmma_commit() {}
template <int Left>
void wgmma_wait() {}
template <typename T, int N>
void pin(T (&)[N][4]) {}

template <int Count>
void pin(float (&)[Count]) {}

// b: the operand's address / 16; its pieces of 8 of K of each column follow each other.
template <int N>
void wgmma(float (&c)[N / 2], const std::uint32_t (&a)[4], std::uint32_t b) {
  const unsigned g = emulation::lane() / 4, k = emulation::lane() % 4 * 2;
  for (unsigned n = 0; n < N / 8; n++) {
    const std::uint8_t* piece = emulation::block->shared + b * 16 + (n * 8 + g) * 16 + k * 2;
    std::uint32_t pairs[2];
    std::memcpy(&pairs[0], piece, 4), std::memcpy(&pairs[1], piece + N * 16, 4);
    float tile[4];
    std::copy_n(c + 4 * n, 4, tile);
    mma_f16(tile, a, pairs[0], pairs[1]);
    std::copy_n(tile, 4, c + 4 * n);
  }
}

inline std::uint32_t slice(std::uint32_t address) { return address; }

// Halves `column` and `column` + 1 of a line of a slice, or of two lines one column: shared memory is
// swizzled by address, as the PTX ISA has it for 128 bytes.
inline std::uint32_t pair_of(std::uint32_t slice, unsigned line, unsigned column, bool down = false) {
  const auto half = [&](unsigned l, unsigned c) {
    const std::uint32_t at = slice + l * 128 + c * 2;
    std::uint16_t bits;
    std::memcpy(&bits, emulation::block->shared + (at ^ (at >> 7 & 7) << 4), 2);
    return std::uint32_t{bits};
  };
  return half(line, column) | (down ? half(line + 1, column) : half(line, column + 1)) << 16;
}

template <bool Add>
void wgmma_slices(float (&c)[8][4], std::uint32_t a, std::uint32_t b) {
  const unsigned g = emulation::lane() / 4, k = emulation::lane() % 4 * 2;
  const unsigned row = threadIdx.x % 128 / 32 * 16 + g;
  const std::uint32_t left[4] = {pair_of(a, row, k), pair_of(a, row + 8, k), pair_of(a, row, k + 8),
                                 pair_of(a, row + 8, k + 8)};
  for (unsigned n = 0; n < 8; n++) {
    if (!Add) std::fill_n(c[n], 4, 0.f);
    mma_f16(c[n], left, pair_of(b, n * 8 + g, k), pair_of(b, n * 8 + g, k + 8));
  }
}

template <int N>
void wgmma_slice(float (&c)[N][4], int first, const std::uint32_t (&a)[4], std::uint32_t b) {
  const unsigned g = emulation::lane() / 4, k = emulation::lane() % 4 * 2;
  for (unsigned n = 0; n < 8; n++)
    mma_f16(c[first + n], a, pair_of(b, k, n * 8 + g, true), pair_of(b, k + 8, n * 8 + g, true));
}

}  // namespace steelyard::cuda::hopper
