// How ops of the step kernel hand values on: words of 64 bits, of which the upper half is the tag of the op
// (in this step) that wrote it and the lower a float or two halves. Whoever needs a word reads it until the
// tag is there. One store and one load carry value and readiness together, so that neither a barrier nor a
// fence stands between ops.
//
// Why a word is never overwritten before all have read it: an op's results are complete only when every block
// with a share of it has read the op's whole input, and whoever writes a buffer again has waited for the
// complete results of an op that came after the buffer's readers. Blocks without a share read nothing.
//
// Tags repeat after kStepNumbers steps (2.3 hours at 500 a second). A word that was last written exactly so
// long ago would then look new: attention's parts that short contexts leave alone, and all of them where
// every step since had several rows. So the host clears all words when it starts to count anew
// (HopperPlan::tagged_words()).
#pragma once

#include <cstdint>

#include "device/cuda/common/ptx.cuh"

namespace steelyard::cuda::hopper {

// Of a step, in shared memory.
struct Flow {
  std::uint32_t first_tag;     // op i's is first_tag + i
  std::uint32_t stop;          // the step is being given up: waiting ends, values are worthless
  const std::uint32_t* abort;  // StepView::abort
  __device__ __forceinline__ std::uint32_t tag(std::int32_t op) const { return first_tag + op; }
};

// After a look in vain: whether the step was given up.
__device__ __forceinline__ bool given_up(Flow& flow, std::uint32_t& looks) {
  volatile std::uint32_t* stop = &flow.stop;
  if (*stop != 0) return true;
  if ((++looks & 0xfff) != 0 || *static_cast<const volatile std::uint32_t*>(flow.abort) == 0) return false;
  *stop = 1;
  return true;
}

// Looks until all it looks for is there.
template <typename Look>
__device__ __forceinline__ void look_until(Flow& flow, Look look) {
  std::uint32_t looks = 0;
  while (!look() && !given_up(flow, looks)) {
  }
}

__device__ __forceinline__ void put(std::uint64_t* word, std::uint32_t value, std::uint32_t tag) {
  store_word(word, static_cast<std::uint64_t>(tag) << 32 | value);
}
__device__ __forceinline__ void put(std::uint64_t* word, float value, std::uint32_t tag) {
  put(word, __float_as_uint(value), tag);
}

// Whether both words of a look have the tag.
__device__ __forceinline__ bool has(const ulonglong2& w, std::uint32_t tag) {
  return static_cast<std::uint32_t>(w.x >> 32) == tag && static_cast<std::uint32_t>(w.y >> 32) == tag;
}

__device__ __forceinline__ std::uint32_t take(const std::uint64_t* word, std::uint32_t tag, Flow& flow) {
  std::uint64_t w;
  look_until(flow, [&] {
    w = load_word(word);
    return static_cast<std::uint32_t>(w >> 32) == tag;
  });
  return static_cast<std::uint32_t>(w);
}
__device__ __forceinline__ float take_float(const std::uint64_t* word, std::uint32_t tag, Flow& flow) {
  return __uint_as_float(take(word, tag, flow));
}

}  // namespace steelyard::cuda::hopper
