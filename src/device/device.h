// A device, the memory carved from it, and executables: one contract for the CPU and for NVIDIA GPUs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/dtype.h"
#include "device/driver_memory.h"
#include "device/link.h"
#include "device/step.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard {

// What a GPU's maker says of it, worked out from what its driver tells; 0: unknown.
struct NominalRates {
  double read_bytes_per_second = 0;  // memory clock x two transfers x bus width
  double multiplies_per_second = 0;  // dense f16 products summed in f32; operations (a multiply-add is two)
  double sm_cycles_per_second = 0;   // SMs x clock
  bool fast_kernels = false;         // those of its architecture are here, not the general ones alone
};

struct DeviceInfo {
  std::string id;             // "CPU", "CUDA0"
  std::string name;           // "AMD EPYC 9B45", "NVIDIA H200"
  std::uint32_t threads = 0;  // CPU: threads used
  std::string kernels;        // "avx512vnni", "sm_90a"
  std::string pci;            // of a GPU: "0000:17:00.0"
  std::uint64_t memory_bytes = 0;
  // Of its memory, what opening it took: the driver's context and libraries. 0: none, or it can't be
  // measured.
  std::uint64_t context_bytes = 0;
  NominalRates nominal = {};  // of a GPU
};

// What a device was measured to do at best; 0: not measured.
struct DeviceRates {
  double read_bytes_per_second = 0;  // of its own memory
  double read_spread = 0;            // of the repeats: (slowest - fastest) / fastest
  // Of buffers of so many bytes, read again and again: what caches hold is faster. May be empty.
  std::vector<std::pair<std::uint64_t, double>> cached_reads;
  // Operations a second (a multiply-add is two) on weights of a type, in many rows.
  std::vector<std::pair<DType, double>> multiply_per_second;
  double to_device_bytes_per_second = 0;  // from page-locked host memory
  double from_device_bytes_per_second = 0;
  double launch_seconds = 0;  // from one kernel of a graph to the next
};

struct DeviceMemory {
  std::uint64_t total = 0;
  std::uint64_t free = 0;  // live: other processes' use is already subtracted
};

// Owns one contiguous, aligned, zeroed range of a device's memory; its size never changes. Movable address:
// never.
class Arena {
 public:
  virtual ~Arena() = default;
  virtual std::byte* data() = 0;  // an address on the device
  virtual std::uint64_t bytes() const = 0;
  // What it really takes of the device: bytes(), rounded up as the device does.
  virtual std::uint64_t held_bytes() const { return bytes(); }
};

// One weight to place: `raw` is the file's bytes, `offset` its place in the arena. `placed`, if set: bytes
// [begin, end) of raw won't be read again. A device that holds weights in the host's memory calls it as it
// goes, from the loading thread, so that file and copy aren't both resident.
struct WeightLoad {
  const WeightSpec* spec;
  std::span<const std::byte> raw;
  std::uint64_t offset;
  std::function<void(std::uint64_t begin, std::uint64_t end)> placed = {};
  // Bytes of raw from row to row: more than a row's where others' columns lie between. 0: a row's.
  std::uint64_t row_stride = 0;

  std::uint64_t row_bytes() const { return steelyard::row_bytes(spec->type, spec->cols); }
  std::uint64_t stride() const { return row_stride ? row_stride : row_bytes(); }
  bool has_gaps() const { return spec->rows > 1 && stride() != row_bytes(); }
};

// Where a compiled program finds its memory; device addresses, owned by the caller and alive longer than the
// executable.
struct Bindings {
  std::vector<const std::byte*> weights;  // by WeightId, in the arena
  std::vector<std::byte*>
      states;  // by StateId: page p of the state starts at states[s] + p * state_page_bytes
  std::vector<std::uint32_t> pages;  // by group: how many pages exist
  // Of a part of a model: what joins it to the others (link.h). Empty: the program is all of it.
  std::vector<LinkBox> links;  // by LinkId
  TokenBox tokens;
  std::byte* workspace = nullptr;
  std::uint64_t workspace_bytes = 0;  // Target::workspace_bytes
};

// Time of one op of the last step; filled only when tracing is on.
struct OpTime {
  std::uint32_t op;
  std::int64_t nanoseconds;
};

