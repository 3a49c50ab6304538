// NVIDIA GPUs as devices: the contract of device.h over Gpu, VirtualArena, the loader and CudaExecutable.
#include <cstdlib>
#include <filesystem>
#include <optional>

#include "base/error.h"
#include "device/cuda/host/arena.h"
#include "device/cuda/host/executable.h"
#include "device/cuda/host/kernel_file.h"
#include "device/cuda/host/loader.h"
#include "device/cuda/probe/probe.h"
#include "device/device.h"
#include "program/program.h"

namespace steelyard {
namespace cuda {
namespace {

// What every GPU of the process shares; opened once and never changed or closed.
struct Runtime {
  std::optional<KernelFile> kernels;
  Driver driver;
  std::string why;  // there is no GPU to use; empty: there is
};

KernelFile open_kernels() {
  const char* wish = std::getenv("STEELYARD_CUDA_KERNELS");
  if (wish && *wish) return KernelFile::open(wish, kernels_id());
  std::error_code error;
  // Beside the program where it was built, in ../lib/steelyard where it was installed.
  const auto folder = std::filesystem::read_symlink("/proc/self/exe", error).parent_path();
  auto path = folder / "steelyard_kernels.bin";
  if (!std::filesystem::exists(path, error))
    path = folder.parent_path() / "lib" / "steelyard" / path.filename();
  if (!std::filesystem::exists(path, error))
    throw_error(ErrorKind::not_found, "this build has no {}", path.filename().string());
  return KernelFile::open(path, kernels_id());
}

std::string open_driver(Driver& driver) {
  std::string why;
  if (!load_driver(driver, why)) return why;
  if (driver.init(0) != 0) return "the NVIDIA driver finds no usable GPU";
  int version = 0;
  if (driver.driver_version(&version) != 0 || version < 13000)
    return fmt::format(
        "the NVIDIA driver is too old: it supports CUDA {}.{}, Steelyard needs 13.0 (driver 580 or newer)",
        version / 1000, version % 1000 / 10);
  return {};
}

const Runtime& runtime() {
  static const Runtime opened = [] {
    Runtime r;
    try {
      r.kernels = open_kernels();
      r.why = open_driver(r.driver);
    } catch (const std::exception& e) {
      r.why = e.what();
    }
    return r;
  }();
  return opened;
}

class CudaArena final : public Arena {
 public:
  CudaArena(Gpu& gpu, std::string_view purpose, std::uint64_t bytes)
      : range_(gpu, std::string(purpose), bytes), bytes_(bytes) {}
  std::byte* data() override { return reinterpret_cast<std::byte*>(range_.address()); }
  std::uint64_t bytes() const override { return bytes_; }
  std::uint64_t held_bytes() const override { return range_.stats().mapped; }

 private:
  VirtualArena range_;
  std::uint64_t bytes_;
};

class CudaHostArena final : public Arena {
 public:
  CudaHostArena(Gpu& gpu, std::uint64_t bytes) : memory_(gpu, bytes) {}
  std::byte* data() override { return memory_.data(); }
  std::uint64_t bytes() const override { return memory_.bytes(); }

 private:
  PinnedMemory memory_;
};

// Dense f16 products of an SM a clock, sums in f32: 1024 to 4096 multiply-adds on the data centre's chips,
// 256 on GeForce and workstation ones. The architectures' white papers.
double sm_operations(const GpuInfo& gpu) {
  if (gpu.major == 8 && gpu.minor == 0) return 2048;
  if (gpu.major == 9) return 4096;
  if (gpu.major == 10) return 8192;
  return 512;
}

NominalRates nominal_rates(const GpuInfo& gpu) {
  const double cycles = gpu.sms * gpu.clock_hz;
  return {.read_bytes_per_second = 2 * gpu.memory_clock_hz * gpu.memory_bus_bits / 8,
          .multiplies_per_second = cycles * sm_operations(gpu),
          .sm_cycles_per_second = cycles,
          .fast_kernels = gpu.major == 9};
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(std::uint32_t index)
      : gpu_(runtime().driver, static_cast<int>(index), runtime().kernels->images()) {
    info_ = {.id = gpu_.id(),
             .name = gpu_.info().name,
             .threads = 0,
             .kernels = fmt::format("sm_{}{}", gpu_.info().major, gpu_.info().minor),
             .pci = gpu_.pci(),
             .memory_bytes = gpu_.total_memory(),
             .context_bytes = gpu_.context_bytes(),
             .nominal = nominal_rates(gpu_.info())};
  }
  const DeviceInfo& info() const override { return info_; }
  const Target& target() const override { return cuda_target(); }
  DeviceMemory memory() const override { return {gpu_.total_memory(), gpu_.free_memory()}; }
  DriverMemory driver_memory() const override { return gpu_.driver_memory(); }
  bool lost() const override { return gpu_.lost(); }
  DeviceRates measure_rates() override { return cuda::measure_rates(gpu_); }
  std::unique_ptr<Arena> make_arena(std::string_view purpose, std::uint64_t bytes) override {
    return std::make_unique<CudaArena>(gpu_, purpose, bytes);
  }
  std::unique_ptr<Arena> make_host_arena(std::string_view, std::uint64_t bytes) override {
    return std::make_unique<CudaHostArena>(gpu_, bytes);
  }
  void load_weights(std::span<const WeightLoad> weights, Mode mode, Arena& arena,
                    const LoadProgress& progress) override {
    cuda::load_weights(gpu_, weights, mode, reinterpret_cast<DevicePtr>(arena.data()), progress);
  }
  std::unique_ptr<Executable> compile(const Program& program, const Bindings& bindings,
                                      const StepLimits& limits, Mode mode) override {
    return std::make_unique<CudaExecutable>(gpu_, program, bindings, limits, mode);
  }

 private:
  mutable Gpu gpu_;  // asking it binds its context to the thread
  DeviceInfo info_;
};

}  // namespace
}  // namespace cuda

CudaDevices find_cuda_devices() {
  const cuda::Runtime& r = cuda::runtime();
  if (!r.why.empty()) return {0, fmt::format("no CUDA: {}", r.why)};
  int n = 0;
  if (r.driver.device_count(&n) != 0 || n <= 0) return {0, "no CUDA: the driver lists no GPU"};
  return {static_cast<std::uint32_t>(n), {}};
}

std::unique_ptr<Device> make_cuda_device(std::uint32_t index) {
  const CudaDevices found = find_cuda_devices();
  if (found.count == 0) throw_error(ErrorKind::not_found, "CUDA{} can't be used: {}", index, found.why);
  if (index >= found.count)
    throw_error(ErrorKind::not_found, "there is no CUDA{}: the driver lists {} GPU{}", index, found.count,
                found.count == 1 ? "" : "s");
  return std::make_unique<cuda::CudaDevice>(index);
}

}  // namespace steelyard
