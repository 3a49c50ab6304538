// Steps prepared at compile: for each bucket of rows and outputs a CUDA graph, but for large ones, which hide
// their launches.
#pragma once

#include <functional>
#include <vector>

#include "device/cuda/host/gpu.h"
#include "device/cuda/host/workspace.h"

namespace steelyard::cuda {

class StepGraphs {
 public:
  // Starts a step's kernels for at most so many rows and outputs.
  using Enqueue = std::function<void(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher)>;

  // Looks up every kernel and captures the graphs, on a stream of its own. Throws Error.
  StepGraphs(Gpu& gpu, const StepLimits& limits, const Enqueue& enqueue);
  ~StepGraphs();
  StepGraphs(const StepGraphs&) = delete;
  StepGraphs& operator=(const StepGraphs&) = delete;

  struct Bucket {
    std::uint32_t rows, outputs;
    CuGraphExec graph = nullptr;  // nullptr: plain launches
  };
  // The smallest that holds the step.
  const Bucket& bucket_for(std::uint32_t rows, std::uint32_t outputs) const;

 private:
  void capture(Bucket& bucket, CuStream stream, const Enqueue& enqueue);
  void destroy();

  Gpu& gpu_;
  std::vector<Bucket> buckets_;
};

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

}  // namespace steelyard::cuda
