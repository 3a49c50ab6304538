// Whether a plan fits, the longest context that does, and what to change when it doesn't: fewer tokens of
// context, the smaller KV type, fewer sequences, each alone or together.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <vector>

#include "base/dtype.h"
#include "base/units.h"
#include "device/target.h"
#include "plan/plan.h"
#include "program/program.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kContextStep = 256;  // the least context, and what contexts are multiples of

std::string needed_text(std::uint64_t bytes) { return size_text(bytes, Rounding::up); }
std::string available_text(std::uint64_t bytes) { return size_text(bytes, Rounding::down); }

// Plans of one model, varied.
class Trial {
 public:
  Trial(const PlanInput& in, std::uint64_t room)
      : in_(in),
        room_(room),
        outputs_follow_slots_(in.limits.outputs == in.limits.slots),
        small_(*in.program) {
    for (auto& state : small_.states) state.type = DType::Q8_0;
  }

  // As loading would plan it: no more rows a step than there can be tokens, results for every sequence.
  std::uint64_t total() const {
    PlanInput in = in_;
    StepLimits& l = in.limits;
    l.rows = static_cast<std::uint32_t>(std::min<std::uint64_t>(l.rows, std::uint64_t{l.context} * l.slots));
    l.rows = std::max({l.rows, l.slots, 1u});
    if (outputs_follow_slots_) l.outputs = l.slots;
    return plan_memory(in).devices[0].total();
  }
  bool fits() const { return total() <= room_; }
  bool q8_0_is_smaller() const { return in_.kv_type != DType::Q8_0 && in_.mode != Mode::exact; }
  const StepLimits& limits() const { return in_.limits; }

  // What write_forward would give for the type.
  void take_q8_0() {
    in_.program = &small_;
    in_.kv_type = DType::Q8_0;
  }
  void set_slots(std::uint32_t slots) { in_.limits.slots = slots; }
  void set_context(std::uint32_t context) { in_.limits.context = context; }

  // The longest that fits, at most `most`, in steps; 0 when none does. Larger contexts never need less.
  std::uint32_t longest_context(std::uint32_t most) {
    std::uint32_t low = 0, high = most / kContextStep;
    while (low < high) {
      const std::uint32_t middle = (low + high + 1) / 2;
      set_context(middle * kContextStep);
      if (fits())
        low = middle;
      else
        high = middle - 1;
    }
    set_context(low * kContextStep);
    return low * kContextStep;
  }
  // The most sequences, fewer than now, that fit; 0 when not even one does.
  std::uint32_t most_slots() {
    std::uint32_t low = 0, high = in_.limits.slots - 1;
    while (low < high) {
      const std::uint32_t middle = (low + high + 1) / 2;
      set_slots(middle);
      if (fits())
        low = middle;
      else
        high = middle - 1;
    }
    set_slots(low);
    return low;
  }

 private:
  PlanInput in_;
  std::uint64_t room_;
  bool outputs_follow_slots_;
  Program small_;  // with the smaller KV type
};

enum Change : unsigned { kContext = 1, kKvType = 2, kSlots = 4 };

// The flags of a set of changes that makes it fit; empty when it doesn't or when one of them isn't possible.
std::string try_changes(const PlanInput& in, std::uint64_t room, unsigned set) {
  Trial trial(in, room);
  std::string text;
  if (set & kKvType) {
    if (!trial.q8_0_is_smaller()) return {};
    trial.take_q8_0();
  }
  if (set & kSlots) {
    if (in.limits.slots < 2) return {};
    if (set & kContext)
      trial.set_slots(1);
    else if (trial.most_slots() == 0)
      return {};
  }
  if (set & kContext) {
    const std::uint32_t context = trial.longest_context(in.limits.context - 1);
    if (context == 0) return {};
    text += fmt::format(" --context {}", context);
  }
  if (!trial.fits()) return {};
  if (set & kKvType) text += " --kv-type q8_0";
  if (set & kSlots) text += fmt::format(" --parallel {}", trial.limits().slots);
  return text.substr(1);
}

// All sets of as few changes as are enough, or nothing.
std::string fewest_changes(const PlanInput& in, std::uint64_t room) {
  for (int size = 1; size <= 3; ++size) {
    std::string text;
    for (unsigned set = 1; set < 8; ++set) {
      if (std::popcount(set) != size) continue;
      const std::string way = try_changes(in, room, set);
      if (!way.empty()) text += (text.empty() ? "" : ", or ") + way + (size > 1 ? " together" : "");
    }
    if (!text.empty()) return text;
  }
  return {};
}

// The process isn't of quite the same size in every run: what is advised leaves a little for that, where it
// can.
std::string changes(const PlanInput& in, std::uint64_t room) {
  const std::uint64_t little = std::min(room, in.process_bytes / 16);
  const std::string text = fewest_changes(in, room - little);
  return text.empty() ? fewest_changes(in, room) : text;
}

// What the smallest of all variants takes, and its flags.
std::string smallest(const PlanInput& in, std::uint64_t room) {
  Trial trial(in, room);
  trial.set_context(std::min(in.limits.context, kContextStep));
  trial.set_slots(1);
  std::string flags = fmt::format("--context {}", trial.limits().context);
  if (trial.q8_0_is_smaller()) trial.take_q8_0(), flags += " --kv-type q8_0";
  if (in.limits.slots > 1) flags += " --parallel 1";
  return fmt::format("even {} needs {}", flags, needed_text(trial.total()));
}

}  // namespace

std::uint64_t room_for(std::uint64_t free_bytes, std::uint64_t taken_bytes, std::uint64_t limit) {
  const std::uint64_t all = free_bytes > UINT64_MAX - taken_bytes ? UINT64_MAX : free_bytes + taken_bytes;
  return limit ? std::min(limit, all) : all;
}

Verdict judge(const PlanInput& in, std::uint64_t room) {
  Verdict v{.needed = plan_memory(in).devices[0].total(), .available = room};
  const std::uint32_t trained = in.config->context_train;
  Trial trial(in, room);
  trial.set_context(trained);
  v.whole_context = trained > 0 && trial.fits();
  v.longest_context = v.whole_context ? trained : trial.longest_context(std::max(trained, in.limits.context));
  if (v.fits()) {
    v.longest_context = std::max(v.longest_context, in.limits.context);
    return v;
  }
  v.changes = changes(in, room);
  v.why_not = fmt::format("the model needs {} of memory on {}, where {} is available; ",
                          needed_text(v.needed), in.device, available_text(room));
  v.why_not += v.changes.empty() ? smallest(in, room) + ", so it takes a smaller model or quantisation"
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
