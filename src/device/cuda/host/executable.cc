#include "device/cuda/host/executable.h"

#include <algorithm>
#include <variant>

#include "base/error.h"
#include "device/cuda/hopper/args.h"
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
      abort_(gpu_, kAbortBytes),
      end_(gpu_, false),
      taken_(limits.slots),
      timer_(gpu_) {
  if (bindings.workspace_bytes < space_.bytes)
    throw_error(ErrorKind::internal, "{}: the workspace has {} bytes of {}", gpu_.id(),
                bindings.workspace_bytes, space_.bytes);
  place(bindings);
  Stream stream(gpu_);  // until this is made, nothing of it is on the device's queue
  Services services(gpu_, stream.get());
  services.zero(workspace_, space_.bytes);
  const Driver& d = gpu_.driver();
  gpu_.check(d.set32(at(space_.last_sample), ~0u, limits_.slots, stream.get()), "clearing memory");
  stream.synchronize();
  links_ = std::make_unique<PartLinks>(
      gpu_, program_, bindings, PartLinks::Memory{input_.buffers, at(space_.last_sample), limits_.slots});
  input_.exchanges = links_->exchanges(input_.step.abort);
  if (mode_ != Mode::exact) hopper_ = make_hopper_plan(input_, services);
  general_ = std::make_unique<GeneralPath>(input_, space_, workspace_);
  make_flights();
  LookupLauncher lookup(gpu_);
  if (samples() && limits_.outputs) enqueue_one(sample_op_, 1, 1, lookup);
  // The whole step but sampling, which needs to see the logits copied where they are wanted.
  graphs_ = std::make_unique<StepGraphs>(
      gpu_, limits_, [this](std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) {
        enqueue_ops(rows, outputs, launcher);
      });
}

CudaExecutable::~CudaExecutable() {
  // Kernels may still run after an error: end their spins, then wait before their memory goes.
  *reinterpret_cast<volatile std::uint32_t*>(abort_.data()) = 1;
  try {
    gpu_.bind();
    const std::lock_guard lock(gpu_.queue_mutex());
    end_.record(gpu_.queue());
  } catch (const Error&) {
    return;  // a lost device runs nothing
  }
  gpu_.drain(end_.get());
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
                 reinterpret_cast<const std::uint32_t*>(abort_.device_address())};
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
  for (std::uint32_t i = 0; i < limits_.in_flight; ++i)
    flights_.push_back(std::make_unique<Flight>(gpu_, program_, space_, staging));
  trace_.reserve(program_.ops.size());
  host_hidden_.reserve(std::uint64_t{limits_.outputs} * program_.n_embd);
  if (logits_ != kNoBuffer)
    host_logits_.reset(new float[std::uint64_t{limits_.outputs} * program_.vocab_size]);
}

void CudaExecutable::enqueue_one(std::size_t op, std::uint32_t rows, std::uint32_t outputs,
                                 Launcher& launcher) {
  if (hopper_ && hopper_->enqueue_op(op, rows, outputs, launcher)) return;
  general_->enqueue_op(op, rows, outputs, launcher);
}

// What turns tokens into values, with its sum over ranks.
bool CudaExecutable::begins_step(std::size_t op) const {
  const auto is_input = [&](std::size_t i) { return role(program_.ops[i]) == OpRole::input; };
  return is_input(op) || (op > 0 && is_input(op - 1) && exchange_of(program_.ops[op]) != kNoLink);
}

void CudaExecutable::enqueue_ops(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) {
  general_->enqueue_begin(rows, launcher);
  std::size_t first = 0;
  while (first < program_.ops.size() && begins_step(first)) enqueue_one(first++, rows, outputs, launcher);
  if (hopper_ && hopper_->enqueue_step(rows, outputs, launcher)) {
    for (std::size_t i = first; i < program_.ops.size(); ++i)
      if (std::holds_alternative<GatherOp>(program_.ops[i].body)) enqueue_one(i, rows, outputs, launcher);
    return;
  }
  for (std::size_t i = first; i < program_.ops.size(); ++i)
    if (i != sample_op_) enqueue_one(i, rows, outputs, launcher);
}

