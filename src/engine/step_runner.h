// What the engine needs of a loaded model to run steps; decoder/ behind it in earnest, a fake in tests.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "decoder/batch.h"
#include "decoder/decoder.h"
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
  // submit() returns before the step is done, and a second step may be submitted before the first is waited
  // for: the engine then runs one step ahead of its knowledge.
  bool asynchronous = false;
};

// One caller at a time. submit/wait as Decoder's; all calls take effect in order.
class StepRunner {
 public:
  virtual ~StepRunner() = default;
  virtual const RunnerInfo& info() const = 0;
  virtual void submit(const Batch& batch) = 0;
  virtual const StepResult& wait() = 0;
  virtual void reset_slot(std::uint32_t slot) = 0;
  virtual void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                          std::span<const std::int32_t> to) = 0;
};

// The decoder must outlive it.
std::unique_ptr<StepRunner> make_decoder_runner(Decoder& decoder);

}  // namespace steelyard