// A program compiled for one device, mode and limits. Not thread-safe: one caller at a time. Allocates
// everything at compile; launch and wait allocate nothing. Calls take effect in order; launch(), reset_slot()
// and copy_pages() return before they have taken effect.
class Executable {
 public:
  // Ends the steps in flight.
  virtual ~Executable() = default;
  // How many steps may be in flight: launched, and not waited for; at least 1. Tokens pass from one to the
  // next on the device (kLastSample). Logits and hidden rows are kept of one step only: who wants them waits
  // before the next launch().
  virtual std::uint32_t depth() const = 0;
  // The block's memory must stay until its wait() returned. Throws Error, and launches nothing, if the block
  // breaks the limits or depth() steps are in flight.
  virtual void launch(const StepBlock& block) = 0;
  // Waits for the oldest step in flight and throws what went wrong with it; then it isn't in flight any
  // longer. Without one, gives the last results again.
  virtual const StepResult& wait() = 0;
  // Forgets a slot's history (repeat penalties, last sample).
  virtual void reset_slot(std::uint32_t slot) = 0;
  // Copies whole pages of every state of a group, in order.
  virtual void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                          std::span<const std::int32_t> to) = 0;
  // One line for the load report: what runs by a slower path, and why; empty when nothing does.
  virtual std::string report() const { return {}; }
  // Page-locked host memory that it holds (Target::staging_bytes).
  virtual std::uint64_t staging_bytes() const { return 0; }
  // These two are set, and the trace is read, while no step is in flight; of tensor ranks on all, or none:
  // they change how sums are traded.
  virtual void set_tracing(bool on) = 0;
  virtual std::span<const OpTime> trace() const = 0;
  // For tests and the named-activation trace: a buffer's rows as floats after each op that writes it
  // (program/uses.h), with the op's index in the program. Called before the step's wait() returns, maybe from
  // another thread.
  using Probe =
      std::function<void(std::size_t op, BufferId buffer, std::uint32_t row, std::span<const float> values)>;
  virtual void set_probe(Probe probe) = 0;
};

using LoadProgress = std::function<void(std::uint64_t done_bytes, std::uint64_t total_bytes)>;

// Outlives its arenas and executables.
class Device {
 public:
  virtual ~Device() = default;
  virtual const DeviceInfo& info() const = 0;
  virtual const Target& target() const = 0;
  virtual DeviceMemory memory() const = 0;
  // What `work` takes of the device beside arenas, as its driver counts; 0 where it is the host. One at a
  // time, so that no load counts what another takes.
  std::uint64_t taken_by(const std::function<void()>& work) {
    const std::lock_guard lock(measuring_);
    const DriverMemory before = driver_memory();
    work();
    return taken_between(before, driver_memory());
  }
  // Held while a step is given to several devices, so that all see steps in one order; by who does so, in the
  // order of the addresses.
  std::mutex& order() { return order_; }
  // True after an error that the device can't recover from: every call fails from then on, saying so.
  virtual bool lost() const { return false; }
  // Takes about a second, best while nothing else uses the device.
  virtual DeviceRates measure_rates() = 0;
  // Throws Error(no_memory) with the sizes when it can't be had.
  virtual std::unique_ptr<Arena> make_arena(std::string_view purpose, std::uint64_t bytes) = 0;
  // Host memory that every device of this machine reads and writes at data(), as fast as it can: page-locked
  // where this device isn't the host. Throws as make_arena().
  virtual std::unique_ptr<Arena> make_host_arena(std::string_view purpose, std::uint64_t bytes) = 0;
  // Repacks every weight into the arena in Mode's layout, in parallel; returns when all are in place.
  virtual void load_weights(std::span<const WeightLoad> weights, Mode mode, Arena& arena,
                            const LoadProgress& progress) = 0;
  virtual std::unique_ptr<Executable> compile(const Program& program, const Bindings& bindings,
                                              const StepLimits& limits, Mode mode) = 0;

 protected:
  virtual DriverMemory driver_memory() const { return {}; }

 private:
  std::mutex measuring_, order_;
};

struct CpuOptions {
  std::uint32_t threads = 0;       // 0: one per physical core that the process may use
  std::uint64_t memory_limit = 0;  // bytes that arenas may take together; 0: what the machine has free
};
std::unique_ptr<Device> make_cpu_device(const CpuOptions& options = {});

struct CudaDevices {
  std::uint32_t count = 0;
  std::string why;  // when count is 0: one line for the log
};
// NVIDIA GPUs need steelyard_kernels.bin beside the program (or the file that STEELYARD_CUDA_KERNELS names)
// and the driver (STEELYARD_CUDA_DRIVER names another library); both are opened at the first call. Where one
// of them or a GPU is missing there are no devices. Thread-safe, never throws.
CudaDevices find_cuda_devices();
// Device "CUDA<index>". Throws Error: not_found when there is no such device; what the driver said when it
// can't be opened.
std::unique_ptr<Device> make_cuda_device(std::uint32_t index);

}  // namespace steelyard
