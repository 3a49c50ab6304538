// The step kernel's weights: each warp's ring (hopper/gemv/units.cuh), filled over op boundaries.
#pragma once

#include "device/cuda/hopper/step/state.cuh"

namespace steelyard::cuda::hopper {

__device__ __forceinline__ Walk walk_of(const StepOp& op) {
  const LinearArg& a = op.linear.linear;
  std::uint32_t block = blockIdx.x + op.rotation;
  if (block >= gridDim.x) block -= gridDim.x;
  const std::uint32_t by = the_shared().arg.blocks_reciprocal;
  return Walk(a, a.epilogue == Epilogue::gate_up, 0, __umulhi(a.groups * block, by),
              __umulhi(a.groups * (block + 1), by));
}

__device__ __forceinline__ Run take_run(const LinearArg& a, Position& at) {
  Walk& share = at.share;
  std::uint32_t g;
  const Segment& s = share.locate(a, at.paired, share.group, g);
  Run run;
  run.unit_bytes = s.unit_bytes;
  run.units = min(share.left, share.units - share.unit);
  const std::uint32_t chunks = unit_chunks(a, share.unit + run.units - 1);
  run.tail = chunks == 4 ? 0 : chunks * s.chunk_bytes;
  run.from = s.w + g * s.group_bytes + static_cast<std::uint64_t>(share.unit) * s.unit_bytes;
  share.left -= run.units;
  share.unit = 0;
  ++share.group;
  return run;
}

// The warp's next one; none before an op whose descriptor isn't there. All lanes call. A function of its own:
// every type's loop calls it.
static __device__ __noinline__ Run next_run() {
  Shared& shared = the_shared();
  const int warp = threadIdx.x / 32;
  const std::uint32_t end = shared.progress[warp].end_op;
  Position at = shared.feeding[warp];
  Run run{};
  __syncwarp();  // all have read it
  while (at.op < end && run.units == 0) {
    const StepOp& op = shared.ops[at.op % kOpsAhead];
    if (!at.open && op.kind == StepKind::linear) {
      at.paired = op.linear.linear.epilogue == Epilogue::gate_up;
      at.share = walk_of(op);
      at.share.left = 0;
      if (!at.share.done()) at.share.open(warp);
      at.open = true;
    }
    if (at.open && at.share.left != 0) {
      run = take_run(op.linear.linear, at);
      continue;
    }
    if (at.open && !at.share.done()) at.share.close();
    if (at.open && !at.share.done()) {
      at.share.open(warp);
    } else {
      ++at.op;
      at.open = false;
    }
  }
  if (threadIdx.x % 32 == 0) shared.feeding[warp] = at;
  __syncwarp();
  return run;
}

// A warp's ring: copies its units of all ops there, in the order in which the warp will multiply them.
class WeightStream {
 public:
  __device__ __forceinline__ WeightStream() {
    const StepArg& s = the_shared().arg;
    const int warp = threadIdx.x / 32;
    const Progress& p = progress();
    filled_ = {region() + s.region_bytes + warp * s.ring_bytes,
               barriers() + warp * kSlots,
               s.ring_bytes,
               p.filled.offset,
               p.filled.virt,
               p.filled.count};
    eaten_ = filled_;
    eaten_.offset = p.eaten.offset, eaten_.virt = p.eaten.virt, eaten_.count = p.eaten.count;
    run_ = p.run;
    policy_ = evict_first();
    __syncwarp();  // all have read it
  }
  // Until the next one is made.
  __device__ __forceinline__ void save() const {
    if (threadIdx.x % 32 == 0) {
      Progress& p = progress();
      p.filled = {filled_.offset, filled_.virt, filled_.count};
      p.eaten = {eaten_.offset, eaten_.virt, eaten_.count};
      p.run = run_;
    }
    __syncwarp();
  }

  // Copies until the ring is full or the descriptors end. All lanes call.
  __device__ __forceinline__ void fill() {
    while (true) {
      if (run_.units == 0) {
        run_ = next_run();
        if (run_.units == 0) return;
      }
      const std::uint32_t bytes = run_.units == 1 && run_.tail != 0 ? run_.tail : run_.unit_bytes;
      const std::uint32_t pad = filled_.offset + bytes > filled_.size ? filled_.size - filled_.offset : 0;
      if (filled_.count - eaten_.count >= kSlots || filled_.virt + pad + bytes - eaten_.virt > filled_.size)
        return;
      const std::uint32_t slot = filled_.count % kSlots, at = filled_.place(bytes);
      if (threadIdx.x % 32 == 0) {
        barrier_expect(filled_.barriers + slot, bytes);
        bulk_copy(filled_.base + at, run_.from, bytes, filled_.barriers + slot, policy_);
      }
      run_.from += run_.unit_bytes;
      --run_.units;
    }
  }

  // The next unit, once it is there.
  __device__ __forceinline__ const std::uint8_t* next(std::uint32_t bytes) {
    const std::uint32_t slot = eaten_.count % kSlots, parity = eaten_.count / kSlots & 1;
    const std::uint8_t* at = eaten_.base + eaten_.place(bytes);
    barrier_wait(eaten_.barriers + slot, parity);
    return at;
  }

 private:
  Ring filled_, eaten_;
  Run run_;
  std::uint64_t policy_;
};

static __device__ __noinline__ void fill() {
  WeightStream stream;
  stream.fill();
  stream.save();
}

}  // namespace steelyard::cuda::hopper
