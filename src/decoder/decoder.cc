#include "decoder/decoder.h"

#include <algorithm>
#include <chrono>
#include <exception>
#include <future>
#include <mutex>
#include <numeric>
#include <set>
#include <string>

#include "base/error.h"
#include "base/process.h"
#include "decoder/part.h"
#include "device/link.h"
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

// Progress of parts that load at the same time, added up.
class SharedProgress {
 public:
  SharedProgress(const LoadProgress& progress, const std::vector<std::unique_ptr<Part>>& parts)
      : progress_(progress), done_(parts.size(), 0) {
    for (const auto& part : parts) total_ += part->file_bytes();
  }
  LoadProgress of_part(std::size_t i) {
    if (!progress_) return {};
    return [this, i](std::uint64_t done, std::uint64_t) {
      const std::lock_guard lock(mutex_);
      done_[i] = done;
      progress_(std::accumulate(done_.begin(), done_.end(), std::uint64_t{0}), total_);
    };
  }

 private:
  const LoadProgress& progress_;
  std::mutex mutex_;
  std::vector<std::uint64_t> done_;
  std::uint64_t total_ = 0;
};

}  // namespace

struct Decoder::Impl {
  std::shared_ptr<const GgufFile> file;
  MemoryPlan plan;
  std::vector<StepArrays> arrays;  // in turn: a step in flight keeps its own, so they outlive the parts
  std::unique_ptr<Links> links;  // none: one part has everything; longer than the parts, which wait for them
  std::vector<std::unique_ptr<Part>> parts;
  std::vector<std::mutex*> order;           // of the parts' devices: held while a step is given to them all
  std::uint64_t submitted = 0, waited = 0;  // steps: the first is number 0
  double load_seconds = 0;
  std::string failure;  // of a part; empty: none
  StepResult result;
  RunnerInfo info;

  ~Impl() {
    if (links) links->abandon();  // or a part would wait for one that is gone
  }
  void make_parts(std::vector<PlacedPart> placed);
  void load_weights(const LoadProgress& progress);
  void compile();
  bool ranks_are_alike() const;
  void warm_up(std::size_t from_part);
  void run_two_steps();
  void describe();
  void submit(const Batch& batch);
  void launch(const StepBlock& block);
  const StepResult& wait();
  void require_whole() const;
  void fail(const char* what);
  void add_chunk(const Chunk& chunk, StepArrays& arrays) const;
  std::uint32_t pages_of(const Chunk& chunk) const;
  std::uint32_t add_tables(const Batch& batch, StepArrays& arrays) const;
  void add_outputs(const Chunk& chunk, std::uint32_t sequence, std::uint32_t first_row,
                   StepArrays& arrays) const;
  std::uint64_t staging_bytes() const;
  std::uint64_t actual(std::size_t device, const PlanLine& line, std::uint64_t resident) const;
};

// All memory first, so that what can't fit is said before anything is read.
void Decoder::Impl::make_parts(std::vector<PlacedPart> placed) {
  for (std::size_t i = 0; i < placed.size(); ++i)
    parts.push_back(std::make_unique<Part>(std::move(placed[i].forward), std::move(placed[i].device), plan,
                                           plan.devices.at(i)));
  if (parts.size() < 2) return;
  // Page-locked where one of them needs that.
  const auto away =
      std::find_if(parts.begin(), parts.end(), [](const auto& p) { return !p->device().target().is_host(); });
  Device& locks = (away == parts.end() ? parts.front() : *away)->device();
  links = std::make_unique<Links>(locks, parts.front()->program().links, plan.limits);
  std::set<std::mutex*> unique;  // in one order for every model
  for (const auto& part : parts) unique.insert(&part->device().order());
  order.assign(unique.begin(), unique.end());
}

void Decoder::Impl::load_weights(const LoadProgress& progress) {
  SharedProgress shared(progress, parts);
  std::vector<std::future<void>> others;
  for (std::size_t i = 1; i < parts.size(); ++i)
    others.push_back(
        std::async(std::launch::async, [&, i] { parts[i]->load_weights(*file, shared.of_part(i)); }));
  parts[0]->load_weights(*file, shared.of_part(0));
  for (auto& other : others) other.get();
  file->check_unchanged();
}

