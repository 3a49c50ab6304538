#include "device/cuda_plugin.h"

#include <dlfcn.h>

#include <cstdlib>
#include <filesystem>

#include "base/error.h"
#include "device/cuda/host/abi.h"
#include "device/cuda/host/wire.h"
#include "device/cuda_target.h"

namespace steelyard {
namespace {

using namespace cuda;

std::string plugin_path() {
  if (const char* path = std::getenv("STEELYARD_CUDA_PLUGIN"); path && *path) return path;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  return (self.parent_path() / "libsteelyard_cuda.so").string();
}

struct Plugin {
  const abi::Api* api = nullptr;
  std::string why;
};

Plugin open_plugin() {
  const std::string path = plugin_path();
  std::error_code error;
  if (!std::filesystem::exists(path, error))
    return {nullptr, "no CUDA: this build has no libsteelyard_cuda.so"};
  void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!library) return {nullptr, fmt::format("no CUDA: {}", dlerror())};
  const auto entry = reinterpret_cast<abi::EntryPoint>(dlsym(library, abi::kEntryPoint));
  const abi::Api* api = entry ? entry(abi::kAbiVersion) : nullptr;
  if (!api || api->api_bytes != sizeof(abi::Api) || api->program_bytes != sizeof(abi::ProgramView) ||
      api->block_bytes != sizeof(abi::BlockView) || api->output_bytes != sizeof(StepOutput))
    return {nullptr, fmt::format("no CUDA: {} was built for another version of Steelyard", path)};
  return {api, {}};
}

const Plugin& plugin() {
  static const Plugin loaded = open_plugin();  // stays loaded; immutable
  return loaded;
}

// Turns a status into an Error.
class Checked {
 public:
  abi::Message* message() { return &message_; }
  void operator()(abi::Status status) const {
    if (status != 0) throw Error(static_cast<ErrorKind>(status - 1), message_.text);
  }

 private:
  abi::Message message_{};
};

template <typename... Parameters, typename... Args>
void call(abi::Status (*function)(Parameters...), Args... args) {
  Checked check;
  check(function(args..., check.message()));
}

template <typename T>
abi::List<T> list_of(std::span<const T> span) {
  return {span.data(), span.size()};
}
template <typename T>
std::span<const T> span_of(const abi::List<T>& list) {
  return {list.data, list.size};
}

struct OpenDevice {  // shared by the device, its arenas and its executables
  const abi::Api& api;
  abi::Device* handle = nullptr;
  explicit OpenDevice(const abi::Api& a) : api(a) {}
  OpenDevice(const OpenDevice&) = delete;
  OpenDevice& operator=(const OpenDevice&) = delete;
  ~OpenDevice() {
    if (handle) api.device_close(handle);
  }
};

class CudaArena final : public Arena {
 public:
  CudaArena(std::shared_ptr<OpenDevice> device, std::string_view purpose, std::uint64_t bytes)
      : device_(std::move(device)), bytes_(bytes) {
    call(device_->api.arena_make, device_->handle, std::string(purpose).c_str(), bytes, &handle_, &address_);
  }
  ~CudaArena() override { device_->api.arena_free(handle_); }
  std::byte* data() override { return reinterpret_cast<std::byte*>(address_); }
  std::uint64_t bytes() const override { return bytes_; }
  std::uint64_t held_bytes() const override {
    abi::ArenaStats stats{};
    call(device_->api.arena_stats, handle_, &stats);
    return stats.mapped;
  }
  abi::Arena* handle() { return handle_; }

 private:
  std::shared_ptr<OpenDevice> device_;
  std::uint64_t bytes_, address_ = 0;
  abi::Arena* handle_ = nullptr;
};

class PluginExecutable final : public Executable {
 public:
  PluginExecutable(std::shared_ptr<OpenDevice> device, const Program& program, const Bindings& bindings,
                   const StepLimits& limits, Mode mode)
      : device_(std::move(device)), program_(program) {
    const WireProgram wire(program_);
    std::vector<std::uint64_t> weights, states;
    for (const auto* w : bindings.weights) weights.push_back(reinterpret_cast<std::uint64_t>(w));
    for (auto* s : bindings.states) states.push_back(reinterpret_cast<std::uint64_t>(s));
    const abi::BindingsView view{{weights.data(), weights.size()},
                                 {states.data(), states.size()},
                                 {bindings.pages.data(), bindings.pages.size()},
                                 reinterpret_cast<std::uint64_t>(bindings.workspace),
                                 bindings.workspace_bytes};
    abi::Message report{};
    call(device_->api.compile, device_->handle, &wire.view(), &view, &limits, mode, &handle_, &report);
    report_ = report.text;
  }
  ~PluginExecutable() override { device_->api.executable_free(handle_); }

