#include "app/doctor_measure.h"

#include <algorithm>
#include <array>
#include <map>
#include <span>
#include <utility>
#include <variant>
#include <vector>

#include "app/bench_case.h"
#include "app/bench_runs.h"
#include "app/common.h"
#include "app/direct.h"
#include "app/doctor_machine.h"
#include "base/dtype.h"
#include "base/error.h"
#include "decoder/batch.h"
#include "decoder/decoder.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "device/devices.h"
#include "device/step.h"
#include "gguf/summary.h"
#include "observe/ceilings.h"
#include "observe/file_place.h"
#include "observe/host.h"
#include "plan/plan.h"
#include "program/cost.h"
#include "program/program.h"

namespace steelyard {
namespace {

using doctor::DeviceFacts;
using doctor::Facts;
using doctor::Part;
using doctor::StepLine;

constexpr std::uint32_t kTracedSteps = 4, kMostTokens = 64, kRepeats = 3;

Part part_of_op(const Op& op) {
  if (std::holds_alternative<AttentionOp>(op.body)) return Part::kv;
  if (std::holds_alternative<SampleOp>(op.body)) return Part::sampling;
  if (std::holds_alternative<ReceiveOp>(op.body)) return Part::waits;
  if (std::holds_alternative<SendOp>(op.body) || std::holds_alternative<SumOp>(op.body) ||
      std::holds_alternative<GatherOp>(op.body))
    return Part::links;
  if (std::holds_alternative<EmbedOp>(op.body) || std::holds_alternative<RopeAppendOp>(op.body))
    return Part::other;
  return Part::weights;
}

StepShape shape_at(std::uint32_t depth) {
  return {.rows = 1, .outputs = 1, .context = depth + 1.0, .state_reads = depth + 1.0};
}

// What one step of a part reads.
struct Reads {
  double weights = 0, kv = 0;
};
Reads reads_of(const Program& program, std::uint32_t depth) {
  Reads reads;
  for (const Op& op : program.ops) {
    const OpCost cost = op_cost(program, op, shape_at(depth));
    reads.weights += cost.weight_bytes;
    reads.kv += cost.state_bytes;
  }
  return reads;
}

std::uint32_t repeating_layers(const Program& program) {
  std::int16_t last = -1, n = 0;
  for (const Op& op : program.ops)
    if (op.layer >= 0 && op.layer != last) ++n, last = op.layer;
  return static_cast<std::uint32_t>(n);
}
bool has_head(const Program& program) {
  return std::ranges::any_of(program.ops,
                             [](const Op& op) { return std::holds_alternative<HeadOp>(op.body); });
}

// A model loaded and run.
class Measured {
 public:
  Measured(PreparedModel prepared, std::uint32_t depth, bool quiet)
      : depth_(depth), model_(std::move(prepared), quiet), runs_(model_) {}

  DirectModel& model() { return model_; }
  Decoder& decoder() { return model_.decoder(); }

  // So many tokens that a run takes about a second.
  void speed(Facts& f) {
    using Kind = BenchCase::Kind;
    const double first = runs_.rates({.kind = Kind::generate, .tokens = 4, .depth = depth_}, 1).front();
    const auto tokens = static_cast<std::uint32_t>(std::clamp(first, 4.0, double{kMostTokens}));
    const auto rates = runs_.rates({.kind = Kind::generate, .tokens = tokens, .depth = depth_}, kRepeats);
    f.tokens_per_second = rates[rates.size() / 2];
    f.spread = (rates.back() - rates.front()) / f.tokens_per_second;
  }

  // Seconds of a token by part of the model and of the time, as the devices' own clocks tell.
  std::vector<std::map<Part, double>> trace() {
    std::vector<std::map<Part, double>> parts(decoder().n_parts());
    for (std::size_t p = 0; p < parts.size(); ++p) decoder().executable(p).set_tracing(true);
    for (std::uint32_t i = 0; i < kTracedSteps; ++i) {
      one_token(i);
      for (std::size_t p = 0; p < parts.size(); ++p)
        for (const OpTime& t : decoder().executable(p).trace())
          parts[p][part_of_op(decoder().program(p).ops[t.op])] +=
              static_cast<double>(t.nanoseconds) * 1e-9 / kTracedSteps;
    }
    for (std::size_t p = 0; p < parts.size(); ++p) decoder().executable(p).set_tracing(false);
    return parts;
  }

