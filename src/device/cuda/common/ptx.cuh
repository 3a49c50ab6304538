// PTX instructions that CUDA C++ has no functions for (PTX ISA has their meaning), and shared memory, as the
// kernels use them. emulation/ has a second common/ptx.cuh, for the CPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>

namespace steelyard::cuda::hopper {

// ---- Shared memory ----

__device__ inline std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}
template <int Bytes>
__device__ __forceinline__ std::uint8_t* static_shared() {
  static __shared__ __align__(16) std::uint8_t memory[Bytes];
  return memory;
}
__device__ __forceinline__ std::uint8_t* dynamic_shared() {
  extern __shared__ __align__(128) std::uint8_t memory[];
  return memory;
}
// The same as a local name, for which the compiler makes other code.
#define STEELYARD_DYNAMIC_SHARED(name) extern __shared__ __align__(128) std::uint8_t name[]
// Read each time, not kept in registers.
__device__ __forceinline__ void load_volatile(std::uint32_t (&to)[4], const std::uint32_t* from) {
  asm volatile("ld.volatile.shared.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(from)));
}

// ---- Barriers ----

// Threads 0 .. N - 1 of the block.
template <int N>
__device__ inline void sync_threads() {
  asm volatile("bar.sync 1, %0;" ::"n"(N) : "memory");
}
__device__ inline void barrier_init(std::uint32_t barrier, std::uint32_t arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(arrivals) : "memory");
}
__device__ inline void barrier_expect(std::uint32_t barrier, std::uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void barrier_arrive(std::uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_wait(std::uint32_t barrier, std::uint32_t parity) {
  asm volatile(
      "{\n .reg .pred done;\n"
      "again:\n mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      " @!done bra again;\n}" ::"r"(barrier),
      "r"(parity)
      : "memory");
}
// Barriers that were initialised are there for the cluster and for copies.
__device__ __forceinline__ void fence_barrier_init() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
// What was written to shared memory so far is there for bulk copies.
__device__ __forceinline__ void fence_async_shared() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// ---- Copies to shared memory ----

// Completes `bytes` of the barrier's phase. policy: from evict_first().
__device__ inline void bulk_copy(void* to, const void* from, std::uint32_t bytes, std::uint64_t* barrier,
                                 std::uint64_t policy) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], %4;" ::"r"(shared_address(to)),
      "l"(from), "r"(bytes), "r"(shared_address(barrier)), "l"(policy)
      : "memory");
}
__device__ __forceinline__ std::uint64_t evict_first() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
__device__ __forceinline__ std::uint64_t evict_last() {
  std::uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// 16 bytes; there after wait_for_copies(), or wait_for_copies<Left>() if at most Left groups were committed
// after its own.
__device__ inline void copy_async(void* to, const void* from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }
__device__ __forceinline__ void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int Left>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(Left) : "memory");
}
__device__ __forceinline__ void prefetch_l2(const void* p) {
  asm volatile("prefetch.global.L2 [%0];" ::"l"(p));
}

// ---- Words that blocks exchange ----

