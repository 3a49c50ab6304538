#include "device/telemetry.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <type_traits>
#include <utility>

#include "device/cuda/host/nvml.h"

namespace steelyard {
namespace {

using cuda::NvmlDevice;

// Bits of what holds clocks down (nvml.h).
constexpr unsigned long long kSetClocks = 0x2 | 0x100, kPowerCap = 0x4 | 0x80, kThermal = 0x20 | 0x40;
constexpr int kSmClock = 1, kMemoryClock = 2, kSent = 0, kReceived = 1, kPeerRead = 0;
constexpr unsigned kMostNvlinks = 18;

// The library's functions; any may be missing.
struct Functions {
  explicit Functions(void* library) {
    const auto find = [&](auto& function, const char* name) {
      function = reinterpret_cast<std::remove_reference_t<decltype(function)>>(dlsym(library, name));
    };
    find(init, "nvmlInit_v2");
    find(shutdown, "nvmlShutdown");
    find(driver, "nvmlSystemGetDriverVersion");
    find(count, "nvmlDeviceGetCount_v2");
    find(device, "nvmlDeviceGetHandleByIndex_v2");
    find(name, "nvmlDeviceGetName");
    find(pci, "nvmlDeviceGetPciInfo_v3");
    find(memory, "nvmlDeviceGetMemoryInfo");
    find(use, "nvmlDeviceGetUtilizationRates");
    find(temperature, "nvmlDeviceGetTemperature");
    find(power, "nvmlDeviceGetPowerUsage");
    find(power_limit, "nvmlDeviceGetEnforcedPowerLimit");
    find(power_default, "nvmlDeviceGetPowerManagementDefaultLimit");
    find(clock, "nvmlDeviceGetClockInfo");
    find(clock_most, "nvmlDeviceGetMaxClockInfo");
    find(reasons, "nvmlDeviceGetCurrentClocksThrottleReasons");
    find(generation, "nvmlDeviceGetCurrPcieLinkGeneration");
    find(generation_most, "nvmlDeviceGetMaxPcieLinkGeneration");
    find(width, "nvmlDeviceGetCurrPcieLinkWidth");
    find(width_most, "nvmlDeviceGetMaxPcieLinkWidth");
    find(traffic, "nvmlDeviceGetPcieThroughput");
    find(nvlink, "nvmlDeviceGetNvLinkState");
    find(peer, "nvmlDeviceGetP2PStatus");
    find(compute, "nvmlDeviceGetComputeRunningProcesses_v3");
    find(graphics, "nvmlDeviceGetGraphicsRunningProcesses_v3");
  }
  using Number = int (*)(NvmlDevice*, unsigned*);
  using OfKind = int (*)(NvmlDevice*, int kind, unsigned*);
  using List = int (*)(NvmlDevice*, unsigned* n, cuda::NvmlProcess*);
  int (*init)();
  int (*shutdown)();
  int (*driver)(char*, unsigned);
  int (*count)(unsigned*);
  int (*device)(unsigned, NvmlDevice**);
  int (*name)(NvmlDevice*, char*, unsigned);
  int (*pci)(NvmlDevice*, cuda::NvmlPci*);
  int (*memory)(NvmlDevice*, cuda::NvmlMemory*);
  int (*use)(NvmlDevice*, cuda::NvmlUse*);
  Number power, power_limit, power_default, generation, generation_most, width, width_most;
  OfKind temperature, clock, clock_most, traffic;
  int (*reasons)(NvmlDevice*, unsigned long long*);
  int (*nvlink)(NvmlDevice*, unsigned link, unsigned* active);
  int (*peer)(NvmlDevice*, NvmlDevice*, int what, int* status);
  List compute, graphics;
};

unsigned ask(Functions::Number function, NvmlDevice* device) {
  unsigned value = 0;
  return function && function(device, &value) == 0 ? value : 0;
}

unsigned ask(Functions::OfKind function, NvmlDevice* device, int kind) {
  unsigned value = 0;
  return function && function(device, kind, &value) == 0 ? value : 0;
}

void add_processes(Functions::List function, NvmlDevice* device, std::vector<GpuProcess>& all) {
  if (!function) return;
  std::vector<cuda::NvmlProcess> list(64);
  auto n = static_cast<unsigned>(list.size());
  int result = function(device, &n, list.data());
  if (result == cuda::kNvmlInsufficientSize) {
    list.resize(n + 64);
    n = static_cast<unsigned>(list.size());
    result = function(device, &n, list.data());
  }
  if (result != 0) return;
  for (unsigned i = 0; i < std::min<std::size_t>(n, list.size()); ++i) {
    const bool told = list[i].used != ~0ull;
    if (std::ranges::find(all, list[i].pid, &GpuProcess::pid) == all.end())
      all.push_back({list[i].pid, told ? list[i].used : 0});
  }
}

class Nvml final : public GpuMonitor {
 public:
  explicit Nvml(void* library) : library_(library), f_(library) {
    const bool all = f_.init && f_.shutdown && f_.count && f_.device;
    if (!all || f_.init() != 0) return;
    started_ = true;
    unsigned n = 0;
    if (f_.count(&n) != 0) return;
    for (unsigned i = 0; i < n; ++i) {
      NvmlDevice* device = nullptr;
      if (f_.device(i, &device) == 0) devices_.push_back(device);
    }
    char text[96] = {};
    if (f_.driver && f_.driver(text, sizeof text) == 0) driver_ = text;
  }
  ~Nvml() override {
    if (started_) f_.shutdown();
    dlclose(library_);
  }
  bool finds_any() const { return !devices_.empty(); }
  const std::string& driver() const override { return driver_; }