std::uint64_t CudaExecutable::staging_bytes() const {
  std::uint64_t bytes = abort_.bytes();
  for (const auto& f : flights_) bytes += f->image.bytes() + f->sampled.bytes();
  return bytes;
}

std::string CudaExecutable::report() const {
  if (mode_ == Mode::exact) return "exact mode: the general path";
  return hopper_ ? hopper_->report() : "no kernels of this GPU's own: the general path";
}

// What is kept on the host of the step.
void CudaExecutable::note(Flight& f, const StepBlock& b) {
  f.n_rows = static_cast<std::uint32_t>(b.tokens.size());
  f.n_outputs = static_cast<std::uint32_t>(b.outputs.size());
  f.logits = f.hidden = false;
  if (logits_ == kNoBuffer) return;  // the output layer is another part's
  for (const StepOutput& o : b.outputs) {
    f.logits |= has(o.want, Want::logits);
    f.hidden |= has(o.want, Want::hidden);
  }
}

void CudaExecutable::launch(const StepBlock& block) {
  check_block(block, program_, limits_, kPageTokens, pages_, taken_);
  Flight& f = *flights_[launched_ % limits_.in_flight];
  if (f.pending)
    throw_error(ErrorKind::internal, "{}: {} steps are in flight already", gpu_.id(), limits_.in_flight);
  gpu_.bind();
  f.image.write(block, static_cast<std::uint32_t>(block.number % hopper::kStepNumbers));
  note(f, block);
  f.samples_needed = taken_.samples_needed(block);
  const std::lock_guard lock(gpu_.queue_mutex());
  if (const std::uint64_t round = block.number / hopper::kStepNumbers; round != round_) restart_tags(round);
  enqueue(f, block);
  f.pending = true;
  ++launched_;
  taken_.take(block);
}

// Behind the steps in flight, whose words nobody needs after them.
void CudaExecutable::restart_tags(std::uint64_t round) {
  const HopperPlan::Words words = hopper_ ? hopper_->tagged_words() : HopperPlan::Words{};
  if (words.bytes)
    gpu_.check(gpu_.driver().set8(words.address, 0, words.bytes, gpu_.queue()), "clearing words");
  round_ = round;
}

void CudaExecutable::enqueue(Flight& f, const StepBlock& block) {
  const Driver& d = gpu_.driver();
  const CuStream queue = gpu_.queue();
  StreamLauncher launcher(gpu_, queue);
  links_->wait(block.number, f.samples_needed, queue);
  f.begin.record(queue);  // what other parts took is theirs
  f.image.enqueue_copy(workspace_, queue);
  links_->take(block.number, f.samples_needed, f.n_rows, queue);
  const StepGraphs::Bucket& bucket = graphs_->bucket_for(f.n_rows, f.n_outputs);
  f.traced = tracing_;
  if (tracing_ || probe_)
    enqueue_traced(f, bucket.rows, bucket.outputs);
  else if (bucket.graph)
    gpu_.check(d.graph_launch(bucket.graph, queue), "starting a step");
  else
    enqueue_ops(bucket.rows, bucket.outputs, launcher);
  links_->send(block.number, f.n_rows, queue);
  if (f.logits || f.hidden) enqueue_results(f, block);
  if (samples() && f.n_outputs) {
    enqueue_one(sample_op_, f.n_rows, f.n_outputs, launcher);
    gpu_.check(
        d.copy_to_host(f.sampled.data(), at(space_.sampled), f.n_outputs * sizeof(std::int32_t), queue),
        "copying the tokens");
  }
  links_->send_samples(block.number, queue);
  f.done.record(queue);
}

// Logits and hidden states that the step wants, to the host.
void CudaExecutable::enqueue_results(const Flight& f, const StepBlock& b) {
  const Driver& d = gpu_.driver();
  const CuStream queue = gpu_.queue();
  const std::uint64_t row = std::uint64_t{program_.vocab_size} * sizeof(float);
  for (std::size_t i = 0; f.logits && i < b.outputs.size();) {
    std::size_t end = i;
    while (end < b.outputs.size() && has(b.outputs[end].want, Want::logits)) ++end;
    if (end > i)
      gpu_.check(d.copy_to_host(host_logits_.get() + i * program_.vocab_size,
                                input_.buffers[logits_] + i * row, (end - i) * row, queue),
                 "copying the logits");
    i = end + 1;
  }
  if (!f.hidden) return;
  host_hidden_.resize(b.outputs.size() * program_.n_embd);
  gpu_.check(
      d.copy_to_host(host_hidden_.data(), input_.head_input, host_hidden_.size() * sizeof(float), queue),
      "copying the hidden states");
}

