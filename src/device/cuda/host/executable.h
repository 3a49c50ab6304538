// A program compiled for one GPU. Steps are enqueued on the device's queue, which all its executables share.
// Several may be in flight: launch() may be called again before wait(), which gives results in order; tokens
// pass from step to step on the device. Tracing and probes start the same kernels without graphs.
#pragma once

#include <memory>
#include <vector>

#include "device/cuda/general/general.h"
#include "device/cuda/hopper/plan.h"
#include "device/cuda/host/gpu.h"
#include "device/cuda/host/op_timer.h"
#include "device/cuda/host/part_links.h"
#include "device/cuda/host/step_graphs.h"
#include "device/cuda/host/step_image.h"
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
  std::uint32_t depth() const override { return limits_.in_flight; }
  std::uint64_t staging_bytes() const override;
  void reset_slot(std::uint32_t slot) override;
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override;
  void set_tracing(bool on) override { tracing_ = on; }
  std::span<const OpTime> trace() const override { return trace_; }
  void set_probe(Probe probe) override { probe_ = std::move(probe); }

  // One line: which ops take the general path and why.
  std::string report() const override;

 private:
  // What a step in flight needs on the host; used in turn.
  struct Flight {
    Flight(Gpu& gpu, const Program& program, const Workspace& space, const Staging& staging)
        : image(gpu, program, space, staging.block),
          sampled(gpu, staging.sampled),
          begin(gpu, true),
          done(gpu, true) {}
    StepImage image;
    PinnedMemory sampled;  // i32 [outputs]
    Event begin, done;
    std::uint32_t n_rows = 0, n_outputs = 0;
    bool logits = false, hidden = false;  // wanted by an output
    bool traced = false;
    bool pending = false;              // launched, not waited for
    std::uint64_t samples_needed = 0;  // TakenSteps::samples_needed()
  };
  class Services;

  void place(const Bindings& bindings);
  void make_flights();

  void restart_tags(std::uint64_t round);
  void note(Flight& flight, const StepBlock& block);
  void enqueue(Flight& flight, const StepBlock& block);
  bool begins_step(std::size_t op) const;
  void enqueue_ops(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher);
  void enqueue_one(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher);
  void enqueue_traced(Flight& flight, std::uint32_t rows, std::uint32_t outputs);
  void enqueue_results(const Flight& flight, const StepBlock& block);
  void probe_op(std::size_t op, const Flight& flight);
  bool samples() const { return sample_op_ < program_.ops.size(); }
  DevicePtr at(std::uint64_t offset) const { return workspace_ + offset; }

  Gpu& gpu_;
  const Program program_;
  const StepLimits limits_;
  const Mode mode_;
  const Workspace space_;
  DevicePtr workspace_ = 0;
  DeviceProgram input_;
  std::vector<std::uint32_t> pages_;  // by group
  PinnedMemory abort_;
  Event end_;  // of all work, when this goes
  std::unique_ptr<HopperPlan> hopper_;
  std::unique_ptr<GeneralPath> general_;
  std::unique_ptr<StepGraphs> graphs_;
  std::unique_ptr<PartLinks> links_;
  std::vector<std::unique_ptr<Flight>> flights_;
  std::uint64_t launched_ = 0, waited_ = 0;
  TakenSteps taken_;
  std::uint64_t round_ = 0;  // of step numbers, kStepNumbers each
  BufferId logits_ = kNoBuffer;
  std::size_t sample_op_ = 0;
  // Pageable and untouched until a step wants them.
  std::vector<float> host_hidden_;
  std::unique_ptr<float[]> host_logits_;
  StepResult result_;
  bool tracing_ = false;
  OpTimer timer_;
  std::vector<OpTime> trace_;
  Probe probe_;
};

}  // namespace steelyard::cuda