  std::vector<GpuTelemetry> read(bool traffic) const override {
    std::vector<GpuTelemetry> all;
    for (std::size_t i = 0; i < devices_.size(); ++i) {
      GpuTelemetry& t = all.emplace_back();
      t.index = static_cast<std::uint32_t>(i);
      name(devices_[i], t);
      memory(devices_[i], t);
      condition(devices_[i], t);
      links(devices_[i], t, traffic);
    }
    return all;
  }

  bool peers(std::uint32_t from, std::uint32_t to) const override {
    int status = 1;
    return f_.peer && from < devices_.size() && to < devices_.size() &&
           f_.peer(devices_[from], devices_[to], kPeerRead, &status) == 0 && status == 0;
  }

 private:
  void name(NvmlDevice* device, GpuTelemetry& t) const {
    char text[128] = {};
    if (f_.name && f_.name(device, text, sizeof text) == 0) t.name = text;
    cuda::NvmlPci pci{};
    if (f_.pci && f_.pci(device, &pci) == 0)
      t.pci = fmt::format("{:04x}:{:02x}:{:02x}.0", pci.domain, pci.bus, pci.device);
  }
  void memory(NvmlDevice* device, GpuTelemetry& t) const {
    cuda::NvmlMemory m{};
    if (f_.memory && f_.memory(device, &m) == 0) t.memory = m.total, t.memory_used = m.used;
    add_processes(f_.compute, device, t.processes);
    add_processes(f_.graphics, device, t.processes);
  }
  void condition(NvmlDevice* device, GpuTelemetry& t) const {
    cuda::NvmlUse use{};
    if (f_.use && f_.use(device, &use) == 0) t.busy_percent = use.gpu, t.memory_busy_percent = use.memory;
    t.celsius = ask(f_.temperature, device, 0);
    t.watts = ask(f_.power, device) / 1e3;
    t.watts_limit = ask(f_.power_limit, device) / 1e3;
    t.watts_default = ask(f_.power_default, device) / 1e3;
    t.clock_mhz = ask(f_.clock, device, kSmClock);
    t.clock_most_mhz = ask(f_.clock_most, device, kSmClock);
    t.memory_clock_mhz = ask(f_.clock, device, kMemoryClock);
    t.memory_clock_most_mhz = ask(f_.clock_most, device, kMemoryClock);
    unsigned long long reasons = 0;
    if (f_.reasons && f_.reasons(device, &reasons) == 0) {
      t.power_capped = reasons & kPowerCap;
      t.too_hot = reasons & kThermal;
      t.clocks_set = reasons & kSetClocks;
    }
  }
  void links(NvmlDevice* device, GpuTelemetry& t, bool traffic) const {
    t.link_generation = ask(f_.generation, device);
    t.link_generation_most = ask(f_.generation_most, device);
    t.link_width = ask(f_.width, device);
    t.link_width_most = ask(f_.width_most, device);
    for (unsigned link = 0; f_.nvlink && link < kMostNvlinks; ++link) {
      unsigned active = 0;
      if (f_.nvlink(device, link, &active) != 0) break;
      t.nvlinks += active == 1;
    }
    if (!traffic) return;
    t.received_bytes_per_second = 1e3 * ask(f_.traffic, device, kReceived);
    t.sent_bytes_per_second = 1e3 * ask(f_.traffic, device, kSent);
  }

  void* library_;
  Functions f_;
  bool started_ = false;
  std::vector<NvmlDevice*> devices_;
  std::string driver_;
};

}  // namespace

std::unique_ptr<GpuMonitor> GpuMonitor::open() {
  void* library = cuda::open_nvml();
  if (!library) return nullptr;
  auto monitor = std::make_unique<Nvml>(library);
  if (!monitor->finds_any()) return nullptr;
  return monitor;
}

}  // namespace steelyard
