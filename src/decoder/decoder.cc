#include "decoder/decoder.h"

#include <algorithm>
#include <chrono>
#include <functional>

#include "base/error.h"
#include "base/process.h"
#include "device/driver_memory.h"
#include "device/target.h"

namespace steelyard {
namespace {

// The step block's arrays, sized once for the plan's limits.
struct StepArrays {
  std::vector<std::int32_t> tokens, positions, block_tables;
  std::vector<std::uint32_t> row_sequence;
  std::vector<StepSequence> sequences;
  std::vector<StepOutput> outputs;

  void reserve(const StepLimits& limits, std::size_t groups, std::uint32_t table_length) {
    tokens.reserve(limits.rows);
    positions.reserve(limits.rows);
    row_sequence.reserve(limits.rows);
    sequences.reserve(limits.slots);
    outputs.reserve(limits.outputs);
    block_tables.reserve(groups * limits.slots * table_length);
  }
  void clear() {
    tokens.clear(), positions.clear(), block_tables.clear();
    row_sequence.clear(), sequences.clear(), outputs.clear();
  }
};

// Offsets of weights in the weight arena, by WeightId.
struct WeightMap {
  std::vector<std::uint64_t> offsets;
  std::uint64_t bytes = 0;
};

WeightMap map_weights(const Program& program, const Target& target, Mode mode) {
  WeightMap map;
  for (const auto& w : program.weights) {
    map.offsets.push_back(map.bytes);
    map.bytes += target.weight_layout(w, mode).bytes;
  }
  return map;
}

}  // namespace

struct Decoder::Impl {
  std::shared_ptr<const GgufFile> file;
  Forward forward;
  MemoryPlan plan;
  std::shared_ptr<Device> device;
  std::unique_ptr<Arena> weights, states, workspace;
  std::vector<StepArrays> arrays;  // in turn: a step in flight keeps its own, so they outlive the executable
  std::unique_ptr<Executable> executable;
  std::uint64_t submitted = 0, waited = 0;  // steps: the first is number 0
  std::uint64_t executable_bytes = 0;       // of the device, measured
  double load_seconds = 0;
  RunnerInfo info;

