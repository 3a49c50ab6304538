// A placement, its prediction and the ones that weren't taken, as text for people.
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/units.h"
#include "plan/parts.h"
#include "plan/placement.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {
namespace {

constexpr std::size_t kMostRunnersUp = 4;

std::string ids_of(const PlacementInput& in, const Stage& stage) {
  std::string text;
  for (const std::uint32_t d : stage.devices)
    text += fmt::format("{}{}", text.empty() ? "" : "+", in.fleet->devices[d].id);
  return text;
}

std::string needed(std::uint64_t bytes) { return size_text(bytes, Rounding::up); }

// Layers of a stage as people count them, the output layer for one.
std::uint32_t counted(const Stage& s, std::uint32_t units) {
  return std::min(s.end, units) - std::max(s.begin, 1u);
}

std::string links_text(const PlacementInput& in, const Placement& placement) {
  std::vector<std::uint32_t> all;
  for (const Stage& s : placement.stages) all.insert(all.end(), s.devices.begin(), s.devices.end());
  std::vector<std::string> names;
  for (std::size_t a = 0; a < all.size(); ++a)
    for (std::size_t b = a + 1; b < all.size(); ++b) {
      const DeviceLink& link = in.fleet->link(all[a], all[b]);
      const std::string text = link.name + (link.peer ? "" : " through the host");
      if (std::ranges::find(names, text) == names.end()) names.push_back(text);
    }
  return fmt::format("{}", fmt::join(names, ", "));
}

std::string headline(const PlacementInput& in, const PlacementCandidate& c) {
  const Prediction& p = c.prediction;
  std::string text = "placement: " + kind_text(in, c.placement);
  if (const std::string links = links_text(in, c.placement); !links.empty()) text += ", joined by " + links;
  if (p.tokens_per_second > 0)
    text += fmt::format("; predicted {:.3g} ms a token: {}", p.step_seconds * 1e3, c.reason);
  return text + "\n  " + layers_text(in, c.placement) + "\n";
}

std::string speeds(const PlacementInput& in, const PlacementCandidate& c) {
  const Prediction& p = c.prediction;
  if (p.tokens_per_second <= 0) return {};
  std::string text = fmt::format(
      "predicted        {:>8} tokens/s for one stream, {:.0f} % of the {} that the nominal bandwidth "
      "allows\n",
      rate_text(p.tokens_per_second), 100 * p.tokens_per_second / p.limit_tokens_per_second,
      rate_text(p.limit_tokens_per_second));
  if (in.limits.slots > 1)
    text += fmt::format("                 {:>8} tokens/s for {} streams together\n",
                        rate_text(p.streams_tokens_per_second), in.limits.slots);
  if (p.prompt_tokens_per_second > 0)
    text += fmt::format("                 {:>8} tokens/s of a prompt of {} tokens\n",
                        rate_text(p.prompt_tokens_per_second), std::min(kPredictedPrompt, in.limits.context));
  else
    text += "                        – prompts: a device's f16 rate isn't known (24GiB@936GB/s@71TFLOP/s)\n";
  return text;
}

std::string room_text(const PlacementInput& in, const PlacementChoice& choice) {
  if (in.context_train == 0) return {};
  return fmt::format("fits             longest context that fits so: {}{}\n", choice.longest_context,
                     choice.longest_context >= in.context_train ? ", all that it was trained for" : "");
}

// Predictions hold for fast mode, and for kernels that only Hopper has.
std::string caveat(const PlacementInput& in, const PlacementCandidate& c) {
  if (c.prediction.tokens_per_second <= 0) return {};
  const auto others = [&](std::uint32_t d) {
    return !in.fleet->devices[d].host && !in.fleet->devices[d].hopper;
  };
  std::string text;
  if (in.mode != Mode::fast) text += "                 (of fast mode: the others are slower)\n";
  if (std::ranges::any_of(c.placement.stages, [](const Stage& s) { return s.devices.size() > 2; }))
    text += "                 (sums over more than two ranks: reckoned, only two were measured)\n";
  if (std::ranges::any_of(c.placement.stages,
                          [&](const Stage& s) { return std::ranges::any_of(s.devices, others); }))
    text +=
        "                 (from what one H200 was measured to reach of its rates; GPUs other than Hopper's "
        "have slower kernels so far)\n";
  return text;
}

std::string device_head(const PlacementInput& in, const PartPlan& part, std::size_t stages) {
  const PaperDevice& d = in.fleet->devices[part.device];
  std::string text = d.title;
  if (stages > 1) text += fmt::format(", stage {} of {}", part.stage + 1, stages);
  if (part.share.ranks > 1) text += fmt::format(", rank {} of {}", part.share.rank, part.share.ranks);
  return text;
}

std::string lines_text(const DevicePlan& plan) {
  std::string text;
  for (const PlanLine& line : plan.lines)
    text += fmt::format("  {:<14}{:>15}  {}\n", purpose_name(line.purpose), needed(line.bytes), line.note);
  return text;
}

std::string device_tables(const PlacementInput& in, const Placement& placement) {
  const PlacementPlan plan = plan_memory(in, placement);
  std::string text;
  for (const PartPlan& part : plan.parts) {
    const PaperDevice& d = in.fleet->devices[part.device];
    const std::uint64_t total = part.plan.total();
    text += fmt::format("{:<16}{:>15}  {}\n", d.id, "plan", device_head(in, part, placement.stages.size()));
    text += lines_text(part.plan);
    text += fmt::format("  {:<14}{:>15}  of {}, {} left\n", "total", needed(total),
                        size_text(d.memory, Rounding::down),
                        size_text(d.memory - std::min(total, d.memory), Rounding::down));
  }
  if (!plan.host.lines.empty())
    text += fmt::format("{:<16}{:>15}\n", plan.host.device, "plan") + lines_text(plan.host) +
            fmt::format("  {:<14}{:>15}\n", "total", needed(plan.host.total()));
  return text;
}

// The best of every other kind.
std::string runners_up(const PlacementInput& in, const PlacementChoice& choice) {
  std::vector<std::string> kinds{kind_text(in, choice.candidates[0].placement)};
  std::string text;
  for (const PlacementCandidate& c : choice.candidates) {
    const std::string kind = kind_text(in, c.placement);
    if (std::ranges::find(kinds, kind) != kinds.end() || kinds.size() > kMostRunnersUp) continue;
    kinds.push_back(kind);
    text += fmt::format("  {}: {}", kind, layers_text(in, c.placement));
    const Prediction& p = c.prediction;
    if (p.tokens_per_second > 0) {
      text += fmt::format("; {} tokens/s", rate_text(p.tokens_per_second));
      if (in.limits.slots > 1)
        text += fmt::format(", {} for {} streams", rate_text(p.streams_tokens_per_second), in.limits.slots);
      if (p.prompt_tokens_per_second > 0)
        text += fmt::format(", prompt {}", rate_text(p.prompt_tokens_per_second));
      text += ": " + c.reason;
    }
    text += "\n";
  }
  return text.empty() ? text : "runners-up\n" + text;
}

std::string not_taken(const PlacementChoice& choice) {
  std::string text;
  for (const DeviceLack& lack : choice.lacks) text += "  " + lack.why + "\n";
  for (const std::string& why : choice.not_possible) text += "  " + why + "\n";
  return text.empty() ? text : "not possible\n" + text;
}

}  // namespace

