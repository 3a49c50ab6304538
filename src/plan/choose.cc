// Which placement: every order of devices and every way to make ranks of equal ones, each cut as well as
// memory and predicted times allow.
#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <functional>
#include <limits>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/units.h"
#include "device/target.h"
#include "plan/changes.h"
#include "plan/parts.h"
#include "plan/placement.h"
#include "plan/speed.h"
#include "plan/split.h"
#include "program/cost.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {
namespace {

using Group = std::vector<std::uint32_t>;  // the devices of a stage
using Order = std::vector<Group>;          // the stages' devices

// More groups than that keep the order in which they were named; of still more only the fastest ones are left
// together, not every set.
constexpr std::size_t kMostPermuted = 5, kMostSubsets = 8;

// Devices that are as fast as each other, in the order of the fleet: they may be ranks, whatever memory each
// has.
std::vector<Group> kinds_of(const PaperFleet& fleet) {
  std::vector<Group> kinds;
  for (std::uint32_t d = 0; d < fleet.devices.size(); ++d) {
    const auto same = std::ranges::find_if(
        kinds, [&](const Group& k) { return fleet.devices[k[0]].as_fast(fleet.devices[d]); });
    if (same == kinds.end())
      kinds.push_back({d});
    else
      same->push_back(d);
  }
  return kinds;
}

// Orders of a placement's groups, without those that differ only in which of equal devices is which.
class Orders {
 public:
  Orders(const PlacementInput& in, bool ranks) : in_(in), times_(in), ranks_(ranks) {
    kinds_ = kinds_of(*in.fleet);
    group_kind({}, 0);
  }
  std::vector<Order> take() { return std::move(orders_); }

 private:
  // For every kind of device: one by one, or in groups of some size and the rest one by one.
  void group_kind(const Order& before, std::size_t kind) {
    if (kind == kinds_.size()) return subsets(before);
    const Group& devices = kinds_[kind];
    const std::size_t most = ranks_ && !in_.fleet->devices[devices[0]].host ? devices.size() : 1;
    for (std::size_t size = 1; size <= most; ++size) {
      if (!why_not_ranks(*in_.program, static_cast<std::uint32_t>(size)).empty()) continue;
      Order groups = before;
      std::size_t d = 0;
      for (; d + size <= devices.size(); d += size)
        groups.emplace_back(devices.begin() + static_cast<std::ptrdiff_t>(d),
                            devices.begin() + static_cast<std::ptrdiff_t>(d + size));
      for (; d < devices.size(); ++d) groups.push_back({devices[d]});
      group_kind(groups, kind + 1);
    }
  }

  void subsets(Order groups) {
    // As named, the CPU first: its layers are the first ones.
    std::ranges::sort(groups, {},
                      [&](const Group& g) { return std::pair(!in_.fleet->devices[g[0]].host, g[0]); });
    if (groups.size() <= kMostPermuted) return permute({}, groups);
    if (groups.size() > kMostSubsets) return fastest(groups);
    for (std::uint32_t set = 1; set < 1u << groups.size(); ++set) {
      Order order;
      for (std::size_t g = 0; g < groups.size(); ++g)
        if (set >> g & 1) order.push_back(groups[g]);
      add(order);
    }
  }

  // All, and without the slowest one after the other.
  void fastest(Order groups) {
    const auto rate = [&](const Group& g) {
      return in_.fleet->devices[g[0]].read_bytes_per_second * static_cast<double>(g.size());
    };
    for (; !groups.empty(); groups.erase(std::ranges::min_element(groups, {}, rate))) add(groups);
  }

  void permute(const Order& before, const Order& left) {
    if (!before.empty()) add(before);
    for (std::size_t g = 0; g < left.size(); ++g) {
      Order longer = before, rest = left;
      longer.push_back(left[g]);
      rest.erase(rest.begin() + static_cast<std::ptrdiff_t>(g));
      permute(longer, rest);
    }
  }

  void add(const Order& order) {
    std::string key;
    for (std::size_t g = 0; g < order.size(); ++g) {
      const DeviceLink within = times_.link_within(order[g]);
      const DeviceLink before = times_.link_between(order[g ? g - 1 : g], order[g]);
      if (within.bytes_per_second <= 0 || before.bytes_per_second <= 0) return;  // no way between them
      for (const std::uint32_t d : order[g]) key += fmt::format("{}+", first_like(d));
      key += link_key(within) + link_key(before);
    }
    if (seen_.insert(key).second) orders_.push_back(order);
  }
  std::size_t first_like(std::uint32_t d) const {
    const auto& devices = in_.fleet->devices;
    const auto same = [&](const PaperDevice& other) { return other.alike(devices[d]); };
    return static_cast<std::size_t>(std::ranges::find_if(devices, same) - devices.begin());
  }
  static std::string link_key(const DeviceLink& link) {
    return fmt::format(" {}{} ", link.bytes_per_second, link.peer ? "p" : "");
  }

