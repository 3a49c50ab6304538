// What runs the engine's steps: a Decoder in earnest, a fake in the engine's tests.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "decoder/batch.h"
#include "device/step.h"
#include "device/target.h"

namespace steelyard {

struct RunnerGroup {
  std::uint32_t window = 0;  // tokens; 0: every page is kept
  std::uint32_t pages = 0;   // ids 0 … pages - 1 exist
};

struct RunnerInfo {
  StepLimits limits;
  std::uint32_t page_tokens = 0;
  std::uint32_t vocab_size = 0;
  std::vector<RunnerGroup> groups;
  std::uint32_t depth = 1;  // steps that may be in flight, as Executable::depth()
  // Parts that work on a step one after the other: so many steps run at once, when they are of different
  // sequences.
  std::uint32_t stages = 1;
};

// One caller at a time; all calls take effect in order and allocate nothing.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual const RunnerInfo& info() const = 0;
  // Starts one mixed batch: prefill chunks and decode tokens of several sequences. Throws Error, and starts
  // nothing, when it breaks the limits or `depth` steps are in flight.
  virtual void submit(const Batch& batch) = 0;
  // The results of the oldest step in flight, valid until the next submit() or wait(); throws what went wrong
  // with it. Logits and hidden rows are there when no later step was submitted.
  virtual const StepResult& wait() = 0;
  virtual void reset_slot(std::uint32_t slot) = 0;
  virtual void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                          std::span<const std::int32_t> to) = 0;
};

}  // namespace steelyard
