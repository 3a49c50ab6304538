// Where the parts of one model lie, as data, for any number of GPUs and the CPU: memory to the byte,
// predicted speed, and the choice between placements. Pure: no device is touched. Plans on
// paper: what runs is laid out by engine/placement.h.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "device/target.h"
#include "plan/fleet.h"
#include "plan/plan.h"
#include "program/cost.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {

// Units [begin, end) (program/share.h) on one device, or divided over several as tensor ranks.
struct Stage {
  std::uint32_t begin = 0, end = 0;
  std::vector<std::uint32_t> devices;  // indices into the fleet
  bool operator==(const Stage&) const = default;
};
struct Placement {
  std::vector<Stage> stages;  // in the order of their units, which they cover
  bool operator==(const Placement&) const = default;
};

struct PlacementInput {
  const Program* program;
  const PaperFleet* fleet;
  const Target* gpu;   // what GPUs declare …
  const Target* host;  // … and the CPU
  StepLimits limits;
  Mode mode = Mode::fast;
  DType kv_type = DType::F16;
  std::uint32_t threads = 1;        // of the CPU
  std::uint64_t process_bytes = 0;  // as in PlanInput
  std::uint32_t context_train = 0;  // tokens that the model was trained for; 0: unknown
};

// What one device holds of it. total() counts what the driver takes and the reserve too.
struct PartPlan {
  std::uint32_t device;
  std::uint32_t stage;
  Share share;
  DevicePlan plan;
};
struct PlacementPlan {
  std::vector<PartPlan> parts;  // by stage and rank
  DevicePlan host;              // the GPUs' host side, where the CPU has no part of its own; else empty
};
PlacementPlan plan_memory(const PlacementInput& input, const Placement& placement);

// Seconds and rates of a placement; 0 where the fleet's rates don't say.
struct Prediction {
  double step_seconds = 0;            // of one stream: a token
  std::vector<double> stage_seconds;  // of those, by stage, sums between ranks included
  double hop_seconds = 0, sum_seconds = 0;
  double tokens_per_second = 0;          // one stream
  double limit_tokens_per_second = 0;    // the same at the devices' nominal rates, nothing else costing time
  double streams_tokens_per_second = 0;  // limits.slots streams together
  double prompt_tokens_per_second = 0;
};
Prediction predict(const PlacementInput& input, const Placement& placement);

// Tokens of context that predictions assume, and tokens of the prompt (at most the context).
inline constexpr std::uint32_t kPredictedDepth = 512, kPredictedPrompt = 8192;

struct PlacementCandidate {
  Placement placement;
  Prediction prediction;
  std::string reason;  // a clause: where its time goes
};
struct DeviceLack {
  std::uint32_t device;
  std::string why;  // "the model needs 21.1 GiB, where 12.0 GiB is there: 9.1 GiB too much"
};
struct PlacementChoice {
  // The first is the one to take: the fastest for the streams asked for, of equals (0.5 %) the one with the
  // fastest prompts, of equals again (5 %) the simplest. The others follow by speed. Empty: nothing fits.
  std::vector<PlacementCandidate> candidates;
  std::vector<DeviceLack> lacks;          // the devices that can't hold the model alone
  std::vector<std::string> not_possible;  // splits that the model doesn't allow, each with why
  // Tokens of each sequence that the one to take has room for with everything else as it is: a multiple of
  // 256, or what the model was trained for.
  std::uint32_t longest_context = 0;
  // When nothing fits: as much as fits, in order, and what it lacks.
  Placement filled;
  std::uint64_t short_bytes = 0;
  std::uint32_t units_left = 0;
  std::string changes;  // flags that would make it fit; empty: none do
  bool fits() const { return !candidates.empty(); }
};
PlacementChoice choose_placement(const PlacementInput& input);

// "CUDA0 32, CUDA1 33": as people count, repeating layers and one for the output layer.
std::string layers_text(const PlacementInput& input, const Placement& placement);
// "2 stages", "2 ranks", "CUDA0 alone", "2 stages with the CPU", "4 stages of 2 ranks".
std::string kind_text(const PlacementInput& input, const Placement& placement);

// One sentence when nothing fits: what lacks and what would help.
std::string not_fitting_text(const PlacementInput& input, const PlacementChoice& choice);
// For people: placement, predicted speeds, each device's table, runners-up, what would make it fit.
std::string to_text(const PlacementInput& input, const PlacementChoice& choice);
// A memory map of each device, as an SVG document.
std::string to_svg(const PlacementInput& input, const PlacementChoice& choice, const std::string& title);

}  // namespace steelyard
