#include "engine/place_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "base/process.h"
#include "device/device.h"
#include "device/target.h"
#include "engine/live_fleet.h"
#include "engine/placement.h"
#include "model/config.h"
#include "model/forward.h"
#include "plan/fleet.h"
#include "plan/parts.h"
#include "plan/placement.h"
#include "plan/plan.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard {
namespace {

using Kind = PlacementWish::Kind;

// What a device (nullptr: on paper) is to hold: `program`, all of the model or a stage of it. The model's
// options are filled in.
PlanInput plan_input(const PreparedModel& m, const Program& program, HeldMemory& held, const Device* device) {
  const ModelOptions& o = m.options;
  const std::string id = device ? device->info().id : "CUDA0";
  return {.config = &m.config,
          .program = &program,
          .target = device ? &device->target() : &cuda_target(),
          .device = id,
          .limits = limits_of(o),
          .mode = o.mode,
          .kv_type = o.kv_type,
          .threads = device ? device->info().threads : 0,
          .process_bytes = held.process_bytes(resident_bytes()),
          .other_models_bytes = device ? held.on(id) : 0,
          .other_models_host_bytes = held.on("CPU"),
          .context_bytes = device ? device->info().context_bytes : 0,
          .paper = !device};
}

// What of a device the whole program may take; 0: what is free.
std::uint64_t limit_on(const std::string& id, const ModelOptions& o) {
  for (const auto& [device, bytes] : o.memory)
    if (id == (device.kind == DeviceName::Kind::cpu ? "CPU" : fmt::format("CUDA{}", device.index)))
      return bytes;
  return o.memory_limit;
}

// What is planned but there already is no longer free.
std::uint64_t room_on(const PlanInput& input, const Device* device, const ModelOptions& o) {
  if (!device) return o.paper_bytes;
  const std::uint64_t taken =
      input.target->is_host() ? resident_bytes() : input.context_bytes + input.other_models_bytes;
  return room_for(device->memory().free, taken, limit_on(device->info().id, o));
}

// Plans for a device (nullptr: on paper). Returns why the model doesn't fit there, or nothing.
std::string plan_for(PreparedModel& m, const ModelOptions& options, HeldMemory& held,
                     std::shared_ptr<Device> device) {
  m.options = with_defaults(options, m.config, device ? device->target() : cuda_target(), device.get());
  m.forward = write_forward(*m.file, m.config, {.kv_type = m.options.kv_type, .context = m.options.context});
  const PlanInput input = plan_input(m, m.forward.program, held, device.get());
  m.plan = plan_memory(input);
  m.verdict = judge(input, room_on(input, device.get(), m.options));
  m.device = std::move(device);
  m.parts.clear();
  return m.verdict.why_not;
}

bool may_use(const ModelOptions& o, const DeviceName& name) {
  return o.devices.empty() || std::ranges::find(o.devices, name) != o.devices.end();
}

std::shared_ptr<Device> cpu_device(const ModelOptions& o, Devices& devices) {
  return devices.cpu({.threads = o.threads, .memory_limit = limit_on("CPU", o)});
}

// A model's layers over several devices, tried and planned.
class StagePlanner {
 public:
  // Fills in the model's options for these devices.
  StagePlanner(PreparedModel& m, const ModelOptions& options, Devices& devices)
      : m_(m), options_(options), devices_(devices) {
    m_.options = with_defaults(options, m_.config, cpu_target(), nullptr);
    m_.forward =
        write_forward(*m_.file, m_.config, {.kv_type = m_.options.kv_type, .context = m_.options.context});
  }

  // Returns why the model doesn't fit so, or nothing.
  std::string plan(const std::vector<DeviceStage>& stages) {
    const std::vector<Share> shares = shares_of(stages);
    std::vector<std::shared_ptr<Device>> where;
    for (const DeviceStage& s : stages) where.push_back(open(s.device));
    for (const auto& device : where)
      m_.options.threads = std::max(m_.options.threads, device->info().threads);
    std::vector<Forward> forwards = in_parts(m_.forward, shares);
    const auto n_stages = static_cast<std::size_t>(std::ranges::count(shares, 0u, &Share::rank));
    std::vector<PlanInput> inputs;
    for (std::size_t i = 0; i < stages.size(); ++i)
      inputs.push_back(input(forwards[i].program, *where[i], shares[i], n_stages));
    m_.plan = plan_stages(inputs);
    m_.plan.threads = m_.options.threads;
    m_.verdict = worst(inputs, where);
    m_.device = where.back();
    m_.parts.clear();
    for (std::size_t i = 0; i < stages.size(); ++i) m_.parts.push_back({std::move(forwards[i]), where[i]});
    return m_.verdict.why_not;
  }

