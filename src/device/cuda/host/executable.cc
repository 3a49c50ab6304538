#include "device/cuda/host/executable.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "program/uses.h"

namespace steelyard::cuda {

class CudaExecutable::Services final : public CompileServices {
 public:
  Services(Gpu& gpu, CuStream stream) : gpu_(gpu), stream_(stream) {}
  bool has_kernel(const char* kernel) override { return gpu_.find_kernel(kernel) != nullptr; }
  std::uint32_t blocks_per_sm(const char* name, std::uint32_t threads, std::uint32_t shared_bytes) override {
    Gpu::Kernel& kernel = gpu_.kernel(name);
    gpu_.allow_shared(kernel, shared_bytes);
    int blocks = 0;
    gpu_.check(gpu_.driver().occupancy(&blocks, kernel.function, static_cast<int>(threads), shared_bytes),
               "reading a kernel's occupancy");
    return static_cast<std::uint32_t>(blocks);
  }
  void upload(DevicePtr to, const void* from, std::uint64_t bytes) override {
    gpu_.check(gpu_.driver().copy_to_device(to, from, bytes, stream_), "copying to the device");
    gpu_.check(gpu_.driver().stream_synchronize(stream_), "copying to the device");
  }
  void zero(DevicePtr to, std::uint64_t bytes) override {
    gpu_.check(gpu_.driver().set8(to, 0, bytes, stream_), "clearing memory");
    gpu_.check(gpu_.driver().stream_synchronize(stream_), "clearing memory");
  }

 private:
  Gpu& gpu_;
  CuStream stream_;
};

CudaExecutable::CudaExecutable(Gpu& gpu, const Program& program, const Bindings& bindings,
                               const StepLimits& limits, Mode mode)
    : gpu_(gpu),
      program_(program),
      limits_(limits),
      mode_(mode),
      space_(lay_out(program_, limits_, mode)),
      taken_(limits.slots) {
  if (bindings.workspace_bytes < space_.bytes)
    throw_error(ErrorKind::internal, "{}: the workspace has {} bytes of {}", gpu_.id(),
                bindings.workspace_bytes, space_.bytes);
  stream_ = std::make_unique<Stream>(gpu_);
  abort_ = std::make_unique<PinnedMemory>(gpu_, kAbortBytes);
  place(bindings);
  Services services(gpu_, stream_->get());
  services.zero(workspace_, space_.bytes);
  const Driver& d = gpu_.driver();
  gpu_.check(d.set32(at(space_.last_sample), ~0u, limits_.slots, stream_->get()), "clearing memory");
  if (mode_ != Mode::exact) fast_ = make_fast_plan(input_, services);
  general_ = std::make_unique<GeneralPath>(input_, space_, workspace_);
  make_flights();
  try {
    make_buckets();
    stream_->synchronize();
  } catch (...) {
    destroy_graphs();
    throw;
  }
}

CudaExecutable::~CudaExecutable() {
  // Kernels may still run after an error: end their spins, then wait before their memory goes.
  *reinterpret_cast<volatile std::uint32_t*>(abort_->data()) = 1;
  try {
    gpu_.bind();
  } catch (const Error&) {
  }
  gpu_.drain(stream_->get());
  destroy_graphs();
}

void CudaExecutable::destroy_graphs() {
  for (Bucket& b : buckets_)
    if (b.graph) gpu_.driver().graph_exec_destroy(std::exchange(b.graph, nullptr));
}

void CudaExecutable::place(const Bindings& bindings) {
  workspace_ = reinterpret_cast<DevicePtr>(bindings.workspace);
  pages_ = bindings.pages;
  input_.program = &program_;
  input_.gpu = gpu_.info();
  input_.limits = limits_;
  input_.mode = mode_;
  for (const auto* w : bindings.weights) input_.weights.push_back(reinterpret_cast<DevicePtr>(w));
  for (const auto offset : space_.buffers) input_.buffers.push_back(at(offset));
  for (std::size_t i = 0; i < program_.states.size(); ++i) {
    KvView view = kv_layout(program_.states[i]);
    view.base = reinterpret_cast<DevicePtr>(bindings.states[i]);
    view.group = program_.states[i].group;
    input_.states.push_back(view);
  }
  const DevicePtr step = at(space_.step);
  input_.step = {reinterpret_cast<const StepHeader*>(step),
                 reinterpret_cast<const std::int32_t*>(step + space_.tokens),
                 reinterpret_cast<const std::int32_t*>(step + space_.positions),
                 reinterpret_cast<const std::uint32_t*>(step + space_.row_sequence),
                 reinterpret_cast<const DeviceSequence*>(step + space_.sequences),
                 reinterpret_cast<const DeviceOutput*>(step + space_.outputs),
                 reinterpret_cast<const std::uint32_t*>(at(space_.masks)),
                 reinterpret_cast<const std::int32_t*>(step + space_.tables),
                 reinterpret_cast<const std::uint32_t*>(abort_->device_address())};
  for (const auto offset : space_.ropes) input_.ropes.push_back(at(offset));
  input_.head_input = at(space_.head_input);
  input_.scratch = at(space_.scratch);
  input_.scratch_bytes = space_.scratch_bytes;
  sample_op_ = program_.ops.size();
  logits_ = logits_of(program_);
  for (std::size_t i = 0; i < program_.ops.size(); ++i)
    if (role(program_.ops[i]) == OpRole::sample) sample_op_ = i;
}

void CudaExecutable::make_flights() {
  const Staging staging = staging_of(program_, limits_, space_);
  for (Flight& f : flights_) {
    f.block = std::make_unique<PinnedMemory>(gpu_, staging.block);
    f.sampled = std::make_unique<PinnedMemory>(gpu_, staging.sampled);
    f.begin = std::make_unique<Event>(gpu_, true);
    f.done = std::make_unique<Event>(gpu_, true);
  }
  trace_.reserve(program_.ops.size());
  host_hidden_.reserve(std::uint64_t{limits_.outputs} * program_.n_embd);
  if (logits_ != kNoBuffer)
    host_logits_.reset(new float[std::uint64_t{limits_.outputs} * program_.vocab_size]);
}

namespace {

// Looks kernels up without starting them: the driver may load code, which a capture doesn't allow.
class LookupLauncher final : public Launcher {
 public:
  explicit LookupLauncher(Gpu& gpu) : gpu_(gpu) {}
  void launch(const KernelLaunch& l, void**) override {
    gpu_.allow_shared(gpu_.kernel(l.kernel), l.shared_bytes);
  }

