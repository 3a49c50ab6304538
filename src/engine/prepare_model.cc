// Reading a file and planning where it goes: what comes before a LoadedModel.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "base/error.h"
#include "base/process.h"
#include "device/device.h"
#include "device/devices.h"
#include "device/target.h"
#include "engine/loaded_model.h"
#include "engine/placement.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "model/forward.h"
#include "plan/parts.h"
#include "plan/plan.h"
#include "program/program.h"
#include "program/share.h"
#include "text/chat_template.h"
#include "text/tokenizer.h"
#include "text/vocabulary.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kCpuBatch = 512, kGpuBatch = 2048;

void read_text_parts(PreparedModel& m) {
  Vocabulary vocabulary = Vocabulary::from_metadata(m.file->metadata());
  if (vocabulary.kind() == VocabularyKind::none) return;
  // A few more than there are rows are marks for pictures and the like (Gemma 3 as Ollama keeps it): never
  // sampled, since logits are rows too, and refused in a prompt.
  constexpr std::uint32_t kMostWithoutRows = 1024;
  if (static_cast<std::uint32_t>(vocabulary.size()) > m.config.vocab_size + kMostWithoutRows)
    throw_error(ErrorKind::bad_input, "the vocabulary has {} tokens, but token_embd.weight has rows for {}",
                vocabulary.size(), m.config.vocab_size);
  m.tokenizer = std::make_shared<const Tokenizer>(std::move(vocabulary));
  const std::string& source = m.tokenizer->vocabulary().chat_template();
  if (source.empty()) return;
  try {
    m.chat_template = std::make_shared<const ChatTemplate>(source);
  } catch (const Error& e) {
    m.template_error = e.what();
  }
}

void add_notes(PreparedModel& m) {
  if (m.options.context > m.config.context_train)
    m.notes.push_back(fmt::format(
        "a context of {} tokens is more than the {} that the model was trained for: beyond those its "
        "answers get worse",
        m.options.context, m.config.context_train));
  if (m.tokenizer && m.tokenizer->vocabulary().pre_missing())
    m.notes.emplace_back(
        "the file doesn't name its pre-tokenizer (tokenizer.ggml.pre): the default one stands in, and the "
        "tokens "
        "may not be those that the model was trained with");
}

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

// What is planned but there already is no longer free.
std::uint64_t room_on(const PlanInput& input, const Device* device, const ModelOptions& o) {
  if (!device) return o.paper_bytes;
  const std::uint64_t taken =
      input.target->is_host() ? resident_bytes() : input.context_bytes + input.other_models_bytes;
  return room_for(device->memory().free, taken, o.memory_limit);
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

std::shared_ptr<Device> cpu_device(const ModelOptions& o, Devices& devices) {
  return devices.cpu({.threads = o.threads, .memory_limit = o.memory_limit});
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

  // Over all GPUs, and the CPU for what they have no room for. Fewer than two: there is no such way.
  std::vector<DeviceStage> find_stages() {
    const std::vector<DeviceName> names = usable_devices();
    return stages_by_room(
        names, static_cast<std::uint32_t>(m_.config.layers.size()),
        [&](std::size_t i, const LayerRange& layers) { return has_room(names[i], layers, names.size()); });
  }

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
      try {
        open({DeviceName::Kind::cuda, i});
        names.push_back({DeviceName::Kind::cuda, i});
      } catch (const Error&) {
      }
    }
    names.push_back({DeviceName::Kind::cpu});
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
};

// As --placement stages asks. Returns why it doesn't fit, or nothing.
std::string plan_in_stages(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  StagePlanner planner(m, options, devices);
  const auto stages = planner.find_stages();
  if (stages.empty())
    throw_error(ErrorKind::no_memory,
                "all devices here together have no room for the model's layers: a smaller context or model "
                "needs less");
  if (stages.size() < 2)
    throw_error(ErrorKind::not_found,
                "there are no two devices here to lay the model's layers over: leave --placement out");
  return planner.plan(stages);
}