void Decoder::Impl::compile() {
  if (links && ranks_are_alike()) links->offer_words();
  for (const auto& part : parts) part->compile(links.get());
  const std::uint32_t longest = (plan.limits.context + plan.page_tokens - 1) / plan.page_tokens;
  arrays.resize(parts[0]->executable().depth());
  for (StepArrays& a : arrays) a.reserve(plan.limits, plan.groups.size(), longest);
  warm_up(0);
}

// Then all of them take the same kernels, and so trade sums in the same way: GPUs of one kind, with pieces of
// one size.
bool Decoder::Impl::ranks_are_alike() const {
  const Part* first = nullptr;
  for (const auto& part : parts) {
    if (part->program().rank == 0) first = part.get();
    const auto same = [](const BufferSpec& a, const BufferSpec& b) {
      return a.rows == RowSet::outputs || a.width == b.width;
    };
    const auto &mine = part->program().buffers, &theirs = first->program().buffers;
    const std::size_t n = std::min(mine.size(), theirs.size());  // who samples has one more, the last
    if (part->device().target().is_host() || part->device().info().name != first->device().info().name ||
        part->device().info().kernels != first->device().info().kernels ||
        !std::equal(mine.begin(), mine.begin() + n, theirs.begin(), same))
      return false;
  }
  return true;
}

// Runs steps, and counts what each driver takes for them.
void Decoder::Impl::warm_up(std::size_t from_part) {
  if (from_part == parts.size()) return run_two_steps();
  Part& part = *parts[from_part];
  const auto same = [&](const auto& p) { return &p->device() == &part.device(); };
  const bool counted = std::any_of(parts.begin(), parts.begin() + from_part, same);
  if (part.device().target().is_host() || counted) return warm_up(from_part + 1);
  part.count_driver_memory([&] { warm_up(from_part + 1); });
}

// One row, then a page of rows: what drivers put off until a kernel runs is done, and counted. What is
// written to the first page nobody reads: pages are written before they are read.
void Decoder::Impl::run_two_steps() {
  const auto is_host = [](const auto& p) { return p->device().target().is_host(); };
  if (std::all_of(parts.begin(), parts.end(), is_host)) return;
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
  for (const auto& part : parts) part->executable().reset_slot(0);
}

void Decoder::Impl::describe() {
  info = {.limits = plan.limits,
          .page_tokens = plan.page_tokens,
          .vocab_size = parts[0]->program().vocab_size,
          .depth = parts[0]->executable().depth(),
          .stages = static_cast<std::uint32_t>(
              std::ranges::count_if(parts, [](const auto& p) { return p->program().rank == 0; }))};
  for (std::size_t g = 0; g < plan.groups.size(); ++g)
    info.groups.push_back({parts[0]->program().groups[g].window, plan.groups[g].pages});
}

