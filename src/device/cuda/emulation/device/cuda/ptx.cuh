// The functions of device/cuda/ptx.cuh for kernels on the CPU (emulation.h).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace strata::cuda::fast {

// ---- Shared memory ----

inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(static_cast<const std::uint8_t*>(p) - emulation::block->shared);
}
template <int Bytes>
std::uint8_t* static_shared() {
  static_assert(Bytes <= emulation::kStaticBytes);
  return emulation::block->shared;
}
inline std::uint8_t* dynamic_shared() { return emulation::block->shared + emulation::kStaticBytes; }
inline void load_volatile(std::uint32_t (&to)[4], const std::uint32_t* from) { std::copy_n(from, 4, to); }

// ---- Barriers: the phase, which the last of the bytes that are expected completes, and those bytes ----

template <int N>
void sync_threads() {
  __syncthreads();
}
inline std::uint32_t* phase_of(std::uint32_t barrier) {
  return reinterpret_cast<std::uint32_t*>(emulation::block->shared + barrier);
}
inline void barrier_init(std::uint32_t barrier, std::uint32_t) {
  __atomic_store_n(phase_of(barrier) + 1, 0u, __ATOMIC_RELAXED);
  __atomic_store_n(phase_of(barrier), 0u, __ATOMIC_RELEASE);
}
inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  __atomic_fetch_add(phase_of(barrier) + 1, bytes, __ATOMIC_RELAXED);
}
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  while ((__atomic_load_n(phase_of(barrier), __ATOMIC_ACQUIRE) & 1) == parity) std::this_thread::yield();
}
inline void fence_async_shared() {}

// ---- Copies to shared memory ----

inline void bulk_copy(void* to, const void* from, std::uint32_t bytes, std::uint64_t* barrier,
                      std::uint64_t) {
  std::memcpy(to, from, bytes);
  std::uint32_t* phase = phase_of(shared_address(barrier));
  if (__atomic_sub_fetch(phase + 1, bytes, __ATOMIC_ACQ_REL) == 0)
    __atomic_fetch_add(phase, 1u, __ATOMIC_RELEASE);
}
inline std::uint64_t evict_first() { return 0; }
inline std::uint64_t evict_last() { return 0; }
inline void copy_async(void* to, const void* from) { std::memcpy(to, from, 16); }
inline void wait_for_copies() {}
inline void commit_copies() {}
template <int Left>
void wait_for_copies() {}
inline void prefetch_l2(const void*) {}

// ---- Words that blocks exchange ----

inline void store_word(std::uint64_t* word, std::uint64_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
inline std::uint64_t load_word(const std::uint64_t* word) {
  std::this_thread::yield();  // others must get on
  return __atomic_load_n(word, __ATOMIC_RELAXED);
}
inline void store_unseen(std::uint32_t* word, std::uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_RELAXED);
}
inline ulonglong2 load_words(const std::uint64_t* words) {
  return {load_word(words), __atomic_load_n(words + 1, __ATOMIC_RELAXED)};
}

// ---- Tensor cores: layouts of operands as in the PTX ISA ----

template <typename Convert>
void multiply_add(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1,
                  Convert convert) {
  auto& lanes = emulation::warp->operands;
  const unsigned lane = emulation::lane();
  std::copy_n(a, 4, lanes[lane]);
  lanes[lane][4] = b0, lanes[lane][5] = b1;
  __syncwarp();
  const auto element = [&](std::uint32_t pair, int i) {
    return convert(static_cast<std::uint16_t>(pair >> (16 * i)));
  };
  for (unsigned i = 0; i < 4; i++) {
    const unsigned row = lane / 4 + 8 * (i / 2), column = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 16; k++)
      c[i] += element(lanes[row % 8 * 4 + k % 8 / 2][row / 8 + k / 8 * 2], k % 2) *
              element(lanes[column * 4 + k % 8 / 2][4 + k / 8], k % 2);
  }
  __syncwarp();
}
inline void mma_f16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  multiply_add(c, a, b0, b1, [](std::uint16_t x) { return static_cast<float>(std::bit_cast<_Float16>(x)); });
}
inline void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0, std::uint32_t b1) {
  multiply_add(c, a, b0, b1, emulation::float_of);
}
inline std::uint32_t transpose(std::uint32_t tile) {
  auto& lanes = emulation::warp->exchanged;
  const unsigned lane = emulation::lane();
  lanes[lane] = tile;
  __syncwarp();
  std::uint32_t out = 0;
  for (unsigned i = 0; i < 2; i++) {
    const unsigned row = 2 * (lane % 4) + i, column = lane / 4;
    out |= (lanes[row * 4 + column / 2] >> (16 * (column % 2)) & 0xffff) << (16 * i);
  }
  __syncwarp();
  return out;
}

inline void load_transposed(std::uint32_t (&to)[4], const void* row) {
  auto& rows = emulation::warp->exchanged;
  const unsigned lane = emulation::lane();
  rows[lane] = reinterpret_cast<std::uint64_t>(row);
  __syncwarp();
  for (unsigned tile = 0; tile < 4; tile++) {
    const auto half = [&](unsigned r) {
      return std::uint32_t{reinterpret_cast<const std::uint16_t*>(rows[tile * 8 + r])[lane / 4]};
    };
    to[tile] = half(lane % 4 * 2) | half(lane % 4 * 2 + 1) << 16;
  }
  __syncwarp();
}

// ---- Kernels that start early ----

inline void wait_for_predecessor() {}

// ---- Registers and numbers ----

inline int lane_anew() { return static_cast<int>(emulation::lane()); }
inline void renew(int&) {}
inline float power_of_two(float x) { return x < -126 ? 0.0f : std::exp2(x); }

}  // namespace strata::cuda::fast