  // What choosing weighs, for the devices that may be used; fewer than two: there is nothing to choose.
  struct Choice {
    std::vector<DeviceName> names;
    PaperFleet fleet;
    PlacementInput input;
    PlacementChoice choice;
    std::string unusable;  // "; CUDA1 isn't used: …"
  };
  std::unique_ptr<Choice> choose() {
    auto c = std::make_unique<Choice>();
    c->names = usable_devices();
    c->unusable = unusable_;
    if (c->names.size() < 2) return c;
    std::vector<FleetDevice> here;
    for (const DeviceName& name : c->names) {
      const auto device = open(name);
      const PlanInput all = input(m_.forward.program, *device, Share{}, c->names.size());
      const std::uint64_t room = room_on(all, device.get(), m_.options), others = all.other_models_bytes;
      here.push_back({device, room - std::min(room, others)});
    }
    c->fleet = live_fleet(here);
    c->input = {.program = &m_.forward.program,
                .fleet = &c->fleet,
                .gpu = &cuda_target(),
                .host = &cpu_target(),
                .limits = limits_of(m_.options),
                .mode = m_.options.mode,
                .kv_type = m_.options.kv_type,
                .threads = here.back().device->info().threads,
                .process_bytes = devices_.held()->process_bytes(resident_bytes()),
                .context_train = m_.config.context_train};
    c->choice = choose_placement(c->input);
    return c;
  }

  // Over all GPUs, and the CPU for what they have no room for. Fewer than two: there is no such way.
  std::vector<DeviceStage> find_stages() {
    const std::vector<DeviceName> names = usable_devices();
    if (names.empty()) return {};
    return stages_by_room(
        names, static_cast<std::uint32_t>(m_.config.layers.size()),
        [&](std::size_t i, const LayerRange& layers) { return has_room(names[i], layers, names.size()); });
  }

  std::size_t n_usable() { return usable_devices().size(); }

  // Every layer over all GPUs.
  std::vector<DeviceStage> find_ranks() {
    std::vector<DeviceStage> ranks;
    for (const DeviceName& name : usable_devices())
      if (name.kind == DeviceName::Kind::cuda)
        ranks.push_back({name, {0, static_cast<std::uint32_t>(m_.config.layers.size())}});
    return ranks;
  }

 private:
  // The CPU last. Another program may have a GPU for itself, or it is lost: the others may do.
  std::vector<DeviceName> usable_devices() {
    std::vector<DeviceName> names;
    for (std::uint32_t i = 0; i < find_cuda_devices().count; ++i) {
      const DeviceName name{DeviceName::Kind::cuda, i};
      if (!may_use(options_, name)) continue;
      try {
        open(name);
        names.push_back(name);
      } catch (const Error& e) {
        unusable_ = fmt::format("; CUDA{} isn't used: {}", i, e.what());
      }
    }
    if (may_use(options_, {DeviceName::Kind::cpu})) names.push_back({DeviceName::Kind::cpu});
    return names;
  }
  bool has_room(const DeviceName& name, const LayerRange& layers, std::size_t n_stages) {
    const auto device = open(name);
    const Share share = share_of(layers);
    const Program part = part_of(m_.forward.program, share);
    const PlanInput in = input(part, *device, share, n_stages);
    return plan_memory(in).devices[0].total() <= room_on(in, device.get(), m_.options);
  }

  // Neighbours with the same layers are ranks.
  std::vector<Share> shares_of(const std::vector<DeviceStage>& stages) const {
    std::vector<Share> shares;
    for (std::size_t begin = 0, end; begin < stages.size(); begin = end) {
      for (end = begin; end < stages.size() && stages[end].layers == stages[begin].layers;) ++end;
      const auto ranks = static_cast<std::uint32_t>(end - begin);
      for (std::uint32_t rank = 0; rank < ranks; ++rank) {
        Share& share = shares.emplace_back(share_of(stages[begin].layers));
        share.rank = rank, share.ranks = ranks;
      }
    }
    return shares;
  }