// As --placement ranks asks. Returns why it doesn't fit, or nothing.
std::string plan_in_ranks(PreparedModel& m, const ModelOptions& options, Devices& devices) {
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

// By the options' device and placement. Returns why the model doesn't fit there, or nothing.
std::string plan_where_wanted(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  using Kind = PlacementWish::Kind;
  const DeviceName wanted = parse_device(options.device);
  const PlacementWish placement = parse_placement(options.placement);
  HeldMemory& held = *devices.held();
  const bool several = placement.kind != Kind::automatic && placement.kind != Kind::single;
  if (several && wanted.kind != DeviceName::Kind::automatic)
    throw_error(
        ErrorKind::bad_input,
        "--device {} names one device, and --placement {} lays a model over several: leave one of them out",
        options.device, options.placement);
  if (options.paper_bytes) return plan_for(m, options, held, nullptr);
  if (placement.kind == Kind::given)
    return StagePlanner(m, options, devices)
        .plan(stages_given(placement, static_cast<std::uint32_t>(m.config.layers.size())));
  if (placement.kind == Kind::stages) return plan_in_stages(m, options, devices);
  if (placement.kind == Kind::ranks) return plan_in_ranks(m, options, devices);
  if (wanted.kind == DeviceName::Kind::cuda) return plan_for(m, options, held, devices.cuda(wanted.index));
  if (wanted.kind == DeviceName::Kind::automatic && plan_for_any_gpu(m, options, devices)) return {};
  // Where every GPU is too small for all of it, layers may still fit.
  if (m.gpu_passed_over && placement.kind == Kind::automatic && fits_in_stages(m, options, devices)) {
    m.device_note.clear();
    m.gpu_passed_over = false;
    return {};
  }
  return plan_for(m, options, held, cpu_device(options, devices));
}

// Plans, and holds what the plan takes where it fits. Returns why it doesn't, or nothing.
std::string choose_device(PreparedModel& m, const ModelOptions& options, Devices& devices) {
  const auto planning = devices.held()->planning();
  const std::string why = plan_where_wanted(m, options, devices);
  if (why.empty() && !options.paper_bytes)
    for (const DevicePlan& d : m.plan.devices)
      m.holds.emplace_back(devices.held(), d.device, d.model_bytes());
  return why;
}

}  // namespace

ModelOptions with_defaults(ModelOptions o, const ModelConfig& config, const Target& target,
                           const Device* device) {
  if (o.context == 0) o.context = std::min(kDefaultContext, config.context_train);
  if (o.mode == Mode::exact) o.kv_type = DType::F32;
  o.threads = device ? device->info().threads : 0;
  o.slots = std::max(1u, o.slots);
  o.outputs = std::max(o.outputs, o.slots);
  const std::uint64_t tokens = std::uint64_t{o.context} * o.slots;
  if (o.batch == 0)
    o.batch =
        static_cast<std::uint32_t>(std::min<std::uint64_t>(target.is_host() ? kCpuBatch : kGpuBatch, tokens));
  o.batch = std::max({o.batch, o.slots, 1u});
  return o;
}

StepLimits limits_of(const ModelOptions& o) {
  return {.rows = o.batch, .outputs = o.outputs, .slots = o.slots, .context = o.context};
}

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options, Devices& devices,
                            bool even_if_too_big) {
  PreparedModel m;
  m.path = path;
  m.file = std::make_shared<const GgufFile>(GgufFile::open(path));
  m.config = read_config(*m.file);
  read_text_parts(m);
  const std::string why = choose_device(m, options, devices);
  if (!why.empty() && !even_if_too_big)
    throw NoRoom(why, m.verdict.device, m.verdict.needed, m.verdict.available);
  add_notes(m);
  return m;
}

PreparedModel prepare_model(const std::filesystem::path& path, const ModelOptions& options,
                            bool even_if_too_big) {
  Devices devices;
  return prepare_model(path, options, devices, even_if_too_big);
}

}  // namespace steelyard