  void launch(const StepBlock& b) override {
    const abi::BlockView view{list_of(b.tokens),    list_of(b.positions), list_of(b.row_sequence),
                              list_of(b.sequences), list_of(b.outputs),   list_of(b.block_tables),
                              b.pages_per_sequence};
    call(device_->api.launch, handle_, &view);
  }
  bool asynchronous() const override { return true; }
  std::string report() const override { return report_; }
  std::uint64_t staging_bytes() const override {
    std::uint64_t bytes = 0;
    call(device_->api.staging_bytes, handle_, &bytes);
    return bytes;
  }
  const StepResult& wait() override {
    abi::ResultView view{};
    call(device_->api.wait, handle_, &view);
    result_ = {span_of(view.tokens), span_of(view.logits), span_of(view.hidden), view.nanoseconds};
    return result_;
  }
  void reset_slot(std::uint32_t slot) override { call(device_->api.reset_slot, handle_, slot); }
  void copy_pages(std::uint32_t group, std::span<const std::int32_t> from,
                  std::span<const std::int32_t> to) override {
    call(device_->api.copy_pages, handle_, group, from.data(), to.data(), std::uint64_t{from.size()});
  }
  void set_tracing(bool on) override { call(device_->api.set_tracing, handle_, std::int32_t{on}); }
  std::span<const OpTime> trace() const override {
    abi::List<abi::OpNanoseconds> list{};
    call(device_->api.trace, handle_, &list);
    trace_.clear();
    for (const auto& t : span_of(list)) trace_.push_back({t.op, t.nanoseconds});
    return trace_;
  }
  void set_probe(Probe probe) override {
    probe_ = std::move(probe);
    const abi::ProbeCall function = [](void* context, std::uint32_t op, std::int32_t buffer,
                                       std::uint32_t row, const float* values, std::uint64_t n) {
      const auto* self = static_cast<PluginExecutable*>(context);
      self->probe_(self->program_.ops[op], static_cast<BufferId>(buffer), row, {values, n});
    };
    call(device_->api.set_probe, handle_, probe_ ? function : nullptr, static_cast<void*>(this));
  }

 private:
  std::shared_ptr<OpenDevice> device_;
  const Program program_;
  abi::Executable* handle_ = nullptr;
  std::string report_;
  StepResult result_;
  mutable std::vector<OpTime> trace_;
  Probe probe_;
};

class CudaDevice final : public Device {
 public:
  CudaDevice(const abi::Api& api, std::uint32_t index) : device_(std::make_shared<OpenDevice>(api)) {
    abi::DeviceDescription d{};
    call(api.device_open, index, &device_->handle, &d);
    info_ = {.id = d.id,
             .name = d.name,
             .threads = 0,
             .kernels = d.kernels,
             .memory_bytes = d.memory_bytes,
             .context_bytes = d.context_bytes};
  }
  const DeviceInfo& info() const override { return info_; }
  const Target& target() const override { return cuda_target(); }
  DeviceMemory memory() const override {
    DeviceMemory memory;
    call(device_->api.device_memory, device_->handle, &memory.total, &memory.free);
    return memory;
  }
  DriverMemory driver_memory() const override {
    DriverMemory memory;
    call(device_->api.device_driver_memory, device_->handle, &memory);
    return memory;
  }
  bool lost() const override {
    std::int32_t lost = 0;
    abi::Message message{};
    return device_->api.device_lost(device_->handle, &lost, &message) != 0 || lost != 0;
  }
  DeviceRates measure_rates() override {
    abi::Rates r{};
    call(device_->api.device_measure, device_->handle, &r);
    DeviceRates rates{.read_bytes_per_second = r.read_bytes_per_second,
                      .to_device_bytes_per_second = r.to_device_bytes_per_second,
                      .from_device_bytes_per_second = r.from_device_bytes_per_second,
                      .launch_seconds = r.launch_seconds};
    // Whatever a weight's type is, its products run on the tensor cores in f16 or bf16, at one rate.
    for (const DType type : {DType::F32, DType::F16, DType::BF16, DType::Q4_0, DType::Q4_1, DType::Q5_0,
                             DType::Q5_1, DType::Q8_0, DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q5_K,
                             DType::Q6_K, DType::IQ4_NL, DType::IQ4_XS, DType::MXFP4})
      rates.multiply_per_second.emplace_back(type, r.multiply_per_second);
    return rates;
  }
  std::unique_ptr<Arena> make_arena(std::string_view purpose, std::uint64_t bytes) override {
    return std::make_unique<CudaArena>(device_, purpose, bytes);
  }
  void load_weights(std::span<const WeightLoad> weights, Mode mode, Arena& arena,
                    const LoadProgress& progress) override {
    std::vector<abi::Load> loads;
    for (const auto& w : weights) loads.push_back({to_wire(*w.spec), w.raw.data(), w.raw.size(), w.offset});
    const abi::ProgressCall function = [](void* context, std::uint64_t done, std::uint64_t total) {
      (*static_cast<const LoadProgress*>(context))(done, total);
    };
    call(device_->api.load_weights, device_->handle, static_cast<const abi::Load*>(loads.data()),
         std::uint64_t{loads.size()}, mode, dynamic_cast<CudaArena&>(arena).handle(),
         progress ? function : nullptr, const_cast<void*>(static_cast<const void*>(&progress)));
  }
  std::unique_ptr<Executable> compile(const Program& program, const Bindings& bindings,
                                      const StepLimits& limits, Mode mode) override {
    return std::make_unique<PluginExecutable>(device_, program, bindings, limits, mode);
  }

 private:
  std::shared_ptr<OpenDevice> device_;
  DeviceInfo info_;
};

}  // namespace

CudaDevices find_cuda_devices() {
  if (!plugin().api) return {0, plugin().why};
  abi::Message message{};
  CudaDevices found;
  if (plugin().api->device_count(&found.count, &message) != 0)
    return {0, fmt::format("no CUDA: {}", message.text)};
  if (found.count == 0) found.why = "no CUDA: the driver lists no GPU";
  return found;
}

std::unique_ptr<Device> make_cuda_device(std::uint32_t index) {
  const CudaDevices found = find_cuda_devices();
  if (found.count == 0) throw_error(ErrorKind::not_found, "CUDA{} can't be used: {}", index, found.why);
  if (index >= found.count)
    throw_error(ErrorKind::not_found, "there is no CUDA{}: the driver lists {} GPU{}", index, found.count,
                found.count == 1 ? "" : "s");
  return std::make_unique<CudaDevice>(*plugin().api, index);
}

}  // namespace steelyard