const StepResult& CudaExecutable::wait() {
  if (waited_ == launched_) return result_;
  Flight& f = *flights_[waited_ % limits_.in_flight];
  ++waited_;
  f.pending = false;
  gpu_.bind();
  gpu_.wait_for(f.done.get(), reinterpret_cast<volatile std::uint32_t*>(abort_.data()));
  result_.tokens = {reinterpret_cast<const std::int32_t*>(f.sampled.data()), f.n_outputs};
  result_.logits = {host_logits_.get(), f.logits ? std::uint64_t{f.n_outputs} * program_.vocab_size : 0};
  result_.hidden = f.hidden ? std::span<const float>(host_hidden_) : std::span<const float>();
  float milliseconds = 0;
  gpu_.check(gpu_.driver().event_elapsed(&milliseconds, f.begin.get(), f.done.get()), "timing a step");
  result_.nanoseconds = static_cast<std::int64_t>(milliseconds * 1e6);
  if (f.traced) {
    trace_.clear();
    timer_.read(sample_op_, trace_);
  }
  return result_;
}

void CudaExecutable::enqueue_traced(Flight& f, std::uint32_t rows, std::uint32_t outputs) {
  StreamLauncher launcher(gpu_, gpu_.queue());
  general_->enqueue_begin(rows, launcher);
  timer_.mark(0, gpu_.queue());
  for (std::size_t i = 0; i < program_.ops.size(); ++i) {
    if (i != sample_op_) enqueue_one(i, rows, outputs, launcher);
    timer_.mark(i + 1, gpu_.queue());
    if (probe_ && i != sample_op_) probe_op(i, f);
  }
}

void CudaExecutable::probe_op(std::size_t op, const Flight& f) {
  const auto wait = [&] {
    gpu_.check(gpu_.driver().stream_synchronize(gpu_.queue()), "waiting for the device");
  };
  wait();
  for (const BufferId id : writes(program_.ops[op])) {
    const BufferSpec& spec = program_.buffers[id];
    const std::uint32_t n = spec.rows == RowSet::all ? f.n_rows : f.n_outputs;
    std::vector<float> values(std::uint64_t{n} * spec.width);
    gpu_.check(gpu_.driver().copy_to_host(values.data(), input_.buffers[id], values.size() * sizeof(float),
                                          gpu_.queue()),
               "copying a buffer");
    wait();
    for (std::uint32_t row = 0; row < n; ++row)
      probe_(op, id, row, {values.data() + std::uint64_t{row} * spec.width, spec.width});
  }
}

void CudaExecutable::reset_slot(std::uint32_t slot) {
  if (slot >= limits_.slots) return;
  gpu_.bind();
  const std::lock_guard lock(gpu_.queue_mutex());
  gpu_.check(gpu_.driver().set32(at(space_.last_sample) + slot * sizeof(std::int32_t), ~0u, 1, gpu_.queue()),
             "resetting a slot");
  taken_.reset_slot(slot);
}

void CudaExecutable::copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                                std::span<const std::int32_t> to) {
  gpu_.bind();
  const std::lock_guard lock(gpu_.queue_mutex());
  for (std::size_t i = 0; i < from.size(); ++i)
    for (std::size_t s = 0; s < program_.states.size(); ++s) {
      if (program_.states[s].group != static_cast<int>(group)) continue;
      const KvView& kv = input_.states[s];
      gpu_.check(gpu_.driver().copy_on_device(kv.base + to[i] * kv.page_bytes,
                                              kv.base + from[i] * kv.page_bytes, kv.page_bytes, gpu_.queue()),
                 "copying pages");
    }
}

}  // namespace steelyard::cuda
