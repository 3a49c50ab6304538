#include "decoder/decoder.h"

#include <algorithm>
#include <chrono>

#include "base/error.h"
#include "base/process.h"

namespace strata {
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

// Offsets of weights in the weight arena, by WeightId; mapped ones have none.
struct WeightMap {
  std::vector<std::uint64_t> offsets;
  std::uint64_t bytes = 0;
};

WeightMap map_weights(const Program& program, const Target& target, Mode mode) {
  WeightMap map;
  for (const auto& w : program.weights) {
    map.offsets.push_back(map.bytes);
    const WeightLayout layout = target.weight_layout(w, mode);
    if (layout.home == WeightHome::repacked) map.bytes += layout.bytes;
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
  std::uint64_t mapped_bytes = 0;
  std::unique_ptr<Executable> executable;
  std::uint32_t table_length = 0;
  StepArrays arrays;
  double load_seconds = 0;

  void make_arenas();
  Bindings place_weights(const LoadProgress& progress);
  void place_states(Bindings& bindings) const;
  void add_chunk(const Chunk& chunk);
  void add_tables(const Batch& batch);
  void add_outputs(const Chunk& chunk, std::uint32_t sequence, std::uint32_t first_row);
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
    const WeightSpec& w = program.weights[i];
    const std::span<const std::byte> raw = weight_bytes(*file, w, forward.sources[i]);
    const bool repacked = device->target().weight_layout(w, plan.mode).home == WeightHome::repacked;
    bindings.weights.push_back(repacked ? weights->data() + map.offsets[i] : raw.data());
    if (repacked) {
      loads.push_back({&w, raw, map.offsets[i]});
    } else {
      file->populate(*forward.sources[i].tensor);
      mapped_bytes += raw.size();
    }
  }
  device->load_weights(loads, plan.mode, *weights, progress);
  for (std::size_t i = 0; i < program.weights.size(); ++i)
    if (device->target().weight_layout(program.weights[i], plan.mode).home == WeightHome::repacked)
      file->release(*forward.sources[i].tensor);
  return bindings;
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
  impl->executable = impl->device->compile(impl->forward.program, bindings, plan.limits, plan.mode);
  impl->table_length = (plan.limits.context + plan.page_tokens - 1) / plan.page_tokens + 1;
  impl->arrays.reserve(plan.limits, plan.groups.size(), impl->table_length);
  impl->load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return std::unique_ptr<Decoder>(new Decoder(std::move(impl)));
}

const MemoryPlan& Decoder::plan() const { return impl_->plan; }
const Program& Decoder::program() const { return impl_->forward.program; }
Device& Decoder::device() { return *impl_->device; }
double Decoder::load_seconds() const { return impl_->load_seconds; }
Executable& Decoder::executable() { return *impl_->executable; }

MemoryActual Decoder::measure() const {
  MemoryActual actual{.resident_bytes = resident_bytes()};
  std::uint64_t held =
      impl_->weights->bytes() + impl_->states->bytes() + impl_->workspace->bytes() + impl_->mapped_bytes;
  for (const auto& line : impl_->plan.devices[0].lines) {
    switch (line.purpose) {
      case Purpose::weights:
        actual.lines.push_back(impl_->weights->bytes());
        break;
      case Purpose::mapped_weights:
        actual.lines.push_back(impl_->mapped_bytes);
        break;
      case Purpose::state:
        actual.lines.push_back(impl_->states->bytes());
        break;
      case Purpose::workspace:
        actual.lines.push_back(impl_->workspace->bytes());
        break;
      case Purpose::process:
        actual.lines.push_back(actual.resident_bytes > held ? actual.resident_bytes - held : 0);
        break;
      case Purpose::reserve:
        actual.lines.push_back(line.bytes);
        break;
    }
  }
  return actual;
}

void Decoder::Impl::add_outputs(const Chunk& c, std::uint32_t sequence, std::uint32_t first_row) {
  if (c.n_outputs > c.tokens.size() || arrays.outputs.size() + c.n_outputs > plan.limits.outputs)
    throw_error(ErrorKind::bad_input, "a step may want {} outputs at most", plan.limits.outputs);
  const auto n = static_cast<std::uint32_t>(c.tokens.size());
  for (std::uint32_t i = n - c.n_outputs; i < n; ++i)
    arrays.outputs.push_back(
        {.row = first_row + i, .sequence = sequence, .want = c.want, .sampling = c.sampling, .mask = c.mask});
}

void Decoder::Impl::add_chunk(const Chunk& c) {
  const StepLimits& limits = plan.limits;
  if (arrays.sequences.size() >= limits.slots || arrays.tokens.size() + c.tokens.size() > limits.rows)
    throw_error(ErrorKind::bad_input, "a step holds {} sequences and {} tokens at most", limits.slots,
                limits.rows);
  if (c.first_position < 0 || c.first_position + c.tokens.size() > limits.context)
    throw_error(ErrorKind::bad_input, "a sequence may have {} tokens at most (--context)", limits.context);
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
  add_outputs(c, sequence, first_row);
}

void Decoder::Impl::add_tables(const Batch& batch) {
  for (std::size_t g = 0; g < plan.groups.size(); ++g)
    for (const Chunk& c : batch.chunks) {
      if (c.block_tables.size() != plan.groups.size())
        throw_error(ErrorKind::internal, "a chunk has {} block tables for {} groups", c.block_tables.size(),
                    plan.groups.size());
      const auto table = c.block_tables[g];
      const std::size_t n = std::min<std::size_t>(table.size(), table_length);
      arrays.block_tables.insert(arrays.block_tables.end(), table.begin(), table.begin() + n);
      arrays.block_tables.insert(arrays.block_tables.end(), table_length - n, -1);
    }
}

void Decoder::submit(const Batch& batch) {
  StepArrays& a = impl_->arrays;
  a.clear();
  for (const Chunk& c : batch.chunks) impl_->add_chunk(c);
  impl_->add_tables(batch);
  impl_->executable->launch({.tokens = a.tokens,
                             .positions = a.positions,
                             .row_sequence = a.row_sequence,
                             .sequences = a.sequences,
                             .outputs = a.outputs,
                             .block_tables = a.block_tables,
                             .pages_per_sequence = impl_->table_length});
}

const StepResult& Decoder::wait() { return impl_->executable->wait(); }
void Decoder::reset_slot(std::uint32_t slot) { impl_->executable->reset_slot(slot); }
void Decoder::copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                         std::span<const std::int32_t> to) {
  impl_->executable->copy_pages(group, from, to);
}

}  // namespace strata
