// What one device holds and computes of a loaded model: the whole of it, the layers of a stage, or a tensor
// rank's piece of them. Weights
// uploaded, state storage carved, program compiled. One thread, the decoder's.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "device/device.h"
#include "device/link.h"
#include "gguf/gguf.h"
#include "model/forward.h"
#include "plan/plan.h"
#include "program/program.h"

namespace steelyard {

class Part {
 public:
  // Takes all its memory, so that what can't fit is said before anything is read. `plan` outlives this;
  // `lines` is this part's device in it.
  Part(Forward forward, std::shared_ptr<Device> device, const MemoryPlan& plan, const DevicePlan& lines);

  // Reads and repacks its weights; the file isn't needed afterwards.
  void load_weights(const GgufFile& file, const LoadProgress& progress);
  // `links` is null for a whole model.
  void compile(const Links* links);

  Device& device() const { return *device_; }
  Executable& executable() const { return *executable_; }
  const Program& program() const { return forward_.program; }
  std::uint64_t file_bytes() const;  // of its weights
  // Runs `work`, which makes the device's driver take memory for this part.
  void count_driver_memory(const std::function<void()>& work);

  // Bytes that a line of its plan really holds; the lines that only the whole process has are the plan's.
  std::uint64_t actual(const PlanLine& line) const;
  // Of the process's resident bytes.
  std::uint64_t held_on_host() const;

 private:
  std::vector<std::uint64_t> weight_offsets() const;
  std::function<void(std::uint64_t, std::uint64_t)> released_from(const GgufFile& file,
                                                                  std::size_t weight) const;
  void place_states();

  Forward forward_;
  std::shared_ptr<Device> device_;
  const MemoryPlan& plan_;
  std::unique_ptr<Arena> weights_, states_, workspace_;
  Bindings bindings_;
  std::unique_ptr<Executable> executable_;
  std::uint64_t executable_bytes_ = 0;  // of the device, measured
};

}  // namespace steelyard
