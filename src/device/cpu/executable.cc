#include "device/cpu/executable.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <utility>
#include <variant>

#include "base/error.h"
#include "base/thread_pool.h"
#include "device/cpu/worker.h"
#include "program/uses.h"

namespace steelyard::cpu {
namespace {

std::int64_t now() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

}  // namespace

CpuExecutable::CpuExecutable(const Program& program, const Bindings& bindings, const StepLimits& limits,
                             Mode mode, Isa isa, Queue& queue)
    : program_(program),
      bindings_(bindings),
      limits_(limits),
      mode_(mode),
      kernels_(kernels(isa)),
      queue_(queue),
      space_(lay_out(program, limits, mode, queue.threads())),
      base_(bindings.workspace),
      reads_tokens_(reads_tokens(program)),
      samples_(steelyard::samples(program)),
      from_(box_of(program, bindings_.links, false)),
      to_(box_of(program, bindings_.links, true)),
      begin_(!program.links.empty() ? Queue::Begin::at_once : queue.best_begin()),
      next_task_(new std::atomic<std::uint32_t>[program.ops.size()]),
      taken_(limits.slots),
      flights_(limits.in_flight) {
  check(program_);
  if (bindings.workspace_bytes < space_.bytes)
    throw_error(ErrorKind::internal, "the workspace has {} bytes of {}", bindings.workspace_bytes,
                space_.bytes);
  for (std::uint32_t slot = 0; slot < limits_.slots; ++slot) last_sample()[slot] = -1;
  for (const auto& s : program_.states) page_bytes_.push_back(kv_page_bytes(kv_layout(s)));
  for (std::size_t i = 0; i < program_.ropes.size(); ++i) {
    const RopeSpec& r = program_.ropes[i];
    rope_inv_freq({r.n_rot, r.base, r.freq_scale, r.ramp_begin, r.ramp_end}, vector(r.factors),
                  reinterpret_cast<double*>(base_ + space_.inv_freq_of_rope[i]));
  }
  logits_ = logits_of(program_);
  trace_.reserve(program_.ops.size());
  std::uint32_t widest = 0;
  for (const auto& b : program_.buffers) widest = std::max(widest, b.width);
  probe_row_.resize(widest + kActBlock);
}

KvPages CpuExecutable::kv_pages(StateId id, std::uint32_t sequence) const {
  const std::size_t group = program_.states[id].group;
  return {
      bindings_.states[id], page_bytes_[id],
      block_.block_tables.data() + (group * block_.sequences.size() + sequence) * block_.pages_per_sequence};
}

std::int32_t* CpuExecutable::history(std::uint32_t slot) const {
  return reinterpret_cast<std::int32_t*>(base_ + space_.history) + std::uint64_t{slot} * limits_.context;
}

std::int32_t CpuExecutable::token_of_row(std::uint32_t row) const {
  const std::uint32_t slot = block_.sequences[block_.row_sequence[row]].slot;
  return history(slot)[block_.positions[row]];
}

// For the next step of this slot, here and, of a model in parts, wherever its tokens become values.
void CpuExecutable::keep_sample(std::uint32_t slot, std::int32_t token) const {
  last_sample()[slot] = token;
  if (bindings_.tokens.last)
    std::atomic_ref(bindings_.tokens.last[slot]).store(token, std::memory_order_relaxed);
}

void CpuExecutable::start_step(const Flight& flight) {
  const StepBlock& block = block_ = flight.block;
  trace_.clear();
  want_hidden_ = false;
  for (const auto& o : block.outputs) want_hidden_ |= has(o.want, Want::hidden);
  for (std::size_t i = 0; i < program_.ops.size(); ++i) next_task_[i].store(0, std::memory_order_relaxed);
  if (reads_tokens_) resolve_tokens(flight);
  if (from_ && !wait_for(*from_->sent, block.number + 1))
    throw_error(ErrorKind::cancelled, "another part of the model failed");
}

// Every row's token, into its slot's history, from which they are read.
void CpuExecutable::resolve_tokens(const Flight& flight) {
  const StepBlock& block = flight.block;
  const TokenBox& others = bindings_.tokens;
  const bool elsewhere = others.sampled && !samples_;
  if (elsewhere && !wait_for(*others.sampled, flight.samples_needed))
    throw_error(ErrorKind::cancelled, "another part of the model failed");
  const auto last_of = [&](std::uint32_t slot) {
    return elsewhere ? std::atomic_ref(others.last[slot]).load(std::memory_order_relaxed)
                     : last_sample()[slot];
  };
  for (std::size_t row = 0; row < block.tokens.size(); ++row) {
    const std::uint32_t slot = block.sequences[block.row_sequence[row]].slot;
    const std::int32_t token = block.tokens[row] == kLastSample ? last_of(slot) : block.tokens[row];
    if (token < 0 || static_cast<std::uint32_t>(token) >= program_.vocab_size)
      throw_error(ErrorKind::internal, "slot {} has no last sample to go on from", slot);
    history(slot)[block.positions[row]] = token;
  }
}

void CpuExecutable::push(void (*run)(ThreadPool&, const Queue::Job&), std::int32_t a, std::int32_t b,
                         std::int32_t c) {
  last_ = queue_.push({run, this, {a, b, c}}, begin_);
}

void CpuExecutable::launch(const StepBlock& block) {
  if (launched_ - waited_ == limits_.in_flight)
    throw_error(ErrorKind::internal, "{} steps are in flight already", limits_.in_flight);
  check_block(block, program_, limits_, kPageTokens, bindings_.pages, taken_);
  const auto turn = static_cast<std::int32_t>(launched_ % limits_.in_flight);
  flights_[turn].block = block;
  flights_[turn].samples_needed = taken_.samples_needed(block);
  taken_.take(block);
  push(
      [](ThreadPool& team, const Queue::Job& job) {
        auto* x = static_cast<CpuExecutable*>(job.owner);
        x->run_step(team, x->flights_[job.values[0]]);
      },
      turn);
  flights_[turn].ticket = last_;
  ++launched_;
}

const StepResult& CpuExecutable::wait() {
  const std::uint64_t n = limits_.in_flight;
  if (waited_ == launched_) return flights_[(waited_ + n - 1) % n].result;
  Flight& flight = flights_[waited_++ % n];
  queue_.wait(flight.ticket);
  if (flight.error) std::rethrow_exception(std::exchange(flight.error, nullptr));
  return flight.result;
}

void CpuExecutable::run_step(ThreadPool& team, Flight& flight) {
  std::int64_t begin = 0;  // of its work: what other parts took is theirs
  flight.result = {};
  try {
    sampled_ = sampled(flight);
    start_step(flight);
    begin = last_stamp_ = now();
    run_ops(team);
    if (abandoned_.load(std::memory_order_relaxed))
      throw_error(ErrorKind::cancelled, "another part of the model failed");
    publish(flight.block.number + 1);
  } catch (...) {
    flight.error = std::current_exception();
    publish(kNoMoreSteps);  // or who waits for this step would wait for ever
    return;
  }
  const std::size_t n = flight.block.outputs.size();
  flight.result.tokens = {sampled_, n};
  if (logits_ != kNoBuffer) flight.result.logits = {floats(logits_), n * program_.vocab_size};
  if (want_hidden_)
    flight.result.hidden = {reinterpret_cast<const float*>(base_ + space_.hidden_out), n * program_.n_embd};
  flight.result.nanoseconds = now() - begin;
}

// So many steps are there for other parts.
void CpuExecutable::publish(std::uint64_t steps) const {
  if (to_) to_->sent->store(steps, std::memory_order_release);
  if (bindings_.tokens.sampled && samples_) bindings_.tokens.sampled->store(steps, std::memory_order_release);
  if (steps != kNoMoreSteps) return;
  for (const Op& op : program_.ops)
    if (const LinkId link = exchange_of(op); link != kNoLink) {
      const LinkBox& box = bindings_.links[link];
      for (std::uint32_t row = 0; row < box.most_rows; ++row)
        for (std::uint32_t c = 0; c < box.chunks; ++c) tell(box, program_.rank, row, kNoMoreSteps, c);
    }
}

void CpuExecutable::tell(const LinkBox& box, std::uint32_t rank, std::uint32_t row, std::uint64_t count,
                         std::uint32_t chunk) const {
  box.sent_by(rank, row, chunk).store(count, std::memory_order_release);
}

void CpuExecutable::wait_for_rank(const LinkBox& box, std::uint32_t rank, std::uint32_t row,
                                  std::uint64_t count, std::uint32_t chunk) const {
  if (!wait_for(box.sent_by(rank, row, chunk), count)) abandoned_.store(true, std::memory_order_relaxed);
}

void CpuExecutable::run_ops(ThreadPool& team) {
  team.run([this, &team](unsigned thread, unsigned n) {
    Worker w{*this, team, kernels_, thread, n};
    w.prepare();
    team.barrier();
    for (std::size_t i = 0; i < program_.ops.size(); ++i) {
      w.op_index = i;
      std::visit(w, program_.ops[i].body);
      team.barrier();
      if (tracing_ || probe_) finish_op(w, i);
    }
  });
}

void CpuExecutable::finish_op(Worker& w, std::size_t op_index) {
  if (w.thread == 0) {
    const std::int64_t stamp = now();
    if (tracing_) trace_.push_back({static_cast<std::uint32_t>(op_index), stamp - last_stamp_});
    if (probe_) probe_op(op_index);
    last_stamp_ = now();
  }
  if (probe_) w.pool.barrier();
}

void CpuExecutable::probe_op(std::size_t op) {
  for (const BufferId id : writes(program_.ops[op])) probe_buffer(op, id);
}

void CpuExecutable::probe_buffer(std::size_t op, BufferId id) {
  const BufferSpec& spec = program_.buffers[id];
  const std::size_t n = spec.rows == RowSet::all ? block_.tokens.size() : block_.outputs.size();
  for (std::uint32_t row = 0; row < n; ++row) {
    const float* values = floats(id) + std::uint64_t{row} * spec.width;
    if (space_.buffer_is_act[id]) {
      kernels_.dequantize_act(act_buffer(id), row, probe_row_.data());
      values = probe_row_.data();
    }
    probe_(op, id, row, {values, spec.width});
  }
}

void CpuExecutable::reset_slot(std::uint32_t slot) {
  if (slot >= limits_.slots) return;
  taken_.reset_slot(slot);
  push(
      [](ThreadPool&, const Queue::Job& job) {
        static_cast<CpuExecutable*>(job.owner)->last_sample()[job.values[0]] = -1;
      },
      static_cast<std::int32_t>(slot));
}

void CpuExecutable::copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                               std::span<const std::int32_t> to) {
  for (std::size_t i = 0; i < from.size(); ++i)
    push(
        [](ThreadPool&, const Queue::Job& job) {
          static_cast<CpuExecutable*>(job.owner)->copy_page(job.values[0], job.values[1], job.values[2]);
        },
        static_cast<std::int32_t>(group), from[i], to[i]);
}

void CpuExecutable::copy_page(int group, std::int32_t from, std::int32_t to) {
  for (std::size_t s = 0; s < program_.states.size(); ++s) {
    if (program_.states[s].group != group) continue;
    std::byte* pages = bindings_.states[s];
    std::memcpy(pages + to * page_bytes_[s], pages + from * page_bytes_[s], page_bytes_[s]);
  }
}

void CpuExecutable::set_tracing(bool on) { tracing_ = on; }
void CpuExecutable::set_probe(Probe probe) { probe_ = std::move(probe); }

}  // namespace steelyard::cpu
