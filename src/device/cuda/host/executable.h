// A program compiled for one GPU. Per bucket of rows the step is a CUDA graph, captured at compile; large
// buckets, tracing and probes use plain launches of the same kernels. Two steps may be in flight: launch()
// may be called again before wait(), which gives results in order; tokens pass from step to step on the
// device.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "device/cuda/general/general.h"
#include "device/cuda/host/gpu.h"
#include "device/device.h"
#include "program/program.h"

namespace steelyard::cuda {

class CudaExecutable final : public Executable {
 public:
  // Throws Error when the program can't run here or its memory can't be had. `gpu` and the memory behind
  // `bindings` outlive this.
  CudaExecutable(Gpu& gpu, const Program& program, const Bindings& bindings, const StepLimits& limits,
                 Mode mode);
  ~CudaExecutable() override;

  void launch(const StepBlock& block) override;
  const StepResult& wait() override;
  bool asynchronous() const override { return true; }
  std::uint64_t staging_bytes() const override;
  void reset_slot(std::uint32_t slot) override;
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override;
  void set_tracing(bool on) override { tracing_ = on; }
  std::span<const OpTime> trace() const override { return trace_; }
  void set_probe(Probe probe) override { probe_ = std::move(probe); }

  // One line: which ops take the general path and why; empty when all are fast.
  std::string report() const override;

 private:
  struct Bucket {
    std::uint32_t rows, outputs;
    CuGraphExec graph = nullptr;
  };
  // What a step in flight needs on the host; used in turn.
  struct Flight {
    std::unique_ptr<PinnedMemory> block;    // image of the device's step block, then the masks
    std::unique_ptr<PinnedMemory> sampled;  // i32 [outputs]
    std::unique_ptr<Event> begin, done;
    std::uint32_t n_rows = 0, n_outputs = 0;
    bool logits = false, hidden = false;
    bool traced = false;
    bool pending = false;  // launched, not waited for
  };
  class Services;

  void place(const Bindings& bindings);
  void make_flights();
  void make_buckets();
  void capture(Bucket& bucket);
  void destroy_graphs();
  const Bucket& bucket_for(std::uint32_t rows, std::uint32_t outputs) const;

  std::uint64_t fill(Flight& flight, const StepBlock& block);
  std::uint32_t fill_outputs(Flight& flight, const StepBlock& block);
  void enqueue_ops(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher);
  void enqueue_one(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher);
  void run_traced(Flight& flight, std::uint32_t rows, std::uint32_t outputs);
  void probe_op(std::size_t op, const Flight& flight);
  void fetch_logits(const Flight& flight, const StepBlock& block);
  DevicePtr at(std::uint64_t offset) const { return workspace_ + offset; }

  Gpu& gpu_;
  const Program program_;
  const StepLimits limits_;
  const Mode mode_;
  const Workspace space_;
  DevicePtr workspace_ = 0;
  FastInput input_;
  std::vector<std::uint32_t> pages_;  // by group
  std::unique_ptr<GeneralPath> general_;
  std::unique_ptr<FastPlan> fast_;
  std::unique_ptr<PinnedMemory> abort_;
  std::unique_ptr<Stream> stream_;
  std::vector<Bucket> buckets_;
  Flight flights_[kStepsInFlight];
  std::uint64_t launched_ = 0, waited_ = 0;
  TakenSteps taken_;
  BufferId logits_ = kNoBuffer;
  std::size_t sample_op_ = 0;
  // Pageable and untouched until a step wants them.
  std::vector<float> host_hidden_;
  std::unique_ptr<float[]> host_logits_;
  StepResult result_;
  bool tracing_ = false;
  std::vector<std::unique_ptr<Event>> op_events_;
  std::vector<OpTime> trace_;
  Probe probe_;
};

}  // namespace steelyard::cuda
