// A model loaded on a device, or in parts on several, ready to run steps. Pages and sequences are the
// engine's business (engine/page_pool.h); decoder only owns their storage: each part that of its layers, for
// the same page ids.
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

// A part of a model before it is loaded: what it computes, and where.
struct PlacedPart {
  Forward forward;
  std::shared_ptr<Device> device;
};

class Decoder final : public StepRunner {
 public:
  // Loads as planned, all parts at once, and runs a step where a device isn't the host, so that everything
  // its driver takes is there and measured. The first devices of the plan are the parts', in order. The
  // weights are copies: `file` isn't read afterwards. Throws Error(no_memory) before anything is read when an
  // arena can't be had, Error(io) when the file changed meanwhile; progress is called from one thread at a
  // time.
  static std::unique_ptr<Decoder> load(std::shared_ptr<const GgufFile> file, std::vector<PlacedPart> parts,
                                       const MemoryPlan& plan, const LoadProgress& progress = {});
  ~Decoder() override;

  const MemoryPlan& plan() const;
  std::size_t n_parts() const;
  const Program& program(std::size_t part = 0) const;
  Device& device(std::size_t part = 0);
  MemoryActual measure() const;
  double load_seconds() const;
  // A part failed while others went on: what they hold fits together no longer, and every step fails.
  bool failed() const;

  const RunnerInfo& info() const override;
  void submit(const Batch& batch) override;
  const StepResult& wait() override;
  void reset_slot(std::uint32_t slot) override;
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override;
  Executable& executable(std::size_t part = 0);  // reports, tracing and probes

 private:
  struct Impl;
  explicit Decoder(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
