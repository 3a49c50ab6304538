#include "plan/parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/units.h"
#include "device/target.h"
#include "plan/speed.h"

namespace steelyard {
std::string share_text(const Share& s, std::uint32_t layers, const std::string& device) {
  if (s.ranks > 1 && s.begin == 0 && s.end == layers + 2)
    return fmt::format("rank {} of {}: its heads, feed-forward and vocabulary of all {} layers", s.rank,
                       s.ranks, layers);
  std::string text = s.begin == 0 ? "embedding" : "";
  const auto also = [&](const std::string& more) {
    text += fmt::format("{}{}", text.empty() ? "" : " + ", more);
  };
  const std::uint32_t first = std::max(s.begin, 1u) - 1, end = std::min(s.end - 1, layers);
  const std::uint32_t count = end > first ? end - first : 0;
  if (count == 1) also(fmt::format("layer {} of {}", first, layers));
  if (count > 1) also(fmt::format("layers {}–{} of {}", first, end - 1, layers));
  const bool head = s.end == layers + 2;
  if (head) also("output layer");
  if (s.ranks > 1) return fmt::format("rank {} of {} of {}", s.rank, s.ranks, text);
  return fmt::format("{}: {}/{} on {}", text, count + (head ? 1 : 0), layers + 1, device);
}

PartMemory::PartMemory(const PlacementInput& in)
    : in_(in), units_(unit_count(*in.program)), layers_(units_ - 2) {}

std::uint64_t PartMemory::staging() const { return in_.gpu->staging_bytes(*in_.program, in_.limits); }

DevicePlan PartMemory::plan(std::uint32_t device, const Share& share, std::uint32_t gpu_parts) const {
  const PaperDevice& d = in_.fleet->devices[device];
  const Program part = part_of(*in_.program, share);
  const PlanInput one{.config = nullptr,
                      .program = &part,
                      .target = d.host ? in_.host : in_.gpu,
                      .device = d.id,
                      .limits = in_.limits,
                      .mode = in_.mode,
                      .kv_type = in_.kv_type,
                      .threads = in_.threads,
                      .process_bytes = in_.process_bytes,
                      .paper = true,
                      .share = share_text(share, layers_, d.id)};
  DevicePlan plan = std::move(plan_memory(one).devices[0]);
  if (d.host && gpu_parts)
    plan.lines.push_back(
        {Purpose::staging, staging() * gpu_parts, "page-locked: step blocks, sampled tokens"});
  return plan;
}

std::uint64_t PartMemory::bytes(std::uint32_t device, const Share& share, std::uint32_t gpu_parts) {
  const bool host = in_.fleet->devices[device].host;
  const auto [it, added] = bytes_.try_emplace(Key{host, share.begin, share.end, share.rank, share.ranks}, 0);
  if (added) it->second = plan(device, share, 0).total();
  return it->second + (host ? (staging() + host_links()) * gpu_parts : 0);
}

// Rows on their way to a GPU's part and back, before it is known which parts there are.
std::uint64_t PartMemory::host_links() const {
  constexpr std::uint64_t kTurns = 4;
  return kTurns * in_.limits.rows * in_.program->n_embd * sizeof(float);
}

std::uint32_t PartMemory::reach(std::span<const std::uint32_t> devices, std::uint32_t begin,
                                std::uint32_t gpu_parts) {
  const auto fits = [&](std::uint32_t end) {
    for (std::uint32_t rank = 0; rank < devices.size(); ++rank) {
      const Share share{begin, end, rank, static_cast<std::uint32_t>(devices.size())};
      if (bytes(devices[rank], share, gpu_parts) > in_.fleet->devices[devices[rank]].memory) return false;
    }
    return true;
  };
  std::uint32_t low = begin, high = units_;
  if (high > low && fits(high)) return high;
  while (low + 1 < high) {
    const std::uint32_t middle = (low + high) / 2;
    (fits(middle) ? low : high) = middle;
  }
  return low;
}

PartTimes::PartTimes(const PlacementInput& in) : in_(in) {
  const auto& devices = in.fleet->devices;
  for (std::uint32_t d = 0; d < devices.size(); ++d) {
    std::uint32_t first = 0;
    while (!devices[first].alike(devices[d])) ++first;
    kind_.push_back(first);
  }
}

const Program& PartTimes::rank_program(std::uint32_t ranks) {
  if (ranks == 1) return *in_.program;
  const auto [it, added] = programs_.try_emplace(ranks);
  if (added) it->second = part_of(*in_.program, {0, unit_count(*in_.program), 0, ranks});
  return it->second;
}

DeviceLink PartTimes::link_between(std::span<const std::uint32_t> from,
                                   std::span<const std::uint32_t> to) const {
  DeviceLink slowest{.bytes_per_second = 1e30, .peer = true};
  for (const std::uint32_t a : from)
    for (const std::uint32_t b : to) {
      const DeviceLink& link = in_.fleet->link(a, b);
      if (a != b &&
          std::pair(link.peer, link.bytes_per_second) < std::pair(slowest.peer, slowest.bytes_per_second))
        slowest = link;
    }
  return slowest;
}

DeviceLink PartTimes::link_within(std::span<const std::uint32_t> devices) const {
  return link_between(devices, devices);
}

std::vector<double> PartTimes::seconds(std::span<const std::uint32_t> devices, const StepShape& shape,
                                       bool ideal) {
  const auto ranks = static_cast<std::uint32_t>(devices.size());
  const Program& program = rank_program(ranks);
  std::vector<double> units = unit_seconds(program, in_.fleet->devices[devices[0]], shape, ideal);
  if (ranks == 1 || ideal) return units;
  const DeviceLink link = link_within(devices);
  const double sum = sum_seconds(link, shape.rows, in_.program->n_embd, ranks);
  for (std::size_t u = 0; u < units.size(); ++u) units[u] += u == 0 ? sum : 2 * sum;
  // The last unit gathers logits instead.
  units.back() += hop_seconds(link, shape.outputs, in_.program->vocab_size / ranks * (ranks - 1)) - 2 * sum;
  return units;
}

const std::vector<double>& PartTimes::until(std::span<const std::uint32_t> devices, const StepShape& shape,
                                            bool ideal) {
  std::vector<std::uint32_t> who;
  for (const std::uint32_t d : devices) who.push_back(devices.size() == 1 ? kind_[d] : d);
  const Key key{who, shape.rows, shape.outputs, shape.context, shape.state_reads, ideal};
  const auto [it, added] = until_.try_emplace(key);
  if (added) {
    it->second.push_back(0);
    for (const double unit : seconds(devices, shape, ideal)) it->second.push_back(it->second.back() + unit);
  }
  return it->second;
}

StepShape decode_shape(const PlacementInput& in, std::uint32_t rows) {
  const double depth = std::min(kPredictedDepth, in.limits.context);
  return {.rows = rows, .outputs = rows, .context = depth, .state_reads = rows * depth};
}

namespace {

// Times of a placement's stages for one shape of step.
struct Pass {
  std::vector<double> stages;
  double hops = 0;
  double sum() const {
    double all = 0;
    for (const double s : stages) all += s;
    return all;
  }
  double longest() const { return *std::ranges::max_element(stages); }
};

Pass pass_of(const PlacementInput& in, const Placement& placement, PartTimes& times, const StepShape& shape,
             bool ideal = false) {
  Pass pass;
  for (std::size_t s = 0; s < placement.stages.size(); ++s) {
    const Stage& stage = placement.stages[s];
    const std::vector<double>& until = times.until(stage.devices, shape, ideal);
    pass.stages.push_back(until[stage.end] - until[stage.begin]);
    if (s > 0 && !ideal)
      pass.hops += hop_seconds(times.link_between(placement.stages[s - 1].devices, stage.devices), shape.rows,
                               in.program->n_embd);
  }
  return pass;
}

double streams_rate(const PlacementInput& in, const Placement& placement, PartTimes& times) {
  const std::uint32_t streams = in.limits.slots;
  const auto turns = std::min<std::uint32_t>(streams, static_cast<std::uint32_t>(placement.stages.size()));
  const Pass pass = pass_of(in, placement, times, decode_shape(in, (streams + turns - 1) / turns));
  return streams / std::max(turns * pass.longest(), pass.sum() + pass.hops);
}

// Chunks follow each other through the stages: of a few sizes the best.
double prompt_rate(const PlacementInput& in, const Placement& placement, PartTimes& times) {
  for (const Stage& stage : placement.stages)
    if (in.fleet->devices[stage.devices[0]].multiplies_per_second <= 0) return 0;
  const std::uint32_t tokens = std::min(kPredictedPrompt, in.limits.context);
  double best = 0;
  for (std::uint32_t chunk = std::min(in.limits.rows, tokens); chunk >= 1; chunk /= 2) {
    const double half = tokens / 2.0, chunks = static_cast<double>(tokens) / chunk;
    const Pass pass =
        pass_of(in, placement, times, {.rows = chunk, .outputs = 1, .context = half, .state_reads = half});
    best = std::max(best, tokens / (pass.sum() + pass.hops + (chunks - 1) * pass.longest()));
    if (placement.stages.size() == 1 || chunk < 256) break;
  }
  return best;
}

}  // namespace

Prediction predict(const PlacementInput& in, const Placement& placement, PartTimes& times) {
  Prediction p;
  const StepShape one = decode_shape(in, 1);
  const Pass pass = pass_of(in, placement, times, one);
  p.stage_seconds = pass.stages;
  p.hop_seconds = pass.hops;
  p.step_seconds = pass.sum() + pass.hops;
  for (const Stage& s : placement.stages)
    if (const auto ranks = static_cast<std::uint32_t>(s.devices.size()); ranks > 1)
      p.sum_seconds += 2.0 * (std::min(s.end, unit_count(*in.program) - 1) - std::max(s.begin, 1u)) *
                       sum_seconds(times.link_within(s.devices), 1, in.program->n_embd, ranks);
  p.tokens_per_second = 1 / p.step_seconds;
  p.limit_tokens_per_second = 1 / pass_of(in, placement, times, one, true).sum();
  p.streams_tokens_per_second = streams_rate(in, placement, times);
  p.prompt_tokens_per_second = prompt_rate(in, placement, times);
  return p;
}

Prediction predict(const PlacementInput& in, const Placement& placement) {
  PartTimes times(in);
  return predict(in, placement, times);
}

namespace {

// As loading lays them out (device/link.h): in memory of the host that every device reads.
std::uint64_t links_between(const PlacementInput& in, const Placement& placement,
                            const std::vector<Share>& shares) {
  if (shares.size() < 2) return 0;
  StepLimits limits = in.limits;
  limits.in_flight = static_cast<std::uint32_t>(placement.stages.size()) + 1;
  return links_bytes(part_programs(*in.program, shares)[0].links, limits);
}

}  // namespace

PlacementPlan plan_memory(const PlacementInput& in, const Placement& placement) {
  const PartMemory memory(in);
  PlacementPlan plan;
  std::uint32_t gpus = 0;
  for (const Stage& s : placement.stages)
    for (const std::uint32_t d : s.devices) gpus += !in.fleet->devices[d].host;
  DevicePlan* host = nullptr;
  std::vector<Share> shares;
  plan.parts.reserve(in.fleet->devices.size());
  for (std::uint32_t s = 0; s < placement.stages.size(); ++s) {
    const Stage& stage = placement.stages[s];
    for (std::uint32_t rank = 0; rank < stage.devices.size(); ++rank) {
      const Share share{stage.begin, stage.end, rank, static_cast<std::uint32_t>(stage.devices.size())};
      const std::uint32_t device = stage.devices[rank];
      plan.parts.push_back({device, s, share, memory.plan(device, share, gpus)});
      shares.push_back(share);
      if (in.fleet->devices[device].host) host = &plan.parts.back().plan;
    }
  }
  if (gpus == 0) return plan;
  if (!host) {
    host = &plan.host;
    plan.host.device = "CPU";
    plan.host.lines = {
        {Purpose::staging, memory.staging() * gpus, "page-locked: step blocks, sampled tokens"}};
    if (in.process_bytes)
      plan.host.lines.push_back(
          {Purpose::process, in.process_bytes, "program, libraries, vocabulary (measured)"});
  }
  if (const std::uint64_t links = links_between(in, placement, shares))
    host->lines.push_back({Purpose::links, links, "rows from stage to stage, partial sums between ranks"});
  return plan;
}

}  // namespace steelyard
