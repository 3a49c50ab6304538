// What a block of the step kernel (hopper/step/step_sm90a.cu) keeps in shared memory, and how it is laid out.
//
// Nothing may live in local memory: the rings leave the L1 cache so little that each access goes to L2,
// behind the weights. So what a warp needs later stands here, and is read again where it is needed. The parts
// of an op are functions that take nothing: a pointer to shared memory that is a parameter of a function that
// isn't inlined is generic, and *p a slow LD; in attend(), the_shared().row is an LDS at a constant address.
// And every register gets a value: `float v; if (some) v = f();` makes v live from the kernel's start, in all
// functions; `float v = 0;` costs one instruction.
#pragma once

#include "device/cuda/hopper/gemv/units.cuh"
#include "device/cuda/hopper/step/attention.cuh"
#include "device/cuda/hopper/step/words.cuh"

namespace steelyard::cuda::hopper {

constexpr int kOpsAhead = 8;  // descriptors in shared memory

constexpr int kPhaseGroups = kStepPhaseGroups;
using Walk = Share<kPhaseGroups, true>;

// Where a warp's feeder is among the ops: needed once a group, so it takes no registers.
struct Position {
  Walk share;
  std::uint32_t op;
  bool paired, open;
};

// Units that follow each other in memory, of one warp; none: units == 0.
struct Run {
  const std::uint8_t* from;
  std::uint32_t units, unit_bytes, tail;  // tail: bytes of the last where it isn't whole, else 0
};

// Where a warp is: its op, and how far it has filled its ring and read it.
struct Progress {
  std::uint32_t op;       // the one under way
  std::uint32_t end_op;   // of the descriptors in shared memory
  std::uint32_t brought;  // the same, with those on their way
  Walk walk;              // over the product's units
  struct Side {
    std::uint32_t offset, virt, count;
  } filled, eaten;
  Run run;  // rest of the one being filled in
};

struct Shared {
  StepArg arg;
  Position feeding[kGemvWarps];
  Progress progress[kGemvWarps];
  StepOp ops[kOpsAhead];  // op i at i mod kOpsAhead
  StepRow row;
  Flow flow;
  float add[kPhaseGroups * 16];  // bias and residual of the phase's results, by the thread that writes them
  // By group of the phase: the partial sums [begin, end) that make it up.
  std::uint8_t begin[kPhaseGroups], end[kPhaseGroups];
};
static_assert(sizeof(Shared) <= kStepStaticShared);
__device__ __forceinline__ Shared& the_shared() {
  return *reinterpret_cast<Shared*>(static_shared<sizeof(Shared)>());
}

__device__ __forceinline__ Progress& progress() { return the_shared().progress[threadIdx.x / 32]; }

// The warp's op.
__device__ __forceinline__ const StepOp& op_now() { return the_shared().ops[progress().op % kOpsAhead]; }

// Dynamic shared memory, by kStep...Offset.
__device__ __forceinline__ float* partial_sums() { return reinterpret_cast<float*>(dynamic_shared()); }
__device__ __forceinline__ float* scratch() {
  return reinterpret_cast<float*>(dynamic_shared() + kStepScratchOffset);
}
__device__ __forceinline__ std::uint64_t* barriers() {
  return reinterpret_cast<std::uint64_t*>(dynamic_shared() + kStepBarrierOffset);
}
__device__ __forceinline__ std::uint8_t* region() { return dynamic_shared() + kStepRegionOffset; }

}  // namespace steelyard::cuda::hopper