  void make_arenas();
  Bindings place_weights(const LoadProgress& progress);
  std::function<void(std::uint64_t, std::uint64_t)> released_from(std::size_t weight) const;
  void place_states(Bindings& bindings) const;
  void compile(Bindings& bindings);
  void warm_up();
  void describe();
  void submit(const Batch& batch);
  const StepResult& wait();
  void add_chunk(const Chunk& chunk, StepArrays& arrays) const;
  std::uint32_t pages_of(const Chunk& chunk) const;
  std::uint32_t add_tables(const Batch& batch, StepArrays& arrays) const;
  void add_outputs(const Chunk& chunk, std::uint32_t sequence, std::uint32_t first_row,
                   StepArrays& arrays) const;
  std::uint64_t held_on_host() const;
  std::uint64_t actual(const PlanLine& line, std::uint64_t resident) const;
};

// All memory first, so that what can't fit is said before anything is read.
void Decoder::Impl::make_arenas() {
  const DevicePlan& lines = plan.devices[0];
  weights = device->make_arena("the weights", lines.bytes(Purpose::weights));
  states = device->make_arena("the KV state", lines.bytes(Purpose::state));
  workspace = device->make_arena("the workspace", lines.bytes(Purpose::workspace));
}

Bindings Decoder::Impl::place_weights(const LoadProgress& progress) {
  const Program& program = forward.program;
  const WeightMap map = map_weights(program, device->target(), plan.mode);
  if (map.bytes != weights->bytes())
    throw_error(ErrorKind::internal, "the weights are not those that were planned");
  Bindings bindings;
  std::vector<WeightLoad> loads;
  for (std::size_t i = 0; i < program.weights.size(); ++i) {
    const std::span<const std::byte> raw = weight_bytes(*file, program.weights[i], forward.sources[i]);
    bindings.weights.push_back(weights->data() + map.offsets[i]);
    loads.push_back({&program.weights[i], raw, map.offsets[i], released_from(i)});
  }
  device->load_weights(loads, plan.mode, *weights, progress);
  // What is left: pages that pieces share, and everything where the device told of none.
  for (const WeightSource& source : forward.sources) file->release(*source.tensor);
  file->check_unchanged();
  return bindings;
}

// Gives the file's pages back as a weight is placed.
std::function<void(std::uint64_t, std::uint64_t)> Decoder::Impl::released_from(std::size_t weight) const {
  const GgufTensor& tensor = *forward.sources[weight].tensor;
  const std::uint64_t first = weight_begin(forward.program.weights[weight], forward.sources[weight]);
  return [this, &tensor, first](std::uint64_t begin, std::uint64_t end) {
    file->release(tensor, first + begin, end - begin);
  };
}

void Decoder::Impl::place_states(Bindings& bindings) const {
  std::uint64_t offset = 0;
  for (const auto& g : plan.groups) bindings.pages.push_back(g.pages);
  for (const auto& s : forward.program.states) {
    bindings.states.push_back(states->data() + offset);
    offset += device->target().state_page_bytes(s) * plan.groups[s.group].pages;
  }
  if (offset != states->bytes())
    throw_error(ErrorKind::internal, "the states are not those that were planned");
}

void Decoder::Impl::compile(Bindings& bindings) {
  executable_bytes = device->taken_by([&] {
    executable = device->compile(forward.program, bindings, plan.limits, plan.mode);
    const std::uint32_t longest = (plan.limits.context + plan.page_tokens - 1) / plan.page_tokens;
    arrays.resize(executable->depth());
    for (StepArrays& a : arrays) a.reserve(plan.limits, plan.groups.size(), longest);
    if (!device->target().is_host()) warm_up();
  });
}

// One row, then a page of rows: what drivers put off until a kernel runs is done, and counted. What is
// written to the first page nobody reads: pages are written before they are read.
void Decoder::Impl::warm_up() {
  const StepLimits& limits = plan.limits;
  const std::vector<std::int32_t> page = {0};
  const std::vector<std::span<const std::int32_t>> tables(plan.groups.size(), page);
  const std::uint32_t most = std::min({limits.rows, limits.context, plan.page_tokens});
  const std::vector<std::int32_t> tokens(most, 0);
  for (const std::uint32_t n : {1u, most}) {
    Chunk chunk{.slot = 0, .first_position = 0, .tokens = std::span(tokens).first(n), .block_tables = tables};
    if (limits.outputs > 0) chunk.n_outputs = 1, chunk.want = Want::sample;
    submit({{&chunk, 1}});
    wait();
  }
  executable->reset_slot(0);
}

void Decoder::Impl::describe() {
  info = {.limits = plan.limits,
          .page_tokens = plan.page_tokens,
          .vocab_size = forward.program.vocab_size,
          .depth = executable->depth()};
  for (std::size_t g = 0; g < plan.groups.size(); ++g)
    info.groups.push_back({forward.program.groups[g].window, plan.groups[g].pages});
}

Decoder::Decoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decoder::~Decoder() = default;

std::unique_ptr<Decoder> Decoder::load(std::shared_ptr<const GgufFile> file, Forward forward,
                                       const MemoryPlan& plan, std::shared_ptr<Device> device,
                                       const LoadProgress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  auto impl = std::make_unique<Impl>();
  impl->file = std::move(file);
  impl->forward = std::move(forward);
  impl->plan = plan;
  impl->device = std::move(device);
  impl->make_arenas();
  Bindings bindings = impl->place_weights(progress);
  impl->place_states(bindings);
  bindings.workspace = impl->workspace->data();
  bindings.workspace_bytes = impl->workspace->bytes();
  impl->compile(bindings);
  impl->describe();
  impl->load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return std::unique_ptr<Decoder>(new Decoder(std::move(impl)));
}

const MemoryPlan& Decoder::plan() const { return impl_->plan; }
const Program& Decoder::program() const { return impl_->forward.program; }
const RunnerInfo& Decoder::info() const { return impl_->info; }
Device& Decoder::device() { return *impl_->device; }
double Decoder::load_seconds() const { return impl_->load_seconds; }
Executable& Decoder::executable() { return *impl_->executable; }

// Of the process's resident bytes, those that other lines of the host's plan count.
std::uint64_t Decoder::Impl::held_on_host() const {
  const std::uint64_t arenas = weights->bytes() + states->bytes() + workspace->bytes();
  return device->target().is_host() ? arenas : executable->staging_bytes();
}

std::uint64_t Decoder::Impl::actual(const PlanLine& line, std::uint64_t resident) const {
  switch (line.purpose) {
    case Purpose::weights:
      return weights->held_bytes();
    case Purpose::state:
      return states->held_bytes();
    case Purpose::workspace:
      return workspace->held_bytes();
    case Purpose::executables:
      return executable_bytes;
    case Purpose::context:
      return device->info().context_bytes;
    case Purpose::staging:
      return executable->staging_bytes();
    case Purpose::process: {
      const std::uint64_t models = held_on_host() + plan.devices.back().bytes(Purpose::other_models);
      return resident > models ? resident - models : 0;
    }
    case Purpose::other_models:
    case Purpose::reserve:
      return line.bytes;
  }
  return 0;
}

MemoryActual Decoder::measure() const {
  MemoryActual actual{.resident_bytes = resident_bytes()};
  for (const DevicePlan& device : impl_->plan.devices) {
    auto& lines = actual.lines.emplace_back();
    for (const auto& line : device.lines) lines.push_back(impl_->actual(line, actual.resident_bytes));
  }
  return actual;
}

void Decoder::Impl::add_outputs(const Chunk& c, std::uint32_t sequence, std::uint32_t first_row,
                                StepArrays& arrays) const {
  if (c.n_outputs > c.tokens.size())
    throw_error(ErrorKind::bad_input, "a chunk of {} tokens can't have {} outputs", c.tokens.size(),
                c.n_outputs);
  const auto n = static_cast<std::uint32_t>(c.tokens.size());
  for (std::uint32_t i = n - c.n_outputs; i < n; ++i)
    arrays.outputs.push_back(
        {.row = first_row + i, .sequence = sequence, .want = c.want, .sampling = c.sampling, .mask = c.mask});
}

void Decoder::Impl::add_chunk(const Chunk& c, StepArrays& arrays) const {
  const auto sequence = static_cast<std::uint32_t>(arrays.sequences.size());
  const auto first_row = static_cast<std::uint32_t>(arrays.tokens.size());
  arrays.sequences.push_back({.slot = c.slot,
                              .first_row = first_row,
                              .n_rows = static_cast<std::uint32_t>(c.tokens.size()),
                              .first_position = c.first_position});
  for (std::size_t i = 0; i < c.tokens.size(); ++i) {
    arrays.tokens.push_back(c.tokens[i]);
    arrays.positions.push_back(c.first_position + static_cast<std::int32_t>(i));
    arrays.row_sequence.push_back(sequence);
  }
  add_outputs(c, sequence, first_row, arrays);
}

// The entries of a block table up to the chunk's last position; a chunk that breaks the limits is refused at
// launch.
std::uint32_t Decoder::Impl::pages_of(const Chunk& c) const {
  const std::uint64_t end = static_cast<std::uint64_t>(c.first_position) + c.tokens.size();
  const std::uint64_t pages = (end + plan.page_tokens - 1) / plan.page_tokens;
  return static_cast<std::uint32_t>(
      std::min<std::uint64_t>(pages, most_pages(plan.limits, plan.page_tokens)));
}

// Returns the tables' stride: the longest of the step, so that a short context copies little.
std::uint32_t Decoder::Impl::add_tables(const Batch& batch, StepArrays& arrays) const {
  std::uint32_t stride = 0;
  for (const Chunk& c : batch.chunks) stride = std::max(stride, pages_of(c));
  for (std::size_t g = 0; g < plan.groups.size(); ++g)
    for (const Chunk& c : batch.chunks) {
      if (c.block_tables.size() != plan.groups.size())
        throw_error(ErrorKind::internal, "a chunk has {} block tables for {} groups", c.block_tables.size(),
                    plan.groups.size());
      const auto table = c.block_tables[g];
      const std::size_t n = std::min<std::size_t>(table.size(), pages_of(c));
      arrays.block_tables.insert(arrays.block_tables.end(), table.begin(), table.begin() + n);
      arrays.block_tables.insert(arrays.block_tables.end(), stride - n, -1);
    }
  return stride;
}

// The arrays belong to a step from the moment its block was accepted until it was waited for.
void Decoder::Impl::submit(const Batch& batch) {
  if (submitted - waited == arrays.size())
    throw_error(ErrorKind::internal, "{} steps are in flight already", arrays.size());
  StepArrays& a = arrays[submitted % arrays.size()];
  a.clear();
  for (const Chunk& c : batch.chunks) add_chunk(c, a);
  const std::uint32_t stride = add_tables(batch, a);
  executable->launch({.tokens = a.tokens,
                      .positions = a.positions,
                      .row_sequence = a.row_sequence,
                      .sequences = a.sequences,
                      .outputs = a.outputs,
                      .block_tables = a.block_tables,
                      .pages_per_sequence = stride,
                      .number = submitted});
  ++submitted;
}

const StepResult& Decoder::Impl::wait() {
  if (waited < submitted) ++waited;
  return executable->wait();
}

void Decoder::submit(const Batch& batch) { impl_->submit(batch); }

const StepResult& Decoder::wait() { return impl_->wait(); }
void Decoder::reset_slot(std::uint32_t slot) { impl_->executable->reset_slot(slot); }
void Decoder::copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                         std::span<const std::int32_t> to) {
  impl_->executable->copy_pages(group, from, to);
}

}  // namespace steelyard
