// Runs CUDA kernels on the CPU, for tests: a thread of the kernel is a thread here, so that a thread or
// address sanitizer watches it, and a warp's instruction that not all its lanes reach hangs as it would
// there. Put this directory before the others on the include path: it has CUDA's headers and common/ptx.cuh
// as kernels use them.
//
// Not emulated: time, caches, and what is asynchronous: copies are done when they are asked for.
#pragma once

#include <algorithm>
#include <atomic>
#include <barrier>
#include <bit>
#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#define __device__
#define __global__
#define __shared__  // each thread's own: code under test uses static_shared()
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __align__(n) alignas(n)
#define __launch_bounds__(...)
#define __grid_constant__

namespace emulation {

struct Index {
  unsigned x, y, z;
};

struct Warp {
  std::barrier<> barrier{32};
  std::uint64_t exchanged[32];  // a value of each lane, between two barriers
  std::uint32_t operands[32][6];
};

// Memory that starts at a multiple of 128.
struct alignas(128) Line {
  std::uint8_t bytes[128];
};

// Zeros that start at a multiple of 128 bytes.
template <typename T>
class Aligned {
 public:
  explicit Aligned(std::size_t n) : lines_((n * sizeof(T) + 127) / 128) {}
  T* data() const { return reinterpret_cast<T*>(const_cast<Line*>(lines_.data())); }
  T& operator[](std::size_t i) const { return data()[i]; }

 private:
  std::vector<Line> lines_;
};

struct Block {
  Block(unsigned threads, std::size_t shared_bytes)
      : barrier(threads),
        warps(threads / 32),
        memory((shared_bytes + 127) / 128),
        shared(memory.front().bytes) {
    for (auto& warp : warps) warp = std::make_unique<Warp>();
    std::memset(shared, 0xff, shared_bytes);  // NaN
  }
  // Of the first `threads` threads, always the same number.
  std::barrier<>& barrier_of(unsigned threads) {
    std::call_once(once_, [&] { part_ = std::make_unique<std::barrier<>>(threads); });
    return *part_;
  }
  std::barrier<> barrier;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<Line> memory;
  std::uint8_t* shared;  // static, then dynamic: kStaticBytes of the first

 private:
  std::once_flag once_;
  std::unique_ptr<std::barrier<>> part_;
};
constexpr std::size_t kStaticBytes = 16384;

inline thread_local Block* block;
inline thread_local Warp* warp;

// Whether the system gives a process so many threads: those of a launch wait for each other.
inline bool has_threads(unsigned n) {
  std::atomic_flag enough{};
  std::vector<std::thread> waiting;
  try {
    while (waiting.size() < n) waiting.emplace_back([&] { enough.wait(false); });
  } catch (const std::system_error&) {
  }
  enough.test_and_set();
  enough.notify_all();
  for (auto& thread : waiting) thread.join();
  return waiting.size() == n;
}

}  // namespace emulation

inline thread_local emulation::Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulation {

inline unsigned lane() { return threadIdx.x % 32; }

// One launch: grid.x * grid.y * grid.z blocks of `threads`, all at once.
inline void launch(Index grid, unsigned threads, std::size_t dynamic_bytes,
                   const std::function<void()>& kernel) {
  std::vector<std::unique_ptr<Block>> blocks;
  std::vector<std::thread> running;
  for (unsigned z = 0; z < grid.z; z++)
    for (unsigned y = 0; y < grid.y; y++)
      for (unsigned x = 0; x < grid.x; x++) {
        Block* b = blocks.emplace_back(std::make_unique<Block>(threads, kStaticBytes + dynamic_bytes)).get();
        for (unsigned t = 0; t < threads; t++)
          running.emplace_back([=, &kernel] {
            threadIdx = {t, 0, 0}, blockIdx = {x, y, z}, blockDim = {threads, 1, 1}, gridDim = grid;
            block = b, warp = b->warps[t / 32].get();
            kernel();
          });
      }
  for (auto& thread : running) thread.join();
}

}  // namespace emulation

// ---- CUDA's types and functions, as far as the kernels under test use them ----

struct uint2 {
  unsigned x, y;
};
struct float2 {
  float x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
struct alignas(16) ulonglong2 {
  unsigned long long x, y;
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

using std::max;
using std::min;

inline void __syncthreads() { emulation::block->barrier.arrive_and_wait(); }
inline void __syncwarp() { emulation::warp->barrier.arrive_and_wait(); }

namespace emulation {
template <typename T>
T exchange(T value, unsigned from) {
  std::uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  warp->exchanged[lane()] = bits;
  __syncwarp();
  bits = warp->exchanged[from];
  __syncwarp();
  std::memcpy(&value, &bits, sizeof value);
  return value;
}
}  // namespace emulation

template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulation::exchange(value, emulation::lane() ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T value, int from) {
  return emulation::exchange(value, static_cast<unsigned>(from));
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int by) {
  return emulation::exchange(value, emulation::lane() + by < 32 ? emulation::lane() + by : emulation::lane());
}

inline unsigned atomicAdd(unsigned* p, unsigned n) { return __atomic_fetch_add(p, n, __ATOMIC_RELAXED); }

template <typename T>
T __ldg(const T* p) {
  return *p;
}
template <typename T>
T __ldcg(const T* p) {  // what others may write meanwhile, a word at a time
  static_assert(sizeof(T) % 4 == 0);
  std::uint32_t words[sizeof(T) / 4];
  for (std::size_t i = 0; i < sizeof(T) / 4; i++)
    words[i] = __atomic_load_n(reinterpret_cast<const std::uint32_t*>(p) + i, __ATOMIC_RELAXED);
  return std::bit_cast<T>(words);
}
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return std::bit_cast<float>(x); }
inline unsigned __byte_perm(unsigned a, unsigned b, unsigned selector) {
  const std::uint64_t bytes = std::uint64_t{b} << 32 | a;
  unsigned out = 0;
  for (unsigned i = 0; i < 4; i++)
    out |= static_cast<unsigned>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return out;
}
inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<unsigned long long>(a) * b >> 32; }
inline float __fdividef(float a, float b) { return a / b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __expf(float x) { return std::exp(x); }
inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