std::string rate_text(double tokens_per_second) {
  if (tokens_per_second <= 0) return "–";
  return tokens_per_second < 100 ? fmt::format("{:.1f}", tokens_per_second)
                                 : fmt::format("{:.0f}", tokens_per_second);
}

std::string layers_text(const PlacementInput& in, const Placement& placement) {
  const std::uint32_t units = unit_count(*in.program);
  std::string text;
  for (const Stage& s : placement.stages)
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", ids_of(in, s), counted(s, units));
  return text;
}

std::string kind_text(const PlacementInput& in, const Placement& placement) {
  const std::vector<Stage>& stages = placement.stages;
  const std::size_t ranks =
      std::ranges::max(stages, {}, [](const Stage& s) { return s.devices.size(); }).devices.size();
  if (stages.size() == 1)
    return ranks > 1 ? fmt::format("{} ranks", ranks) : ids_of(in, stages[0]) + " alone";
  const bool cpu =
      std::ranges::any_of(stages, [&](const Stage& s) { return in.fleet->devices[s.devices[0]].host; });
  std::string text = fmt::format("{} stages", stages.size());
  if (ranks == 1) return text + (cpu ? " with the CPU" : "");
  if (std::ranges::all_of(stages, [&](const Stage& s) { return s.devices.size() == ranks; }))
    return fmt::format("{} of {} ranks", text, ranks);
  std::vector<std::string> ids;
  for (const Stage& s : stages) ids.push_back(ids_of(in, s));
  return fmt::format("{} ({})", text, fmt::join(ids, ", "));
}

std::string not_fitting_text(const PlacementInput& in, const PlacementChoice& choice) {
  const std::uint32_t units = unit_count(*in.program);
  std::uint64_t memory = 0;
  for (const PaperDevice& d : in.fleet->devices) memory += d.memory;
  const std::uint32_t left = choice.units_left;
  const std::uint32_t layers = left == units ? units - 2 : left > 0 ? left - 1 : 0;
  std::string text = fmt::format(
      "doesn't fit: {} for {} of the {} repeating layers and the output layer, with their KV "
      "state, is lacking on {} device{} with {} in all; ",
      needed(choice.short_bytes), layers, units - 2, in.fleet->devices.size(),
      in.fleet->devices.size() == 1 ? "" : "s", size_text(memory, Rounding::down));
  return text + (choice.changes.empty() ? "it takes more memory, a smaller model or a smaller quantisation"
                                        : "it would fit with " + choice.changes);
}

std::string to_text(const PlacementInput& in, const PlacementChoice& choice) {
  const std::string layers = fmt::format("{} repeating layers + output layer: ", unit_count(*in.program) - 2);
  std::string text;
  if (!in.fleet->note.empty()) text += "note: " + in.fleet->note + "\n";
  if (!choice.fits()) {
    if (!choice.filled.stages.empty()) {
      text += "as much as fits:\n  " + layers + layers_text(in, choice.filled) + "\n";
      text += device_tables(in, choice.filled);
    }
    return text + not_taken(choice) + not_fitting_text(in, choice) + "\n";
  }
  const PlacementCandidate& best = choice.candidates[0];
  std::string head = headline(in, best);
  head.insert(head.find("\n  ") + 3, layers);
  text +=
      head + speeds(in, best) + caveat(in, best) + room_text(in, choice) + device_tables(in, best.placement);
  text += runners_up(in, choice) + not_taken(choice);
  return text;
}

}  // namespace steelyard