  const PlacementInput& in_;
  PartTimes times_;
  bool ranks_;
  std::vector<Group> kinds_;
  std::vector<Order> orders_;
  std::set<std::string> seen_;
};

std::uint32_t gpus_of(const PlacementInput& in, const Order& order) {
  std::uint32_t gpus = 0;
  for (const Group& group : order)
    for (const std::uint32_t d : group) gpus += !in.fleet->devices[d].host;
  return gpus;
}

Placement placement_of(const Order& order, std::span<const std::uint32_t> ends) {
  Placement placement;
  std::uint32_t begin = 0;
  for (std::size_t s = 0; s < ends.size(); begin = ends[s++])
    if (ends[s] > begin) placement.stages.push_back({begin, ends[s], order[s]});
  return placement;
}

// The best cut for the devices in this order, if they can hold the model. `shortest`: the shortest round so
// far; what is 1 % longer needn't be cut as well as can be.
std::optional<Placement> cut(const PlacementInput& in, const Order& order, PartMemory& memory,
                             PartTimes& times, double& shortest) {
  const std::uint32_t gpus = gpus_of(in, order), streams = std::max(in.limits.slots, 1u);
  const auto turns = std::min(streams, static_cast<std::uint32_t>(order.size()));
  const StepShape shape = decode_shape(in, (streams + turns - 1) / turns);
  SplitInput split{.units = unit_count(*in.program), .known = 1.01 * shortest, .turns = turns};
  split.reach = [&](std::size_t s, std::uint32_t begin) { return memory.reach(order[s], begin, gpus); };
  for (std::size_t s = 0; s < order.size(); ++s) {
    split.until.push_back(times.until(order[s], shape));
    if (s > 0)
      split.between +=
          hop_seconds(times.link_between(order[s - 1], order[s]), shape.rows, in.program->n_embd);
  }
  const std::optional<Split> best = best_split(split);
  if (!best) return std::nullopt;
  shortest = std::min(shortest, best->round(split));
  return placement_of(order, best->ends);
}

// As many units as fit, in order; a device that takes none is left out.
std::vector<std::uint32_t> fill(const PlacementInput& in, const Order& order, PartMemory& memory) {
  std::vector<std::uint32_t> ends;
  std::uint32_t unit = 0;
  for (const Group& group : order) ends.push_back(unit = memory.reach(group, unit, gpus_of(in, order)));
  return ends;
}

bool fits_somehow(const PlacementInput& in, const std::vector<Order>& orders) {
  PartMemory memory(in);
  return std::ranges::any_of(
      orders, [&](const Order& order) { return fill(in, order, memory).back() == unit_count(*in.program); });
}

// The flags with which the devices can hold the model.
std::string changes(const PlacementInput& in, const std::vector<Order>& orders) {
  Program small = *in.program;
  for (auto& state : small.states) state.type = DType::Q8_0;
  const bool follow = in.limits.outputs == in.limits.slots;
  return fewest_changes(in.limits, in.kv_type != DType::Q8_0 && in.mode != Mode::exact,
                        [&](const StepLimits& limits, bool q8_0) {
                          PlacementInput varied = in;
                          varied.limits = as_loaded(limits, follow);
                          if (q8_0) varied.program = &small, varied.kv_type = DType::Q8_0;
                          return fits_somehow(varied, orders);
                        });
}

// Which device can't hold the model alone, and by how much.
void add_lacks(const PlacementInput& in, PartMemory& memory, PlacementChoice& choice) {
  for (std::uint32_t d = 0; d < in.fleet->devices.size(); ++d) {
    const PaperDevice& device = in.fleet->devices[d];
    const std::uint64_t needed = memory.bytes(d, {0, unit_count(*in.program)}, 0);
    if (needed > device.memory)
      choice.lacks.push_back(
          {d, fmt::format("{} alone: needs {}, where {} is there: {} too much", device.id,
                          size_text(needed, Rounding::up), size_text(device.memory, Rounding::down),
                          size_text(needed - device.memory, Rounding::up))});
  }
}

bool has_room(const PlacementInput& in, const Placement& placement) {
  const PlacementPlan plan = plan_memory(in, placement);
  return std::ranges::all_of(
      plan.parts, [&](const PartPlan& p) { return p.plan.total() <= in.fleet->devices[p.device].memory; });
}

std::uint32_t context_with_room(const PlacementInput& in, const Placement& placement) {
  const Fits fits = [&](const StepLimits& limits, bool) {
    PlacementInput varied = in;
    varied.limits = limits;
    return has_room(varied, placement);
  };
  StepLimits all = in.limits;
  all.context = in.context_train;
  if (all.context <= in.limits.context || fits(all, false)) return std::max(all.context, in.limits.context);
  return std::max(longest_context(in.limits, false, all.context, fits), in.limits.context);
}

void add_impossible_ranks(const PlacementInput& in, PlacementChoice& choice) {
  for (const Group& kind : kinds_of(*in.fleet))
    for (std::uint32_t ranks = 2; ranks <= kind.size(); ++ranks)
      if (const std::string why = why_not_ranks(*in.program, ranks); !why.empty())
        choice.not_possible.push_back(fmt::format("{} ranks: {}", ranks, why));
}

void say_what_lacks(const PlacementInput& in, const std::vector<Order>& orders, PartMemory& memory,
                    PlacementChoice& choice) {
  std::uint32_t most = 0;
  for (const Order& order : orders) {
    const std::vector<std::uint32_t> ends = fill(in, order, memory);
    if (ends.back() > most || choice.filled.stages.empty())
      most = ends.back(), choice.filled = placement_of(order, ends);
  }
  const std::uint32_t units = unit_count(*in.program);
  choice.units_left = units - most;
  const DevicePlan left = memory.plan(0, {most, units}, 0);
  choice.short_bytes = left.bytes(Purpose::weights) + left.bytes(Purpose::state);
  choice.changes = changes(in, orders);
}

std::string time_text(double seconds) {
  return seconds < 1e-4 ? fmt::format("{:.2g} µs", seconds * 1e6) : fmt::format("{:.3g} ms", seconds * 1e3);
}

// Where a token's time goes.
std::string reason_of(const PlacementInput& in, const Placement& placement, const Prediction& p) {
  std::string text;
  for (std::size_t s = 0; s < placement.stages.size(); ++s) {
    const Group& devices = placement.stages[s].devices;
    text += s ? ", " : "";
    for (std::size_t d = 0; d < devices.size(); ++d)
      text += fmt::format("{}{}", d ? "+" : "", in.fleet->devices[devices[d]].id);
    text += fmt::format(" {}", time_text(p.stage_seconds[s]));
  }
  if (p.hop_seconds > 0) text += ", hops " + time_text(p.hop_seconds);
  if (p.sum_seconds > 0) text += fmt::format(", of it {} for sums between ranks", time_text(p.sum_seconds));
  return text;
}

bool faster(const PlacementCandidate& a, const PlacementCandidate& b) {
  return a.prediction.streams_tokens_per_second > b.prediction.streams_tokens_per_second;
}

// Of those predicted equally fast, within what predictions can tell, the one with the fastest prompts; of
// those again the simplest.
std::size_t simplest_of_the_fastest(std::span<const PlacementCandidate> sorted) {
  constexpr double kSameSpeed = 0.995, kSamePrompts = 0.95;
  const double least = kSameSpeed * sorted[0].prediction.streams_tokens_per_second;
  double prompts = 0;
  for (const PlacementCandidate& c : sorted)
    if (c.prediction.streams_tokens_per_second >= least)
      prompts = std::max(prompts, c.prediction.prompt_tokens_per_second);
  std::size_t best = sorted.size();
  const auto devices = [](const PlacementCandidate& c) {
    std::size_t n = 0;
    for (const Stage& s : c.placement.stages) n += s.devices.size();
    return std::pair(c.placement.stages.size(), n);
  };
  for (std::size_t i = 0; i < sorted.size(); ++i) {
    const Prediction& p = sorted[i].prediction;
    if (p.streams_tokens_per_second < least || p.prompt_tokens_per_second < kSamePrompts * prompts) continue;
    if (best == sorted.size() || devices(sorted[i]) < devices(sorted[best])) best = i;
  }
  return best;
}

void put_in_order(std::vector<PlacementCandidate>& candidates) {
  if (candidates.empty()) return;
  std::ranges::stable_sort(candidates, faster);
  const auto best = candidates.begin() + static_cast<std::ptrdiff_t>(simplest_of_the_fastest(candidates));
  std::rotate(candidates.begin(), best, best + 1);
}

// Devices whose rates nobody gave count as equally fast.
PaperFleet with_rates(PaperFleet fleet) {
  if (!fleet.rates_known())
    for (PaperDevice& d : fleet.devices) d.read_bytes_per_second = 1e12, d.multiplies_per_second = 0;
  return fleet;
}

}  // namespace

PlacementChoice choose_placement(const PlacementInput& asked) {
  const bool known = asked.fleet->rates_known();
  const PaperFleet fleet = with_rates(*asked.fleet);
  PlacementInput in = asked;
  in.fleet = &fleet;
  PartMemory memory(in);
  PartTimes times(in);
  PlacementChoice choice;
  const std::vector<Order> orders = Orders(in, known).take();
  double round = std::numeric_limits<double>::infinity();
  for (const Order& order : orders)
    if (const auto placement = cut(in, order, memory, times, round)) {
      PlacementCandidate c{*placement, predict(in, *placement, times), {}};
      c.reason = known ? reason_of(in, c.placement, c.prediction) : "";
      choice.candidates.push_back(std::move(c));
    }
  put_in_order(choice.candidates);
  if (!known)
    for (PlacementCandidate& c : choice.candidates) c.prediction = {};
  add_lacks(in, memory, choice);
  if (known) add_impossible_ranks(in, choice);
  if (choice.fits())
    choice.longest_context = context_with_room(in, choice.candidates[0].placement);
  else
    say_what_lacks(in, orders, memory, choice);
  return choice;
}

}  // namespace steelyard
