// Interprets a program on the CPU: one parallel region a step, a barrier between ops, all memory carved at
// compile. Steps run on the device's queue; what isn't marked as the caller's belongs to the queue's thread
// while a step is in flight.
#pragma once

#include <atomic>
#include <exception>
#include <memory>
#include <vector>

#include "base/thread_pool.h"
#include "device/cpu/kernels.h"
#include "device/cpu/queue.h"
#include "device/cpu/workspace.h"
#include "device/device.h"
#include "program/program.h"

namespace steelyard::cpu {

class CpuExecutable final : public Executable {
 public:
  // `queue` and the memory behind `bindings` outlive this.
  CpuExecutable(const Program& program, const Bindings& bindings, const StepLimits& limits, Mode mode,
                Isa isa, Queue& queue);
  ~CpuExecutable() override { queue_.wait(last_); }

  void launch(const StepBlock& block) override;
  const StepResult& wait() override;
  std::uint32_t depth() const override { return limits_.in_flight; }
  void reset_slot(std::uint32_t slot) override;
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override;
  void set_tracing(bool on) override;
  std::span<const OpTime> trace() const override { return trace_; }
  void set_probe(Probe probe) override;

 private:
  struct Worker;  // one thread's view of the running step

  struct Flight {  // a step from launch() to wait()
    StepBlock block;
    StepResult result;
    std::exception_ptr error;
    Queue::Ticket ticket = 0;
    std::uint64_t samples_needed = 0;  // TakenSteps::samples_needed
  };

  void push(void (*run)(ThreadPool&, const Queue::Job&), std::int32_t a, std::int32_t b = 0,
            std::int32_t c = 0);
  void run_step(ThreadPool& team, Flight& flight);
  void run_ops(ThreadPool& team);
  std::int32_t token_of_row(std::uint32_t row) const;
  void start_step(const Flight& flight);
  void resolve_tokens(const Flight& flight);
  void keep_sample(std::uint32_t slot, std::int32_t token) const;
  void publish(std::uint64_t steps) const;
  // Of a row that the ranks trade. After a wait in vain the step goes on with worthless rows, and then fails.
  void tell(const LinkBox& box, std::uint32_t rank, std::uint32_t row, std::uint64_t count,
            std::uint32_t chunk = 0) const;
  void wait_for_rank(const LinkBox& box, std::uint32_t rank, std::uint32_t row, std::uint64_t count,
                     std::uint32_t chunk = 0) const;
  void finish_op(Worker& w, std::size_t op_index);
  void copy_page(int group, std::int32_t from, std::int32_t to);
  void probe_op(std::size_t op);
  void probe_buffer(std::size_t op, BufferId id);

  float* floats(BufferId id) const { return reinterpret_cast<float*>(base_ + space_.buffers[id]); }
  ActView act_buffer(BufferId id) const {
    return {space_.buffer_formats[id], program_.buffers[id].width, base_ + space_.buffers[id]};
  }
  PackedMatrix matrix(WeightId id) const {
    const WeightSpec& w = program_.weights[id];
    return {w.type, w.rows, w.cols, bindings_.weights[id]};
  }
  const float* vector(WeightId id) const {
    return id == kNoWeight ? nullptr : reinterpret_cast<const float*>(bindings_.weights[id]);
  }
  KvLayout kv_layout(const StateSpec& s) const { return {s.type, s.n_kv_heads, s.head_dim_k, s.head_dim_v}; }
  KvPages kv_pages(StateId id, std::uint32_t sequence) const;
  std::int32_t* history(std::uint32_t slot) const;
  std::int32_t* last_sample() const { return reinterpret_cast<std::int32_t*>(base_ + space_.last_sample); }
  std::int32_t* sampled(const Flight& flight) const {
    return reinterpret_cast<std::int32_t*>(base_ + space_.sampled) +
           (&flight - flights_.data()) * limits_.outputs;
  }

  const Program program_;
  const Bindings bindings_;
  const StepLimits limits_;
  const Mode mode_;
  const Kernels& kernels_;
  Queue& queue_;
  const Workspace space_;
  std::byte* const base_;
  const bool reads_tokens_, samples_;
  const LinkBox *const from_, *const to_;  // box_of()
  const Queue::Begin begin_;               // a part works beside the others
  BufferId logits_ = kNoBuffer;
  std::vector<std::uint64_t> page_bytes_;                    // by StateId
  std::unique_ptr<std::atomic<std::uint32_t>[]> next_task_;  // by op: tasks handed out
  TakenSteps taken_;                                         // the caller's
  std::vector<Flight> flights_;
  std::uint64_t launched_ = 0, waited_ = 0;  // the caller's
  Queue::Ticket last_ = 0;                   // the caller's: of all that was pushed
  StepBlock block_;                          // of the running step
  std::int32_t* sampled_ = nullptr;
  bool want_hidden_ = false;
  mutable std::atomic<bool> abandoned_{false};  // another rank failed
  bool tracing_ = false;
  std::int64_t last_stamp_ = 0;
  std::vector<OpTime> trace_;
  Probe probe_;
  std::vector<float> probe_row_;
};

}  // namespace steelyard::cpu
