// A model loaded on a device, ready to run steps: weights uploaded, state storage carved, program compiled.
// Pages and sequences are the engine's business (engine/page_pool.h); decoder only owns their storage.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decoder/batch.h"
#include "device/device.h"
#include "device/step.h"
#include "gguf/gguf.h"
#include "model/forward.h"
#include "plan/plan.h"
#include "program/program.h"

namespace steelyard {

// Bytes really held, by the plan's lines.
struct MemoryActual {
  std::vector<std::vector<std::uint64_t>> lines;  // parallel to MemoryPlan::devices and their lines
  std::uint64_t resident_bytes = 0;               // of the process, as the system counts pages touched
};

class Decoder {
 public:
  // Loads as planned, and runs a step where the device is asynchronous, so that everything it needs is there
  // and measured. `file` stays open as long as weights are mapped. Throws Error(no_memory) before
  // anything is read when an arena can't be had; progress is called from this thread.
  static std::unique_ptr<Decoder> load(std::shared_ptr<const GgufFile> file, Forward forward,
                                       const MemoryPlan& plan, std::shared_ptr<Device> device,
                                       const LoadProgress& progress = {});
  ~Decoder();

  const MemoryPlan& plan() const;
  const Program& program() const;
  Device& device();
  MemoryActual measure() const;
  double load_seconds() const;

  // Runs one mixed batch: prefill chunks and decode tokens of several sequences. Where the device is
  // asynchronous submit() returns at once and a second step may be submitted before the first is waited for.
  // wait() gives the results of the oldest, valid until the next wait(), logits and hidden until the next
  // submit(). Not thread-safe. Throws Error(bad_input) when the batch breaks the plan's limits. Allocates
  // nothing.
  void submit(const Batch& batch);
  const StepResult& wait();

  void reset_slot(std::uint32_t slot);
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from, std::span<const std::int32_t> to);
  Executable& executable();  // tracing and probes

 private:
  struct Impl;
  explicit Decoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
