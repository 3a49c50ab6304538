// A model loaded on a device, ready to run steps: weights uploaded, state storage carved, program compiled.
// Pages and sequences are the engine's business (engine/page_pool.h); decoder only owns their storage.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decoder/step_runner.h"
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

class Decoder final : public StepRunner {
 public:
  // Loads as planned, and runs a step where the device isn't the host, so that everything its driver takes is
  // there and measured. The weights are copies: `file` isn't read afterwards. Throws Error(no_memory) before
  // anything is read when an arena can't be had, Error(io) when the file changed meanwhile; progress is
  // called from this thread.
  static std::unique_ptr<Decoder> load(std::shared_ptr<const GgufFile> file, Forward forward,
                                       const MemoryPlan& plan, std::shared_ptr<Device> device,
                                       const LoadProgress& progress = {});
  ~Decoder() override;

  const MemoryPlan& plan() const;
  const Program& program() const;
  Device& device();
  MemoryActual measure() const;
  double load_seconds() const;

  const RunnerInfo& info() const override;
  void submit(const Batch& batch) override;
  const StepResult& wait() override;
  void reset_slot(std::uint32_t slot) override;
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override;
  Executable& executable();  // tracing and probes

 private:
  struct Impl;
  explicit Decoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
