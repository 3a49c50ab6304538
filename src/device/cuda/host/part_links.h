// What joins a part of a model on a GPU to the others (device/link.h): its queue waits for a box's count,
// copies the rows, and writes the count of the box that it fills. The queue's own wait takes no
// multiprocessor, and the copy engines do the rest, so kernels know nothing of it.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "device/cuda/general/args.h"
#include "device/cuda/host/gpu.h"
#include "device/device.h"
#include "program/program.h"

namespace steelyard::cuda {

class PartLinks {
 public:
  // What of the executable's memory it fills and reads. Outlives this.
  struct Memory {
    const std::vector<DevicePtr>& buffers;  // by BufferId, float [rows][width]
    DevicePtr last_sample;                  // i32 [slots]
    std::uint32_t slots;
  };
  // Throws Error(internal) when the bindings lack what the program names. `program` outlives this.
  PartLinks(Gpu& gpu, const Program& program, const Bindings& bindings, const Memory& memory);

  // By LinkId, those between the ranks of this part's stage. abort: StepView::abort.
  std::vector<ExchangeArg> exchanges(const std::uint32_t* abort) const;

  // Enqueue, in this order around a step's kernels, for step `number`. `samples_needed`:
  // TakenSteps::samples_needed().
  void wait(std::uint64_t number, std::uint64_t samples_needed, CuStream queue);
  void take(std::uint64_t number, std::uint64_t samples_needed, std::uint32_t rows, CuStream queue);
  void send(std::uint64_t number, std::uint32_t rows, CuStream queue);
  void send_samples(std::uint64_t number, CuStream queue);  // after the sampler

 private:
  // One end of a link.
  struct End {
    LinkBox box;
    CuPtr sent;      // the box's count, as the GPU sees it
    DevicePtr rows;  // the buffer
    std::uint64_t row_bytes;
  };
  std::optional<End> find_end(const Program& program, const Bindings& bindings, bool sends) const;
  CuPtr on_device(const void* host) const;
  ExchangeArg exchange(const LinkBox& box, const std::uint32_t* abort) const;
  void wait_for(CuPtr count, std::uint64_t steps, CuStream queue);
  void write(CuPtr count, std::uint64_t steps, CuStream queue);

  Gpu& gpu_;
  const Program& program_;
  const std::vector<LinkBox> boxes_;
  const Memory memory_;
  const TokenBox tokens_;
  const CuPtr sampled_;                 // their count, as the GPU sees it; 0: one part has everything
  const bool samples_, needs_samples_;  // samples here; or needs what another part samples
  const std::optional<End> from_, to_;
};

}  // namespace steelyard::cuda