  // Units: the embedding goes with the first layer, the output layer with the last.
  Share share_of(const LayerRange& layers) const {
    const auto n = static_cast<std::uint32_t>(m_.config.layers.size());
    return {.begin = layers.first == 0 ? 0 : layers.first + 1,
            .end = layers.end == n ? n + 2 : layers.end + 1};
  }
  std::shared_ptr<Device> open(const DeviceName& name) {
    return *open_
                .insert(name.kind == DeviceName::Kind::cuda ? devices_.cuda(name.index)
                                                            : cpu_device(options_, devices_))
                .first;
  }
  // One step more than there are stages: each has one to work on, and the next is there already.
  PlanInput input(const Program& program, const Device& device, const Share& share,
                  std::size_t n_stages) const {
    PlanInput in = plan_input(m_, program, *devices_.held(), &device);
    in.share = share_text(share, static_cast<std::uint32_t>(m_.config.layers.size()), in.device);
    in.limits.in_flight = static_cast<std::uint32_t>(n_stages) + 1;
    return in;
  }
  // Of the stage that lacks most; else of the one with least to spare.
  Verdict worst(const std::vector<PlanInput>& inputs,
                const std::vector<std::shared_ptr<Device>>& where) const {
    const auto spare = [](const Verdict& v) {
      return static_cast<std::int64_t>(v.available) - static_cast<std::int64_t>(v.needed);
    };
    std::vector<Verdict> verdicts;
    for (std::size_t i = 0; i < inputs.size(); ++i)
      verdicts.push_back(judge(inputs[i], room_on(inputs[i], where[i].get(), m_.options)));
    return *std::ranges::min_element(verdicts, {}, spare);
  }

