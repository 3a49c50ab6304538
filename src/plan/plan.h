// Memory to the byte, before anything is loaded. Pure: the same inputs give the same plan, no device is
// touched.
#pragma once

#include <cstdint>
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
  executables,  // compiled kernels and graphs on a device that isn't the host: estimated, then measured
  context,      // what the driver takes when the device is opened
  staging,      // page-locked host memory
  process,
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
};

struct MemoryPlan {
  StepLimits limits;
  Mode mode = Mode::fast;
  DType kv_type = DType::F16;
  std::uint32_t threads = 1;
  std::uint32_t page_tokens = 0;
  std::vector<GroupPlan> groups;
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
  std::uint64_t process_bytes = 0;  // measured by the caller: program, libraries, vocabulary
  // Where the device isn't the host: what its driver context takes, measured or (paper) assumed.
  std::uint64_t context_bytes = 0;
  bool paper = false;  // nobody has opened the device
};

MemoryPlan plan_memory(const PlanInput& input);

// Whether it fits `free_bytes`; when not, one sentence with the smallest changes that would make it fit
// (context, KV type, fewer sequences), else empty. Pure: tries plans.
std::string why_not(const PlanInput& input, std::uint64_t free_bytes);

// A table for people, plan beside actual bytes when `actual` is given (by line, parallel to devices[].lines).
std::string to_text(const MemoryPlan& plan, const std::vector<std::vector<std::uint64_t>>* actual = nullptr);

}  // namespace steelyard
