// Whether a plan fits, the longest context that does, and what to change when it doesn't: fewer tokens of
// context, the smaller KV type, fewer sequences, each alone or together.
#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "base/dtype.h"
#include "base/units.h"
#include "device/target.h"
#include "plan/changes.h"
#include "plan/plan.h"
#include "program/program.h"

namespace steelyard {
namespace {

std::string needed_text(std::uint64_t bytes) { return size_text(bytes, Rounding::up); }
std::string available_text(std::uint64_t bytes) { return size_text(bytes, Rounding::down); }

// Plans of one model, varied.
class Trial {
 public:
  explicit Trial(const PlanInput& in)
      : in_(in), outputs_follow_(in.limits.outputs == in.limits.slots), small_(*in.program) {
    // What write_forward would give for the type.
    for (auto& state : small_.states) state.type = DType::Q8_0;
  }
  bool may_q8_0() const { return in_.kv_type != DType::Q8_0 && in_.mode != Mode::exact; }

  std::uint64_t total(const StepLimits& limits, bool q8_0) const {
    PlanInput in = in_;
    in.limits = as_loaded(limits, outputs_follow_);
    if (q8_0) in.program = &small_, in.kv_type = DType::Q8_0;
    return plan_memory(in).devices[0].total();
  }
  Fits within(std::uint64_t room) const {
    return [this, room](const StepLimits& limits, bool q8_0) { return total(limits, q8_0) <= room; };
  }

 private:
  const PlanInput& in_;
  bool outputs_follow_;
  Program small_;  // with the smaller KV type
};

// The process isn't of quite the same size in every run: what is advised leaves a little for that, where it
// can.
std::string changes(const PlanInput& in, const Trial& trial, std::uint64_t room) {
  const std::uint64_t little = std::min(room, in.process_bytes / 16);
  const auto within = [&](std::uint64_t bytes) {
    return fewest_changes(in.limits, trial.may_q8_0(), trial.within(bytes));
  };
  const std::string text = within(room - little);
  return text.empty() ? within(room) : text;
}

// What the smallest of all variants takes, and its flags.
std::string smallest(const PlanInput& in, const Trial& trial) {
  StepLimits limits = in.limits;
  limits.context = std::min(limits.context, kContextStep);
  limits.slots = 1;
  std::string flags = fmt::format("--context {}", limits.context);
  if (trial.may_q8_0()) flags += " --kv-type q8_0";
  if (in.limits.slots > 1) flags += " --parallel 1";
  return fmt::format("even {} needs {}", flags, needed_text(trial.total(limits, trial.may_q8_0())));
}

}  // namespace

std::uint64_t room_for(std::uint64_t free_bytes, std::uint64_t taken_bytes, std::uint64_t limit) {
  const std::uint64_t all = free_bytes > UINT64_MAX - taken_bytes ? UINT64_MAX : free_bytes + taken_bytes;
  return limit ? std::min(limit, all) : all;
}

Verdict judge(const PlanInput& in, std::uint64_t room) {
  Verdict v{.device = in.device, .needed = plan_memory(in).devices[0].total(), .available = room};
  const std::uint32_t trained = in.config->context_train;
  const Trial trial(in);
  StepLimits all = in.limits;
  all.context = trained;
  v.whole_context = trained > 0 && trial.total(all, false) <= room;
  v.longest_context =
      v.whole_context
          ? trained
          : longest_context(in.limits, false, std::max(trained, in.limits.context), trial.within(room));
  if (v.fits()) {
    v.longest_context = std::max(v.longest_context, in.limits.context);
    return v;
  }
  v.changes = changes(in, trial, room);
  v.why_not = fmt::format("the model needs {} of memory on {}, where {} is available; ",
                          needed_text(v.needed), in.device, available_text(room));
  v.why_not += v.changes.empty() ? smallest(in, trial) + ", so it takes a smaller model or quantisation"
                                 : "it would fit with " + v.changes;
  return v;
}

std::string why_not(const PlanInput& in, std::uint64_t room) {
  return plan_memory(in).devices[0].total() <= room ? std::string() : judge(in, room).why_not;
}

std::string to_text(const Verdict& v) {
  if (!v.fits()) return "doesn't fit: " + v.why_not;
  return fmt::format("fits: {} left; longest context that fits: {}{}", available_text(v.available - v.needed),
                     v.longest_context, v.whole_context ? ", all that it was trained for" : "");
}

}  // namespace steelyard