Decoder::Decoder(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Decoder::~Decoder() = default;

std::unique_ptr<Decoder> Decoder::load(std::shared_ptr<const GgufFile> file, std::vector<PlacedPart> parts,
                                       const MemoryPlan& plan, const LoadProgress& progress) {
  const auto begin = std::chrono::steady_clock::now();
  auto impl = std::make_unique<Impl>();
  impl->file = std::move(file);
  impl->plan = plan;
  impl->make_parts(std::move(parts));
  impl->load_weights(progress);
  impl->compile();
  impl->describe();
  impl->load_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  return std::unique_ptr<Decoder>(new Decoder(std::move(impl)));
}

const MemoryPlan& Decoder::plan() const { return impl_->plan; }
std::size_t Decoder::n_parts() const { return impl_->parts.size(); }
const Program& Decoder::program(std::size_t part) const { return impl_->parts.at(part)->program(); }
const RunnerInfo& Decoder::info() const { return impl_->info; }
Device& Decoder::device(std::size_t part) { return impl_->parts.at(part)->device(); }
double Decoder::load_seconds() const { return impl_->load_seconds; }
bool Decoder::failed() const { return !impl_->failure.empty(); }
Executable& Decoder::executable(std::size_t part) { return impl_->parts.at(part)->executable(); }

std::uint64_t Decoder::Impl::staging_bytes() const {
  std::uint64_t bytes = 0;
  for (const auto& part : parts) bytes += part->executable().staging_bytes();
  return bytes;
}

std::uint64_t Decoder::Impl::actual(std::size_t device, const PlanLine& line, std::uint64_t resident) const {
  if (line.purpose == Purpose::staging) return staging_bytes();
  if (line.purpose == Purpose::process) {
    std::uint64_t others = links_bytes(parts[0]->program().links, plan.limits);
    for (const auto& part : parts) others += part->held_on_host();
    for (const DevicePlan& d : plan.devices)
      if (d.bytes(Purpose::process) > 0) others += d.bytes(Purpose::other_models);
    return resident > others ? resident - others : 0;
  }
  return device < parts.size() ? parts[device]->actual(line) : line.bytes;
}

MemoryActual Decoder::measure() const {
  MemoryActual actual{.resident_bytes = resident_bytes()};
  for (std::size_t i = 0; i < impl_->plan.devices.size(); ++i) {
    auto& lines = actual.lines.emplace_back();
    for (const auto& line : impl_->plan.devices[i].lines)
      lines.push_back(impl_->actual(i, line, actual.resident_bytes));
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

void Decoder::Impl::require_whole() const {
  if (!failure.empty()) throw_error(ErrorKind::io, "a part of the model failed: {}", failure);
}

// Parts that wait for the one that failed go on at once; their rows count for nothing.
void Decoder::Impl::fail(const char* what) {
  if (!links || !failure.empty()) return;
  failure = what;
  links->abandon();
}

// To every part, before any other model's step gets between: so all devices see steps in one order, and no
// circle of parts that wait for each other can arise.
void Decoder::Impl::launch(const StepBlock& block) {
  for (std::mutex* m : order) m->lock();
  std::size_t launched = 0;
  std::exception_ptr error;
  try {
    for (; launched < parts.size(); ++launched) parts[launched]->executable().launch(block);
  } catch (const std::exception& e) {
    if (launched > 0) fail(e.what());  // the first refuses a block for all: nothing of it runs anywhere
    error = std::current_exception();
  }
  for (std::mutex* m : order) m->unlock();
  if (error) std::rethrow_exception(error);
}

// The arrays belong to a step from the moment its block was accepted until it was waited for.
void Decoder::Impl::submit(const Batch& batch) {
  require_whole();
  if (submitted - waited == arrays.size())
    throw_error(ErrorKind::internal, "{} steps are in flight already", arrays.size());
  StepArrays& a = arrays[submitted % arrays.size()];
  a.clear();
  for (const Chunk& c : batch.chunks) add_chunk(c, a);
  const std::uint32_t stride = add_tables(batch, a);
  launch({.tokens = a.tokens,
          .positions = a.positions,
          .row_sequence = a.row_sequence,
          .sequences = a.sequences,
          .outputs = a.outputs,
          .block_tables = a.block_tables,
          .pages_per_sequence = stride,
          .number = submitted});
  ++submitted;
}

// In the parts' order: what a part waits for was launched before it, so the first that fails is found first.
// Ranks wait for each other: of a stage those first that give up by themselves, which the CPU doesn't.
const StepResult& Decoder::Impl::wait() {
  if (waited < submitted) ++waited;
  std::exception_ptr error;
  std::int64_t nanoseconds = 0;
  for (std::size_t begin = 0, end; begin < parts.size(); begin = end) {
    end = begin + parts[begin]->program().ranks;
    std::int64_t longest = 0;
    for (const bool host : {false, true})
      for (std::size_t i = begin; i < end; ++i) {
        if (parts[i]->device().target().is_host() != host) continue;
        try {
          const StepResult& done = parts[i]->executable().wait();
          longest = std::max(longest, done.nanoseconds);
          if (i + 1 == parts.size()) result = done;
        } catch (const std::exception& e) {
          fail(e.what());
          if (!error) error = std::current_exception();
        }
      }
    nanoseconds += longest;
  }
  if (error) std::rethrow_exception(error);
  require_whole();
  result.nanoseconds = nanoseconds;
  return result;
}

void Decoder::submit(const Batch& batch) { impl_->submit(batch); }

const StepResult& Decoder::wait() { return impl_->wait(); }
void Decoder::reset_slot(std::uint32_t slot) {
  for (const auto& part : impl_->parts) part->executable().reset_slot(slot);
}
void Decoder::copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                         std::span<const std::int32_t> to) {
  for (const auto& part : impl_->parts) part->executable().copy_pages(group, from, to);
}

}  // namespace steelyard