  PreparedModel& m_;
  const ModelOptions& options_;
  Devices& devices_;
  std::set<std::shared_ptr<Device>> open_;  // as long as ranges are tried
  std::string unusable_;                    // a GPU that can't be opened, and why
};

// Whether a candidate is of the kind that --placement asks for.
bool is_of_kind(const PlacementCandidate& c, Kind kind) {
  const std::vector<Stage>& stages = c.placement.stages;
  const auto ranks = [](const Stage& s) { return s.devices.size() > 1; };
  switch (kind) {
    case Kind::single:
      return stages.size() == 1 && !ranks(stages[0]);
    case Kind::stages:
      return stages.size() > 1 && std::ranges::none_of(stages, ranks);
    case Kind::ranks:
      return stages.size() == 1 && ranks(stages[0]);
    default:
      return true;
  }
}

bool uses_host(const PaperFleet& fleet, const PlacementCandidate& c) {
  return std::ranges::any_of(c.placement.stages,
                             [&](const Stage& s) { return fleet.devices[s.devices[0]].host; });
}

// Parts of the model without a layer, such as an output layer alone, aren't laid out.
bool has_layers_everywhere(const PlacementInput& in, const Placement& placement) {
  const std::uint32_t units = unit_count(*in.program);
  return std::ranges::all_of(
      placement.stages, [&](const Stage& s) { return std::min(s.end, units - 1) > std::max(s.begin, 1u); });
}

// The candidates to try, the best first. The CPU takes part where GPUs alone can't hold the model, or where
// it is predicted to be faster for answers and prompts both.
std::vector<PlacementCandidate> candidates_of(const PlacementInput& in, const PlacementChoice& choice,
                                              Kind kind) {
  std::vector<PlacementCandidate> all;
  for (const PlacementCandidate& c : choice.candidates)
    if (is_of_kind(c, kind) && has_layers_everywhere(in, c.placement)) all.push_back(c);
  const auto gpus =
      std::ranges::find_if(all, [&](const PlacementCandidate& c) { return !uses_host(*in.fleet, c); });
  if (gpus == all.end()) return all;
  const double prompts = gpus->prediction.prompt_tokens_per_second;
  const auto slower = [&](const PlacementCandidate& c) {
    return uses_host(*in.fleet, c) && c.prediction.prompt_tokens_per_second < prompts;
  };
  std::stable_partition(all.begin(), all.end(), [&](const PlacementCandidate& c) { return !slower(c); });
  return all;
}

std::vector<DeviceStage> stages_of(const PlacementInput& in, const Placement& placement,
                                   const std::vector<DeviceName>& names) {
  const std::uint32_t units = unit_count(*in.program);
  std::vector<DeviceStage> stages;
  for (const Stage& s : placement.stages)
    for (const std::uint32_t d : s.devices)
      stages.push_back({names[d], {std::max(s.begin, 1u) - 1, std::min(s.end, units - 1) - 1}});
  return stages;
}

// "2 ranks (CUDA0+CUDA1 65): 201 tokens/s predicted; CUDA0 alone: 149".
std::string note_of(const PlacementInput& in, const PlacementChoice& choice,
                    const PlacementCandidate& taken) {
  const auto speed = [&](const PlacementCandidate& c) {
    return rate_text(c.prediction.streams_tokens_per_second);
  };
  const std::string streams =
      in.limits.slots > 1 ? fmt::format(" for {} streams together", in.limits.slots) : "";
  const std::string kind = kind_text(in, taken.placement);
  std::string text = fmt::format("placement: {} ({}), {} tokens/s predicted{}", kind,
                                 layers_text(in, taken.placement), speed(taken), streams);
  const auto other = std::ranges::find_if(choice.candidates, [&](const PlacementCandidate& c) {
    return kind_text(in, c.placement) != kind && has_layers_everywhere(in, c.placement);
  });
  if (other != choice.candidates.end())
    text += fmt::format("; {}: {}", kind_text(in, other->placement), speed(*other));
  if (!choice.lacks.empty()) text += "; " + choice.lacks[0].why;
  return in.fleet->note.empty() ? text : text + "; " + in.fleet->note;
}

// Takes the best candidate of this kind whose plan fits to the byte. False: there is none.
bool plan_by_prediction(PreparedModel& m, const ModelOptions& options, Devices& devices, Kind kind) {
  StagePlanner planner(m, options, devices);
  const auto found = planner.choose();
  if (found->names.size() < 2) return false;
  const PlacementInput& in = found->input;
  for (const PlacementCandidate& c : candidates_of(in, found->choice, kind)) {
    const std::vector<DeviceStage> stages = stages_of(in, c.placement, found->names);
    // The CPU alone, where there are GPUs: what is said of them is worked out there.
    if (stages.size() == 1 && stages[0].device.kind == DeviceName::Kind::cpu) return false;
    std::string why;
    if (stages.size() == 1) {
      why = plan_for(m, options, *devices.held(), devices.cuda(stages[0].device.index));
    } else {
      StagePlanner again(m, options, devices);
      why = again.plan(stages);
    }
    if (!why.empty()) continue;
    m.placement_note = note_of(in, found->choice, c) + found->unusable;
    m.predicted_tokens_per_second = c.prediction.tokens_per_second;
    return true;
  }
  return false;
}

// As --placement stages asks. Returns why it doesn't fit, or nothing.
std::string plan_in_stages(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  if (plan_by_prediction(m, options, devices, Kind::stages)) return {};
  StagePlanner planner(m, options, devices);
  const auto stages = planner.find_stages();
  if (stages.empty())
    throw_error(ErrorKind::no_memory,
                "all devices here together have no room for the model's layers: a smaller context or model "
                "needs less");
  if (stages.size() < 2 && planner.n_usable() > 1)
    throw_error(ErrorKind::bad_input,
                "the GPU holds the whole model: leave --placement out, or say which layers go where "
                "(--placement cpu:0-9,cuda0:10-)");
  if (stages.size() < 2)
    throw_error(ErrorKind::not_found,
                "there are no two devices here to lay the model's layers over: leave --placement out");
  return planner.plan(stages);
}

// As --placement ranks asks. Returns why it doesn't fit, or nothing.
std::string plan_in_ranks(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  if (plan_by_prediction(m, options, devices, Kind::ranks)) return {};
  StagePlanner planner(m, options, devices);
  const auto ranks = planner.find_ranks();
  if (ranks.size() < 2)
    throw_error(ErrorKind::not_found,
                "there are no two GPUs here to divide the model's layers over: leave --placement out");
  return planner.plan(ranks);
}

// Whether they can lie so where nobody asked for it; then they are planned so.
bool fits_in_stages(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  StagePlanner planner(m, options, devices);
  const auto stages = planner.find_stages();
  return stages.size() > 1 && planner.plan(stages).empty();
}

// The first GPU on which the model fits. False: none, and the note says why.
bool plan_for_any_gpu(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  const CudaDevices found = find_cuda_devices();
  m.device_note = found.why;
  for (std::uint32_t i = 0; i < found.count; ++i) {
    if (!may_use(options, {DeviceName::Kind::cuda, i})) continue;
    std::string why;
    try {
      why = plan_for(m, options, *devices.held(), devices.cuda(i));
    } catch (const Error& e) {
      why = e.what();
    }
    if (why.empty()) {
      m.device_note.clear();
      return true;
    }
    m.gpu_passed_over = true;
    if (m.device_note.empty()) m.device_note = fmt::format("CUDA{} isn't used: {}", i, why);
  }
  return false;
}

// Where --devices leaves the CPU out: the GPUs that it names, with what each lacks.
[[noreturn]] void throw_only_gpus(const PreparedModel& m) {
  throw_error(m.gpu_passed_over ? ErrorKind::no_memory : ErrorKind::not_found,
              "no device that --devices names can hold the model ({}): name more of them, or cpu",
              m.device_note.empty() ? "none of them is here" : m.device_note);
}

std::string plan_for_cpu(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  if (!may_use(options, {DeviceName::Kind::cpu})) throw_only_gpus(m);
  return plan_for(m, options, *devices.held(), cpu_device(options, devices));
}

// --device and the placements of several devices leave nothing to --devices.
void check_wishes(const ModelOptions& o, const DeviceName& wanted, const PlacementWish& placement) {
  const bool several = placement.kind != Kind::automatic && placement.kind != Kind::single;
  if (several && wanted.kind != DeviceName::Kind::automatic)
    throw_error(
        ErrorKind::bad_input,
        "--device {} names one device, and --placement {} lays a model over several: leave one of them out",
        o.device, o.placement);
  if (o.devices.empty()) return;
  if (wanted.kind != DeviceName::Kind::automatic)
    throw_error(ErrorKind::bad_input, "--device {} and --devices both name devices: leave one of them out",
                o.device);
  if (placement.kind == Kind::given)
    throw_error(ErrorKind::bad_input, "--placement {} names its devices: leave --devices out", o.placement);
  for (const DeviceName& name : o.devices)
    if (const CudaDevices here = find_cuda_devices();
        name.kind == DeviceName::Kind::cuda && name.index >= here.count)
      throw_error(ErrorKind::not_found, "--devices names CUDA{}, which isn't here: {}", name.index,
                  here.count
                      ? fmt::format("the driver lists {} GPU{}", here.count, here.count == 1 ? "" : "s")
                      : here.why);
}

// By the options' device and placement. Returns why the model doesn't fit there, or nothing.
std::string plan_where_wanted(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  const DeviceName wanted = parse_device(options.device);
  const PlacementWish placement = parse_placement(options.placement);
  HeldMemory& held = *devices.held();
  check_wishes(options, wanted, placement);
  if (options.paper_bytes) return plan_for(m, options, held, nullptr);
  if (placement.kind == Kind::given)
    return StagePlanner(m, options, devices)
        .plan(stages_given(placement, static_cast<std::uint32_t>(m.config.layers.size())));
  if (placement.kind == Kind::stages) return plan_in_stages(m, options, devices);
  if (placement.kind == Kind::ranks) return plan_in_ranks(m, options, devices);
  if (wanted.kind == DeviceName::Kind::cuda) return plan_for(m, options, held, devices.cuda(wanted.index));
  if (wanted.kind == DeviceName::Kind::automatic) {
    if (plan_by_prediction(m, options, devices, placement.kind)) return {};
    if (plan_for_any_gpu(m, options, devices)) return {};
  }
  // Where every GPU is too small for all of it, layers may still fit.
  if (m.gpu_passed_over && placement.kind == Kind::automatic && fits_in_stages(m, options, devices)) {
    m.device_note.clear();
    m.gpu_passed_over = false;
    return {};
  }
  return plan_for_cpu(m, options, devices);
}

}  // namespace

std::string place_model(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  const auto planning = devices.held()->planning();
  const std::string why = plan_where_wanted(m, options, devices);
  if (why.empty() && !options.paper_bytes)
    for (const DevicePlan& d : m.plan.devices)
      m.holds.emplace_back(devices.held(), d.device, d.model_bytes());
  return why;
}

}  // namespace steelyard