 private:
  Gpu& gpu_;
};

}  // namespace

void CudaExecutable::make_buckets() {
  for (const BucketSize& size : bucket_sizes(limits_)) buckets_.push_back({size.rows, size.outputs});
  LookupLauncher lookup(gpu_);
  for (Bucket& b : buckets_) enqueue_ops(b.rows, b.outputs, lookup);
  if (sample_op_ < program_.ops.size() && limits_.outputs) enqueue_one(sample_op_, 1, 1, lookup);
  for (Bucket& b : buckets_)
    if (b.rows <= kGraphRows) capture(b);
}

// The whole step but sampling, which needs to see the logits copied where they are wanted.
void CudaExecutable::capture(Bucket& bucket) {
  const Driver& d = gpu_.driver();
  CuGraph graph = nullptr;
  gpu_.check(d.capture_begin(stream_->get(), kCaptureThreadLocal), "capturing a graph");
  try {
    StreamLauncher launcher(gpu_, stream_->get());
    enqueue_ops(bucket.rows, bucket.outputs, launcher);
  } catch (...) {
    d.capture_end(stream_->get(), &graph);
    if (graph) d.graph_destroy(graph);
    throw;
  }
  gpu_.check(d.capture_end(stream_->get(), &graph), "capturing a graph");
  const CuResult result = d.graph_instantiate(&bucket.graph, graph, 0);
  d.graph_destroy(graph);
  gpu_.check(result, "instantiating a graph");
  gpu_.check(d.graph_upload(bucket.graph, stream_->get()), "uploading a graph");
}

const CudaExecutable::Bucket& CudaExecutable::bucket_for(std::uint32_t rows, std::uint32_t outputs) const {
  for (const Bucket& b : buckets_)
    if (b.rows >= rows && b.outputs >= outputs) return b;
  return buckets_.back();
}

void CudaExecutable::enqueue_one(std::size_t op, std::uint32_t rows, std::uint32_t outputs,
                                 Launcher& launcher) {
  if (fast_ && fast_->enqueue_op(op, rows, outputs, launcher)) return;
  general_->enqueue_op(op, rows, outputs, launcher);
}

void CudaExecutable::enqueue_ops(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) {
  general_->enqueue_begin(rows, launcher);
  std::size_t first = 0;
  while (first < program_.ops.size() && role(program_.ops[first]) == OpRole::input)
    enqueue_one(first++, rows, outputs, launcher);
  if (fast_ && fast_->enqueue_step(rows, outputs, launcher)) return;
  for (std::size_t i = first; i < program_.ops.size(); ++i)
    if (i != sample_op_) enqueue_one(i, rows, outputs, launcher);
}

std::uint64_t CudaExecutable::staging_bytes() const {
  std::uint64_t bytes = abort_->bytes();
  for (const Flight& f : flights_) bytes += f.block->bytes() + f.sampled->bytes();
  return bytes;
}

std::string CudaExecutable::report() const {
  if (mode_ == Mode::exact) return "exact mode: the general path";
  return fast_ ? fast_->report() : "no fast kernels for this GPU: the general path";
}

// The image of the device's step block; returns the bytes to copy.
std::uint64_t CudaExecutable::fill(Flight& f, const StepBlock& b) {
  std::byte* image = f.block->data();
  StepHeader header{};
  header.n_rows = f.n_rows = static_cast<std::uint32_t>(b.tokens.size());
  header.n_sequences = static_cast<std::uint32_t>(b.sequences.size());
  header.n_outputs = f.n_outputs = static_cast<std::uint32_t>(b.outputs.size());
  header.table_stride = b.pages_per_sequence;
  header.step = static_cast<std::uint32_t>(b.number);
  std::memcpy(image, &header, sizeof header);
  std::memcpy(image + space_.tokens, b.tokens.data(), b.tokens.size_bytes());
  std::memcpy(image + space_.positions, b.positions.data(), b.positions.size_bytes());
  std::memcpy(image + space_.row_sequence, b.row_sequence.data(), b.row_sequence.size_bytes());
  static_assert(sizeof(DeviceSequence) == sizeof(StepSequence));
  std::memcpy(image + space_.sequences, b.sequences.data(), b.sequences.size_bytes());
  const std::uint64_t tables =
      b.sequences.size() * program_.groups.size() * b.pages_per_sequence * sizeof(std::int32_t);
  std::memcpy(image + space_.tables, b.block_tables.data(), tables);
  return space_.tables + tables;
}

static_assert(static_cast<std::uint32_t>(Want::sample) == kWantSample);

// Returns the number of masks.
std::uint32_t CudaExecutable::fill_outputs(Flight& f, const StepBlock& b) {
  auto* out = reinterpret_cast<DeviceOutput*>(f.block->data() + space_.outputs);
  const std::uint64_t words = (program_.vocab_size + 31) / 32;
  std::uint32_t masks = 0;
  f.logits = f.hidden = false;
  for (const StepOutput& o : b.outputs) {
    const SamplingParams& p = o.sampling;
    DeviceOutput d{o.row,
                   o.sequence,
                   static_cast<std::uint32_t>(o.want),
                   -1,
                   p.temperature,
                   p.top_p,
                   p.min_p,
                   p.typical_p,
                   p.repeat_penalty,
                   p.presence_penalty,
                   p.frequency_penalty,
                   p.top_k,
                   p.repeat_last_n,
                   static_cast<std::uint32_t>(p.seed),
                   static_cast<std::uint32_t>(p.seed >> 32),
                   static_cast<std::uint32_t>(b.positions[o.row])};
    if (o.mask) {
      d.mask = static_cast<std::int32_t>(masks++);
      std::memcpy(f.block->data() + space_.step_bytes + d.mask * words * 4, o.mask, words * 4);
    }
    *out++ = d;
    f.logits |= has(o.want, Want::logits);
    f.hidden |= has(o.want, Want::hidden);
  }
  return masks;
}

void CudaExecutable::launch(const StepBlock& block) {
  check_block(block, program_, limits_, kPageTokens, pages_, taken_);
  Flight& f = flights_[launched_ % kStepsInFlight];
  if (f.pending)
    throw_error(ErrorKind::internal, "{}: {} steps are in flight already", gpu_.id(), kStepsInFlight);
  gpu_.bind();
  const Driver& d = gpu_.driver();
  const CuStream stream = stream_->get();
  const std::uint64_t bytes = fill(f, block);
  const std::uint64_t masks = fill_outputs(f, block);
  f.begin->record(stream);
  gpu_.check(d.copy_to_device(at(space_.step), f.block->data(), bytes, stream), "copying the step block");
  if (masks)
    gpu_.check(d.copy_to_device(at(space_.masks), f.block->data() + space_.step_bytes,
                                masks * ((program_.vocab_size + 31) / 32) * 4, stream),
               "copying the masks");
  const Bucket& bucket = bucket_for(f.n_rows, f.n_outputs);
  StreamLauncher launcher(gpu_, stream);
  f.traced = tracing_;
  if (tracing_ || probe_)
    run_traced(f, bucket.rows, bucket.outputs);
  else if (bucket.graph)
    gpu_.check(d.graph_launch(bucket.graph, stream), "starting a step");
  else
    enqueue_ops(bucket.rows, bucket.outputs, launcher);
  if (f.logits || f.hidden) fetch_logits(f, block);
  if (sample_op_ < program_.ops.size() && f.n_outputs) {
    enqueue_one(sample_op_, f.n_rows, f.n_outputs, launcher);
    gpu_.check(
        d.copy_to_host(f.sampled->data(), at(space_.sampled), f.n_outputs * sizeof(std::int32_t), stream),
        "copying the tokens");
  }
  f.done->record(stream);
  f.pending = true;
  ++launched_;
  taken_.take(block);
}

void CudaExecutable::fetch_logits(const Flight& f, const StepBlock& b) {
  const Driver& d = gpu_.driver();
  const CuStream stream = stream_->get();
  const std::uint64_t row = std::uint64_t{program_.vocab_size} * sizeof(float);
  for (std::size_t i = 0; f.logits && i < b.outputs.size();) {
    std::size_t end = i;
    while (end < b.outputs.size() && has(b.outputs[end].want, Want::logits)) ++end;
    if (end > i)
      gpu_.check(d.copy_to_host(host_logits_.get() + i * program_.vocab_size,
                                input_.buffers[logits_] + i * row, (end - i) * row, stream),
                 "copying the logits");
    i = end + 1;
  }
  if (!f.hidden) return;
  host_hidden_.resize(b.outputs.size() * program_.n_embd);
  gpu_.check(
      d.copy_to_host(host_hidden_.data(), input_.head_input, host_hidden_.size() * sizeof(float), stream),
      "copying the hidden states");
}

const StepResult& CudaExecutable::wait() {
  if (waited_ == launched_) return result_;
  Flight& f = flights_[waited_ % kStepsInFlight];
  ++waited_;
  f.pending = false;
  gpu_.bind();
  gpu_.wait_for(f.done->get(), reinterpret_cast<volatile std::uint32_t*>(abort_->data()));
  result_.tokens = {reinterpret_cast<const std::int32_t*>(f.sampled->data()), f.n_outputs};
  result_.logits = {host_logits_.get(), f.logits ? std::uint64_t{f.n_outputs} * program_.vocab_size : 0};
  result_.hidden = f.hidden ? std::span<const float>(host_hidden_) : std::span<const float>();
  float milliseconds = 0;
  gpu_.check(gpu_.driver().event_elapsed(&milliseconds, f.begin->get(), f.done->get()), "timing a step");
  result_.nanoseconds = static_cast<std::int64_t>(milliseconds * 1e6);
  if (f.traced) {
    trace_.clear();
    for (std::size_t i = 0; i + 1 < op_events_.size(); ++i) {
      gpu_.check(gpu_.driver().event_elapsed(&milliseconds, op_events_[i]->get(), op_events_[i + 1]->get()),
                 "timing an op");
      if (i != sample_op_)
        trace_.push_back({static_cast<std::uint32_t>(i), static_cast<std::int64_t>(milliseconds * 1e6)});
    }
  }
  return result_;
}

void CudaExecutable::run_traced(Flight& f, std::uint32_t rows, std::uint32_t outputs) {
  StreamLauncher launcher(gpu_, stream_->get());
  while (op_events_.size() <= program_.ops.size()) op_events_.push_back(std::make_unique<Event>(gpu_, true));
  general_->enqueue_begin(rows, launcher);
  op_events_[0]->record(stream_->get());
  for (std::size_t i = 0; i < program_.ops.size(); ++i) {
    if (i != sample_op_) enqueue_one(i, rows, outputs, launcher);
    op_events_[i + 1]->record(stream_->get());
    if (probe_ && i != sample_op_) probe_op(i, f);
  }
}

void CudaExecutable::probe_op(std::size_t op, const Flight& f) {
  stream_->synchronize();
  for (const BufferId id : writes(program_.ops[op])) {
    const BufferSpec& spec = program_.buffers[id];
    const std::uint32_t n = spec.rows == RowSet::all ? f.n_rows : f.n_outputs;
    std::vector<float> values(std::uint64_t{n} * spec.width);
    gpu_.check(gpu_.driver().copy_to_host(values.data(), input_.buffers[id], values.size() * sizeof(float),
                                          stream_->get()),
               "copying a buffer");
    stream_->synchronize();
    for (std::uint32_t row = 0; row < n; ++row)
      probe_(op, id, row, {values.data() + std::uint64_t{row} * spec.width, spec.width});
  }
}

void CudaExecutable::reset_slot(std::uint32_t slot) {
  if (slot >= limits_.slots) return;
  gpu_.bind();
  gpu_.check(
      gpu_.driver().set32(at(space_.last_sample) + slot * sizeof(std::int32_t), ~0u, 1, stream_->get()),
      "resetting a slot");
  taken_.reset_slot(slot);
}

void CudaExecutable::copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                                std::span<const std::int32_t> to) {
  gpu_.bind();
  for (std::size_t i = 0; i < from.size(); ++i)
    for (std::size_t s = 0; s < program_.states.size(); ++s) {
      if (program_.states[s].group != static_cast<int>(group)) continue;
      const KvView& kv = input_.states[s];
      gpu_.check(
          gpu_.driver().copy_on_device(kv.base + to[i] * kv.page_bytes, kv.base + from[i] * kv.page_bytes,
                                       kv.page_bytes, stream_->get()),
          "copying pages");
    }
}

}  // namespace steelyard::cuda
