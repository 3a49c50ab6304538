// What memory a back end needs, as pure functions without a device: planning reads them, arenas are carved by
// them, so the plan and reality can't differ. In the main binary for every back end. Thread-safe.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "program/program.h"

namespace steelyard {

// The most that one step may hold; fixed when an executable is compiled.
struct StepLimits {
  std::uint32_t rows = 512;      // tokens a step
  std::uint32_t outputs = 32;    // rows with logits, sample or hidden a step
  std::uint32_t slots = 1;       // sequences alive at once (and in one step)
  std::uint32_t context = 4096;  // tokens a sequence may reach
  // Steps between launch() and wait(): two, so that the device never waits for the host; with several parts
  // one more than there are, so that each has one to work on.
  std::uint32_t in_flight = 2;
};

// Every weight is copied into the arena, in the order the kernels read or as in the file: a file that changes
// later can't change an answer.
struct WeightLayout {
  std::uint64_t bytes;  // in the arena, a multiple of Target::alignment()
  bool fast;            // false: a correct but slow kernel multiplies this type
};

class Target {
 public:
  virtual ~Target() = default;
  virtual std::string_view name() const = 0;  // "CPU", "CUDA"
  // Whether its memory is the host's: then the process itself is part of its plan.
  virtual bool is_host() const { return true; }
  virtual std::uint64_t alignment() const = 0;
  virtual std::uint32_t page_tokens() const = 0;
  virtual WeightLayout weight_layout(const WeightSpec& weight, Mode mode) const = 0;
  virtual std::uint64_t state_page_bytes(const StateSpec& state) const = 0;  // a multiple of alignment()
  virtual std::uint64_t workspace_bytes(const Program& program, const StepLimits& limits, Mode mode,
                                        std::uint32_t threads) const = 0;
  // Where the device isn't the host: page-locked host memory of an executable …
  virtual std::uint64_t staging_bytes(const Program&, const StepLimits&) const { return 0; }
  // … and estimates, because the driver decides: device memory of compiled kernels and graphs, and of what
  // the driver's context takes on a device that nobody has opened.
  virtual std::uint64_t executable_bytes(const Program&, const StepLimits&) const { return 0; }
  virtual std::uint64_t context_bytes() const { return 0; }
  // Kept free: a load's staging, and what the driver takes later.
  virtual std::uint64_t reserve_bytes() const { return 0; }
};

// Host memory of the links between a model's parts (link.h); 0 where there are none.
std::uint64_t links_bytes(const std::vector<LinkSpec>& links, const StepLimits& limits);

const Target& cpu_target();
const Target& cuda_target();

}  // namespace steelyard
