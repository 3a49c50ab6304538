// The functions of device/cuda/common/ptx.cuh for kernels on the CPU (emulation.h).
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

namespace steelyard::cuda::hopper {

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
#define STEELYARD_DYNAMIC_SHARED(name) std::uint8_t* const name = dynamic_shared()
inline void load_volatile(std::uint32_t (&to)[4], const std::uint32_t* from) { std::copy_n(from, 4, to); }

// ---- Barriers ----

template <int N>
void sync_threads() {
  emulation::block->barrier_of(N).arrive_and_wait();
}
// An mbarrier's state: its phase, arrivals a phase, arrivals still missing, bytes still expected.
struct BarrierState {
  std::uint64_t phase : 8, arrivals : 14, missing : 14;
  std::int64_t bytes : 28;
};
inline std::uint64_t* barrier_at(std::uint32_t barrier) {
  return reinterpret_cast<std::uint64_t*>(emulation::block->shared + barrier);
}
inline void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
  __atomic_store_n(barrier_at(barrier), std::bit_cast<std::uint64_t>(BarrierState{0, arrivals, arrivals, 0}),
                   __ATOMIC_RELEASE);
}
inline void barrier_change(std::uint32_t barrier, int arrived, std::int64_t bytes) {
  std::uint64_t before = __atomic_load_n(barrier_at(barrier), __ATOMIC_RELAXED), after;
  do {
    auto state = std::bit_cast<BarrierState>(before);
    state.missing -= arrived, state.bytes += bytes;
    if (state.missing == 0 && state.bytes == 0) ++state.phase, state.missing = state.arrivals;
    after = std::bit_cast<std::uint64_t>(state);
  } while (!__atomic_compare_exchange_n(barrier_at(barrier), &before, after, false, __ATOMIC_ACQ_REL,
                                        __ATOMIC_RELAXED));
}
inline void barrier_arrive(std::uint32_t barrier) { barrier_change(barrier, 1, 0); }
inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) { barrier_change(barrier, 1, bytes); }
inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  while ((std::bit_cast<BarrierState>(__atomic_load_n(barrier_at(barrier), __ATOMIC_ACQUIRE)).phase & 1) ==
         parity)
    std::this_thread::yield();
}
inline void fence_barrier_init() {}
inline void fence_async_shared() {}

// ---- Copies to shared memory ----

inline void bulk_copy(void* to, const void* from, std::uint32_t bytes, std::uint64_t* barrier,
                      std::uint64_t) {
  std::memcpy(to, from, bytes);
  barrier_change(shared_address(barrier), 0, -std::int64_t{bytes});
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

// ---- What devices give each other ----

inline void store_word_everywhere(std::uint64_t* word, std::uint64_t value) { store_word(word, value); }
inline std::uint64_t load_word_everywhere(const std::uint64_t* word) { return load_word(word); }

inline void store_count(std::uint64_t* count, std::uint64_t value) {
  __atomic_store_n(count, value, __ATOMIC_RELEASE);
}
inline std::uint64_t load_count(const std::uint64_t* count) {
  return __atomic_load_n(count, __ATOMIC_ACQUIRE);
}
inline float load_given(const float* from) { return *from; }
inline std::uint32_t load_flag(const std::uint32_t* flag) { return __atomic_load_n(flag, __ATOMIC_RELAXED); }

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
inline void let_successor_start() {}
inline void wait_for_results() {}

// ---- Clusters: of one block ----

inline void sync_cluster() { __syncthreads(); }
inline std::uint32_t address_in(std::uint32_t address, std::uint32_t) { return address; }
inline float load_cluster(std::uint32_t address) {
  return *reinterpret_cast<const float*>(emulation::block->shared + address);
}

// ---- Registers and numbers ----

inline int lane_anew() { return static_cast<int>(emulation::lane()); }
inline void renew(int&) {}
inline void renew(uint4&) {}
template <std::uint32_t Value>
std::uint32_t in_register() {
  return Value;
}
template <std::uint32_t Mask>
std::uint32_t join(std::uint32_t w, std::uint32_t more) {
  return (w & Mask) | more;
}
template <int Count>
void give_registers() {}
template <int Count>
void take_registers() {}
inline float power_of_two(float x) { return x < -126 ? 0.0f : std::exp2(x); }

}  // namespace steelyard::cuda::hopper