 private:
  void one_token(std::uint32_t i) {
    static constexpr std::array<std::int32_t, 1> kToken = {1};
    Chunk chunk = model_.chunk(0, depth_ + i, kToken);
    chunk.n_outputs = 1;
    chunk.want = Want::sample;
    model_.step({&chunk, 1});
  }

  std::uint32_t depth_;
  DirectModel model_;
  BenchRuns runs_;
};

// Lines of a device's time: what its ops took, and the rest of the token, in which it was launched or waited.
std::vector<StepLine> step_lines(std::map<Part, double> times, const Reads& reads, double read_rate,
                                 double token, double scale) {
  times.erase(Part::waits);  // within a traced step it is others' work: what is left of the token says it
  std::vector<StepLine> lines;
  double busy = 0;
  for (const auto& [part, seconds] : times) {
    StepLine line{.part = part, .seconds = seconds * scale};
    if (part == Part::weights) line.bytes = reads.weights, line.limit = read_rate;
    if (part == Part::kv) line.bytes = reads.kv, line.limit = read_rate;
    busy += line.seconds;
    lines.push_back(line);
  }
  lines.push_back({.part = Part::waits, .seconds = std::max(0.0, token - busy)});
  return lines;
}

void add_plan_lines(const DevicePlan& plan, DeviceFacts& d) {
  for (const PlanLine& line : plan.lines)
    if (line.purpose != Purpose::other_models && line.purpose != Purpose::reserve && line.bytes > 0)
      d.holds[purpose_name(line.purpose)] += line.bytes;
}

// The parts' devices and what they hold and read. The same device may have several parts.
void add_devices(Measured& m, std::span<const Ceilings> ceilings, Facts& f) {
  const PreparedModel& prepared = m.model().prepared();
  const auto traces = m.trace();
  const double token = 1 / f.tokens_per_second;
  double traced = 0, longest = 0;
  for (const auto& part : traces) {
    double busy = 0;
    for (const auto& [kind, seconds] : part)
      if (kind != Part::waits) busy += seconds;
    traced += busy;
    longest = std::max(longest, busy);
  }
  // A traced step takes longer than others: its parts are shares of a usual one.
  const double sum = f.split == doctor::Split::ranks ? longest : traced;
  const double scale = sum > token ? token / sum : 1;
  for (std::size_t p = 0; p < traces.size(); ++p) {
    const Program& program = m.decoder().program(p);
    const Device& device = m.decoder().device(p);
    const Reads reads = reads_of(program, f.depth);
    const StepLimit limit = step_limit(program, shape_at(f.depth), ceilings[p]);
    DeviceFacts d{.id = device.info().id,
                  .name = device.info().name,
                  .pci = device.info().pci,
                  .gpu = !device.target().is_host()};
    d.memory = device.memory().total;
    d.free = device.memory().free;
    d.read_weights = static_cast<std::uint64_t>(reads.weights);
    d.read_kv = static_cast<std::uint64_t>(reads.kv);
    if (limit.read_seconds > 0) d.read_rate = (reads.weights + reads.kv) / limit.read_seconds;
    d.step = step_lines(traces[p], reads, d.read_rate, token, scale);
    add_plan_lines(prepared.plan.devices[p], d);
    if (d.gpu) f.layers_on_gpu += repeating_layers(program) + has_head(program);
    f.devices.push_back(std::move(d));
  }
  if (prepared.plan.devices.size() > traces.size()) {  // the host's side of GPUs
    DeviceFacts host{.id = "CPU"};
    add_plan_lines(prepared.plan.devices.back(), host);
    f.devices.push_back(std::move(host));
  }
}

void add_links(std::span<const Ceilings> ceilings, const Measured&, Facts& f) {
  for (std::size_t p = 0; p < ceilings.size(); ++p) {
    if (!f.devices[p].gpu) continue;
    f.links.push_back({.from = "CPU",
                       .to = f.devices[p].id,
                       .way = "PCI Express",
                       .measured = ceilings[p].to_device_bytes_per_second});
    f.links.push_back({.from = f.devices[p].id,
                       .to = "CPU",
                       .way = "PCI Express",
                       .measured = ceilings[p].from_device_bytes_per_second});
  }
  for (std::size_t p = 0; p + 1 < ceilings.size(); ++p)
    f.links.push_back({.from = f.devices[p].id,
                       .to = f.devices[p + 1].id,
                       .way = "through page-locked host memory",
                       .used_bytes = 4.0 * f.width});
}

void add_model(const PreparedModel& m, Facts& f) {
  f.model = m.path.filename().string();
  f.quantization = quantization_name(*m.file);
  f.layers = static_cast<std::uint32_t>(m.config.layers.size()) + 1;
  f.width = m.forward.program.n_embd;
  f.context = m.options.context;
  f.context_train = m.config.context_train;
  f.kv_type = std::string(dtype_info(m.plan.kv_type).name);
  std::ranges::transform(f.kv_type, f.kv_type.begin(),
                         [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  f.slow_types = m.plan.slow_types;
  f.threads = m.plan.threads;
  f.streams = m.plan.limits.slots;
  if (m.gpu_passed_over) f.passed_over = m.device_note;
  double bytes = 0, weights = 0;
  for (const WeightSpec& w : m.forward.program.weights)
    bytes += static_cast<double>(w.file_bytes()), weights += static_cast<double>(w.elements());
  if (weights > 0) f.bits_per_weight = 8 * bytes / weights;
}

doctor::Split split_of(const PreparedModel& m) {
  if (m.parts.size() < 2) return doctor::Split::one;
  const bool ranks =
      std::ranges::any_of(m.parts, [](const PlacedPart& p) { return p.forward.program.ranks > 1; });
  return ranks ? doctor::Split::ranks : doctor::Split::stages;
}

std::vector<Ceilings> ceilings_of(const PreparedModel& m) {
  std::vector<Ceilings> all;
  if (m.parts.empty()) return {device_ceilings(*m.device)};
  for (const PlacedPart& part : m.parts) all.push_back(device_ceilings(*part.device));
  return all;
}

std::string why_no_gpu() {
  const CudaDevices found = find_cuda_devices();
  return found.count ? std::string() : found.why;
}

}  // namespace

Facts measure_machine() {
  Facts f;
  MachineWatch watch;
  Devices devices;
  const auto add = [&](const std::shared_ptr<Device>& device) {
    const Ceilings c = device_ceilings(*device);
    const bool gpu = !device->target().is_host();
    f.devices.push_back({.id = device->info().id,
                         .name = device->info().name,
                         .pci = device->info().pci,
                         .gpu = gpu,
                         .memory = device->memory().total,
                         .free = device->memory().free,
                         .read_rate = c.read_bytes_per_second});
    if (!gpu) return;
    f.links.push_back({.from = "CPU",
                       .to = device->info().id,
                       .way = "PCI Express",
                       .measured = c.to_device_bytes_per_second});
    f.links.push_back({.from = device->info().id,
                       .to = "CPU",
                       .way = "PCI Express",
                       .measured = c.from_device_bytes_per_second});
  };
  for (std::uint32_t i = 0; i < find_cuda_devices().count; ++i) add(devices.cuda(i));
  add(devices.cpu({}));
  f.no_gpu = why_no_gpu();
  watch.stop(f);
  f.run.reset();  // of the probe, which isn't a model
  f.host = read_host();
  return f;
}

Facts measure_model(const std::filesystem::path& path, ModelOptions options, std::uint32_t depth,
                    bool quiet) {
  Facts f;
  MachineWatch watch;
  f.file = read_file_place(path);
  Devices devices;
  options.reuse_prefixes = false;
  PreparedModel prepared = prepare_model(path, options, devices);
  note_device(prepared, false);
  const std::uint32_t room = prepared.plan.limits.context;
  if (room < kMostTokens + 8)
    throw_error(ErrorKind::bad_input, "--context {} is too small to measure in: give {} or more", room,
                kMostTokens + 8);
  f.depth = std::min(depth, room - kMostTokens - 4);
  f.split = split_of(prepared);
  add_model(prepared, f);
  const std::vector<Ceilings> ceilings = ceilings_of(prepared);
  if (f.split == doctor::Split::one)
    f.limit_seconds = step_limit(prepared.forward.program, shape_at(f.depth), ceilings.front()).seconds();
  for (const Ceilings& c : ceilings)
    if (measured_while_busy(c, machine_cores()))
      f.stale_limits = c.device + " was " + measured_text(c, machine_cores());
  Measured measured(std::move(prepared), f.depth, quiet);
  f.load_seconds = measured.decoder().load_seconds();
  watch.mark();
  measured.speed(f);
  add_devices(measured, ceilings, f);
  add_links(ceilings, measured, f);
  f.no_gpu = why_no_gpu();
  watch.stop(f);
  f.host = read_host();
  return f;
}

}  // namespace steelyard