__device__ __forceinline__ void store_word(std::uint64_t* word, std::uint64_t value) {
  asm volatile("st.relaxed.gpu.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
__device__ __forceinline__ std::uint64_t load_word(const std::uint64_t* word) {
  std::uint64_t value;
  asm volatile("ld.relaxed.gpu.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}
// Others may read the word meanwhile, old or new: what they make of it has no weight.
__device__ __forceinline__ void store_unseen(std::uint32_t* word, std::uint32_t value) { *word = value; }
__device__ inline ulonglong2 load_words(const std::uint64_t* words) {
  ulonglong2 w;
  asm volatile("ld.relaxed.gpu.global.v2.u64 {%0, %1}, [%2];" : "=l"(w.x), "=l"(w.y) : "l"(words) : "memory");
  return w;
}

// ---- What devices give each other: floats, then a count that says they are there ----

// Words that hold a value with its tag, as blocks exchange them on one device.
__device__ __forceinline__ void store_word_everywhere(std::uint64_t* word, std::uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(word), "l"(value) : "memory");
}
__device__ __forceinline__ std::uint64_t load_word_everywhere(const std::uint64_t* word) {
  std::uint64_t value;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(word) : "memory");
  return value;
}
// By one thread, after a barrier of the block: everything that the block wrote is seen by who sees the count.
__device__ __forceinline__ void store_count(std::uint64_t* count, std::uint64_t value) {
  asm volatile("fence.acq_rel.sys;\n st.release.sys.global.u64 [%0], %1;" ::"l"(count), "l"(value)
               : "memory");
}
__device__ __forceinline__ std::uint64_t load_count(const std::uint64_t* count) {
  std::uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(count) : "memory");
  return value;
}
// After load_count() and a barrier: not what a cache held before.
__device__ __forceinline__ float load_given(const float* from) {
  float value;
  asm volatile("ld.relaxed.sys.global.f32 %0, [%1];" : "=f"(value) : "l"(from));
  return value;
}
__device__ __forceinline__ std::uint32_t load_flag(const std::uint32_t* flag) {
  return *static_cast<const volatile std::uint32_t*>(flag);
}

// ---- Tensor cores ----

__device__ __forceinline__ void mma_f16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                        std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ __forceinline__ void mma_bf16(float (&c)[4], const std::uint32_t (&a)[4], std::uint32_t b0,
                                         std::uint32_t b1) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, "
      "{%0,%1,%2,%3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}
__device__ inline std::uint32_t transpose(std::uint32_t tile) {  // 8 x 8 halves
  std::uint32_t out;
  asm volatile("movmatrix.sync.aligned.m8n8.trans.b16 %0, %1;" : "=r"(out) : "r"(tile));
  return out;
}

// Four 8 x 8 tiles of halves, transposed; lane n has the address of row n % 8 of tile n / 8.
__device__ __forceinline__ void load_transposed(std::uint32_t (&to)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address(row)));
}

// ---- Kernels that start early ----

// Before anything else, returning included: a grid that ended before its predecessor would let its own
// successor start.
__device__ inline void wait_for_predecessor() {
  asm volatile("griddepcontrol.launch_dependents;\n griddepcontrol.wait;" ::: "memory");
}
// The same in two parts, where there is work between them.
__device__ __forceinline__ void let_successor_start() {
  asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
}
__device__ __forceinline__ void wait_for_results() { asm volatile("griddepcontrol.wait;" ::: "memory"); }

// ---- Clusters: blocks that share their memory ----

__device__ __forceinline__ void sync_cluster() {
  asm volatile("barrier.cluster.arrive.release.aligned;\n barrier.cluster.wait.acquire.aligned;" ::
                   : "memory");
}
// The address in block `rank`'s memory, for load_cluster().
__device__ __forceinline__ std::uint32_t address_in(std::uint32_t address, std::uint32_t rank) {
  std::uint32_t there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
__device__ __forceinline__ float load_cluster(std::uint32_t address) {
  float v;
  asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(address));
  return v;
}

// ---- Registers and numbers ----

// The lane, read anew: threadIdx.x % 32 before a loop and after it is one value to the compiler, which keeps
// it in a register (or in local memory) over the loop; lane_anew() after it isn't.
__device__ __forceinline__ int lane_anew() {
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}
// A value that the compiler takes for a new one: what it made of the old one (x + 1, say, before a loop) it
// can't use any more and so doesn't keep.
__device__ __forceinline__ void renew(int& value) { asm volatile("" : "+r"(value)::"memory"); }
__device__ __forceinline__ void renew(uint4& v) {
  asm volatile("" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w)::"memory");
}
// Keeps a constant in a register.
template <std::uint32_t Value>
__device__ __forceinline__ std::uint32_t in_register() {
  std::uint32_t v;
  asm volatile("mov.b32 %0, %1;" : "=r"(v) : "n"(Value));
  return v;
}
// (w & Mask) | more, in one operation.
template <std::uint32_t Mask>
__device__ __forceinline__ std::uint32_t join(std::uint32_t w, std::uint32_t more) {
  std::uint32_t r;
  asm("lop3.b32 %0, %1, %2, %3, 0xea;" : "=r"(r) : "r"(w), "n"(Mask), "r"(more));
  return r;
}
// A warpgroup hands registers back to the block's pool, down to Count a thread, or takes them, up to Count.
template <int Count>
__device__ __forceinline__ void give_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Count));
}
template <int Count>
__device__ __forceinline__ void take_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Count));
}

__device__ inline float power_of_two(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

}  // namespace steelyard::cuda::hopper
