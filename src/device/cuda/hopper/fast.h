// The seam between the executable (host side, general kernels) and the fast kernels (fast_*).
//
// Everything is host code without CUDA headers: kernels live in .cu files that nvcc turns into fatbins
// (extern "C"
// __global__ functions, names unique over all of them, prefix "fast_"), and are started by name through
// Launcher. `fast_*.cu` are compiled for every architecture of STEELYARD_CUDA_ARCHS, `fast_*_sm90a.cu` for
// 90a only.
//
// Activations between ops are float32, row-major, [rows][width] at fixed addresses, whatever the mode. An op
// that wants them quantised or in bf16 converts into scratch first (or in the producer's epilogue, when it
// has both).
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "device/cuda/common/device_step.h"
#include "device/cuda/hopper/weights/layout.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard::cuda {

using DevicePtr = std::uint64_t;

struct GpuInfo {
  std::string name;
  std::uint32_t major = 0, minor = 0;  // compute capability
  std::uint32_t sms = 0;
  std::uint32_t shared_per_block = 0;  // opt-in limit, bytes
  std::uint64_t l2_bytes = 0;
};

struct KernelLaunch {
  const char* kernel;
  std::uint32_t grid[3] = {1, 1, 1};
  std::uint32_t block[3] = {1, 1, 1};
  std::uint32_t cluster = 1;       // blocks of a cluster along x
  std::uint32_t shared_bytes = 0;  // dynamic; the opt-in above 48 KiB is the launcher's business
  bool cooperative = false;        // all blocks resident
  bool dependent = false;  // programmatic dependent launch: may start before its predecessor ended, so it
                           // executes griddepcontrol.wait before touching anything the predecessor writes
};

// Starts kernels in stream order: on a stream, or into a graph that is being captured. Throws Error.
class Launcher {
 public:
  virtual ~Launcher() = default;
  // args[i] points to the i-th parameter, as in cuLaunchKernelEx.
  virtual void launch(const KernelLaunch& launch, void** args) = 0;

  template <typename... Args>
  void operator()(const KernelLaunch& l, Args... args) {
    void* pointers[] = {static_cast<void*>(&args)..., nullptr};
    launch(l, pointers);
  }
};

// What the fast side may prepare at compile time.
class CompileServices {
 public:
  virtual ~CompileServices() = default;
  virtual bool has_kernel(const char* kernel) = 0;  // false: not compiled for this GPU
  virtual std::uint32_t blocks_per_sm(const char* kernel, std::uint32_t threads,
                                      std::uint32_t shared_bytes) = 0;
  // Copies to the device and returns when it is there; compile time only.
  virtual void upload(DevicePtr to, const void* from, std::uint64_t bytes) = 0;
  virtual void zero(DevicePtr to, std::uint64_t bytes) = 0;
};

struct FastInput {
  const Program* program;
  GpuInfo gpu;
  StepLimits limits;
  Mode mode;
  std::vector<DevicePtr>
      weights;  // by WeightId: F32 for vectors; repacked where fast_has_layout, else file bytes
  std::vector<DevicePtr> buffers;  // by BufferId: float [rows or outputs of limits][width]
  std::vector<KvView> states;      // by StateId
  StepView step;
  std::vector<DevicePtr>
      ropes;  // by rope: float [rows][n_rot / 2][cos, sin], filled before the step's first op
  DevicePtr head_input =
      0;                  // float [outputs][n_embd]: the head op leaves its normed input here (Want::hidden)
  DevicePtr scratch = 0;  // fast_scratch_bytes() (hopper/weights/layout.h), zeroed at compile
  std::uint64_t scratch_bytes = 0;
};

// Everything the fast kernels need of one compiled program. Host only, no thread of its own.
class FastPlan {
 public:
  virtual ~FastPlan() = default;
  // Starts the whole step between its EmbedOp (already started) and its SampleOp (started afterwards) for at
  // most `rows` rows and `outputs` outputs (a bucket; the true counts are in the step header). False, having
  // started nothing: not covered.
  virtual bool enqueue_step(std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) = 0;
  // Starts op `op` of the program. False, having started nothing: the general kernel takes it.
  virtual bool enqueue_op(std::size_t op, std::uint32_t rows, std::uint32_t outputs, Launcher& launcher) = 0;
  // One line for the load report: which ops take the general path, and why.
  virtual std::string report() const = 0;
};

// Never called in exact mode. nullptr: no fast kernels for this GPU at all.
std::unique_ptr<FastPlan> make_fast_plan(const FastInput& input, CompileServices& services);

// Starts the repacking of rows [row_begin, row_end) of a matrix with fast_has_layout. `raw` holds the file's
// bytes of these rows only (16-byte aligned, readable up to the next multiple of 16 bytes); `matrix` is the
// start of the whole repacked matrix. row_begin is a multiple of kRepackRows; row_end too, or == rows.
void enqueue_repack(Launcher& launcher, DType type, std::uint32_t rows, std::uint32_t cols,
                    std::uint32_t row_begin, std::uint32_t row_end, DevicePtr raw, DevicePtr matrix);

}  // namespace steelyard::cuda
