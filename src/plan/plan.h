// Memory to the byte, before anything is loaded. Pure: the same inputs give the same plan, no device is
// touched.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "device/target.h"
#include "model/config.h"
#include "program/program.h"

namespace steelyard {

enum class Purpose : std::uint8_t {
  weights,
  state,
  workspace,
  links,        // what other parts of the model hand to this one
  executables,  // compiled kernels and graphs on a device that isn't the host: estimated, then measured
  context,      // what the driver takes when the device is opened
  staging,      // page-locked host memory
  process,
  other_models,  // of this program, loaded already
  reserve
};
const char* purpose_name(Purpose purpose);

struct PlanLine {
  Purpose purpose;
  std::uint64_t bytes;
  std::string note;  // "30 layers + output layer, repacked: Q4_1 56.6 MiB, …"
};

struct GroupPlan {
  std::string name;
  std::uint32_t pages;               // in the pool
  std::uint32_t pages_per_sequence;  // the most that one sequence holds at once
  std::uint64_t page_bytes;          // over all states of the group
};

struct DevicePlan {
  std::string device;  // "CPU"
  std::vector<PlanLine> lines;
  std::uint64_t total() const;
  std::uint64_t bytes(Purpose purpose) const;
  std::uint64_t model_bytes() const;  // what unloading the model gives back
};

struct MemoryPlan {
  StepLimits limits;
  Mode mode = Mode::fast;
  DType kv_type = DType::F16;
  std::uint32_t threads = 1;
  std::uint32_t page_tokens = 0;
  std::vector<GroupPlan> groups;
  std::string layers;               // of several devices, as people count: "CPU 12, CUDA0 53"
  std::vector<DevicePlan> devices;  // the model's device; then, where that isn't the host, the host's side
  std::vector<std::string> slow_types;  // "IQ4_XS: 12 tensors": multiplied by a correct but slow kernel
};

struct PlanInput {
  const ModelConfig* config;
  const Program* program;
  const Target* target;
  std::string device = "CPU";
  StepLimits limits;
  Mode mode = Mode::fast;
  DType kv_type = DType::F16;
  std::uint32_t threads = 1;
  std::uint64_t process_bytes = 0;  // measured by the caller: program, libraries, vocabulary; no models
  // What this program's other models hold on the model's device; and, where that isn't the host, on the host.
  std::uint64_t other_models_bytes = 0, other_models_host_bytes = 0;
  // Where the device isn't the host: what its driver context takes, measured or (paper) assumed.
  std::uint64_t context_bytes = 0;
  bool paper = false;  // nobody has opened the device
  // What of the model this is, for the note ("layers 12–63 + output layer"); empty: all of it.
  std::string share;
};

MemoryPlan plan_memory(const PlanInput& input);
// Of a model in stages, each an input: its devices are the stages', in order, and then, where none of them is
// the host, the host's side.
MemoryPlan plan_stages(std::span<const PlanInput> stages);

// What the whole program may take of a device: what is free there and what it has taken already, its process
// and its other models, or `limit` where that is less (0: no limit). The plan's total() counts the same
// things.
std::uint64_t room_for(std::uint64_t free_bytes, std::uint64_t taken_bytes, std::uint64_t limit);

// Whether a plan fits, and what to say about it. All figures are of the model's device; of several, of the
// one that lacks most.
struct Verdict {
  std::string device;
  std::uint64_t needed = 0;     // bytes, as total() says
  std::uint64_t available = 0;  // the room
  // The longest context, of each sequence, that fits with everything else as it is: a multiple of 256, or the
  // trained one. 0: none does.
  std::uint32_t longest_context = 0;
  bool whole_context = false;  // it is all that the model was trained for
  // When it doesn't fit: the flags that make it fit, one change alone where one is enough ("--context 768 or
  // --kv-type q8_0"), else several together; empty: even the smallest doesn't fit.
  std::string changes;
  std::string why_not;  // one sentence with all of it; empty when it fits
  bool fits() const { return needed <= available; }
};

// Pure: tries plans.
Verdict judge(const PlanInput& input, std::uint64_t room);
// judge().why_not alone.
std::string why_not(const PlanInput& input, std::uint64_t room);
// "fits: 2.40 GiB left; longest context that fits: 24576", or "doesn't fit: …".
std::string to_text(const Verdict& verdict);

// A table for people, plan beside actual bytes when `actual` is given (by line, parallel to devices[].lines).
std::string to_text(const MemoryPlan& plan, const std::vector<std::vector<std::uint64_t>>* actual = nullptr);

}  // namespace steelyard
