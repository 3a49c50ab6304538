// The fake driver as a library in libcuda.so.1's place (STEELYARD_CUDA_DRIVER), for end-to-end tests on
// machines without a GPU: everything works but kernels, which compute nothing, so that every sample is token
// 0; it loads fake_kernels.bin. It answers for NVML too.
//
//   STEELYARD_FAKE_MEMORY   bytes of a GPU's memory
//   STEELYARD_FAKE_DEVICES  how many GPUs there are
//   STEELYARD_FAKE_FAIL     "CALL N RESULT": from the N-th call of that function of Driver on, it returns
//   RESULT
//   STEELYARD_FAKE_SLOW     "CALL MS": every call of that function takes so many milliseconds
//   STEELYARD_FAKE_NVML     "NAME=NUMBER …": what NVML tells of every GPU: throttle (bits), temperature,
//   power and limit (W), clock and clock_most (MHz), width and width_most (lanes), foreign (bytes of process
//   `pid`)
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <string_view>

#include "device/cuda/host/nvml.h"
#include "device/cuda/testing/fake_driver.h"

namespace steelyard::cuda {
namespace {

struct Failure {
  std::string call;
  long after = 0;
  CuResult result = 0;
  std::atomic<long> calls{0};
};

// What a call returns, after its time: see above.
std::function<CuResult(const std::string&)> calls_as_asked() {
  std::shared_ptr<Failure> failure;
  if (const char* text = std::getenv("STEELYARD_FAKE_FAIL")) {
    failure = std::make_shared<Failure>();
    std::istringstream(text) >> failure->call >> failure->after >> failure->result;
  }
  std::string slow;
  long ms = 0;
  if (const char* text = std::getenv("STEELYARD_FAKE_SLOW")) std::istringstream(text) >> slow >> ms;
  if (!failure && slow.empty()) return {};
  return [=](const std::string& call) {
    if (call == slow) usleep(static_cast<useconds_t>(1000 * ms));
    return failure && call == failure->call && ++failure->calls >= failure->after ? failure->result : 0;
  };
}

FakeDriver* make_fake() {
  const char* memory = std::getenv("STEELYARD_FAKE_MEMORY");
  const char* devices = std::getenv("STEELYARD_FAKE_DEVICES");
  auto* fake = new FakeDriver(memory ? std::strtoull(memory, nullptr, 10) : 8ull << 30,
                              devices ? std::atoi(devices) : 1);
  fake->context_bytes = 4 << 20;
  fake->fail = calls_as_asked();
  return fake;
}

// What STEELYARD_FAKE_NVML says of `name`.
unsigned long long told(std::string_view name, unsigned long long otherwise) {
  const char* text = std::getenv("STEELYARD_FAKE_NVML");
  std::istringstream words(text ? text : "");
  for (std::string word; words >> word;)
    if (const std::size_t equals = word.find('='); equals != word.npos && word.substr(0, equals) == name)
      return std::strtoull(word.c_str() + equals + 1, nullptr, 10);
  return otherwise;
}

FakeDriver* const fake = make_fake();  // for the life of the process, as the real one

}  // namespace
}  // namespace steelyard::cuda

using namespace steelyard::cuda;

#define EXPORT extern "C" __attribute__((visibility("default")))

// An NvmlDevice* is a device's number, one up.
EXPORT int nvmlInit_v2() { return 0; }
EXPORT int nvmlShutdown() { return 0; }
EXPORT int nvmlDeviceGetHandleByPciBusId_v2(const char* pci, NvmlDevice** device) {
  for (std::size_t i = 0; i < fake->devices.size(); ++i)
    if (fake->pci(static_cast<int>(i)) == pci) return *device = reinterpret_cast<NvmlDevice*>(i + 1), 0;
  return kNvmlNotFound;
}
EXPORT int nvmlDeviceGetCount_v2(unsigned* n) { return *n = static_cast<unsigned>(fake->devices.size()), 0; }
EXPORT int nvmlDeviceGetHandleByIndex_v2(unsigned index, NvmlDevice** device) {
  if (index >= fake->devices.size()) return kNvmlNotFound;
  return *device = reinterpret_cast<NvmlDevice*>(std::uintptr_t{index} + 1), 0;
}
EXPORT int nvmlSystemGetDriverVersion(char* text, unsigned bytes) {
  return std::snprintf(text, bytes, "580.65.06"), 0;
}
EXPORT int nvmlDeviceGetName(NvmlDevice*, char* text, unsigned bytes) {
  return std::snprintf(text, bytes, "Fake GPU"), 0;
}
EXPORT int nvmlDeviceGetPciInfo_v3(NvmlDevice* device, NvmlPci* pci) {
  const std::string address = fake->pci(static_cast<int>(reinterpret_cast<std::uintptr_t>(device)) - 1);
  *pci = {};
  return std::sscanf(address.c_str(), "%x:%x:%x", &pci->domain, &pci->bus, &pci->device) == 3 ? 0
                                                                                              : kNvmlNotFound;
}
EXPORT int nvmlDeviceGetTemperature(NvmlDevice*, int, unsigned* value) {
  return *value = static_cast<unsigned>(told("temperature", 45)), 0;
}
EXPORT int nvmlDeviceGetPowerUsage(NvmlDevice*, unsigned* milliwatts) {
  return *milliwatts = static_cast<unsigned>(1000 * told("power", 200)), 0;
}
EXPORT int nvmlDeviceGetEnforcedPowerLimit(NvmlDevice*, unsigned* milliwatts) {
  return *milliwatts = static_cast<unsigned>(1000 * told("limit", 350)), 0;
}
EXPORT int nvmlDeviceGetClockInfo(NvmlDevice*, int, unsigned* mhz) {
  return *mhz = static_cast<unsigned>(told("clock", 1800)), 0;
}
EXPORT int nvmlDeviceGetMaxClockInfo(NvmlDevice*, int, unsigned* mhz) {
  return *mhz = static_cast<unsigned>(told("clock_most", 1800)), 0;
}
EXPORT int nvmlDeviceGetCurrentClocksThrottleReasons(NvmlDevice*, unsigned long long* bits) {
  return *bits = told("throttle", 0), 0;
}
EXPORT int nvmlDeviceGetCurrPcieLinkWidth(NvmlDevice*, unsigned* lanes) {
  return *lanes = static_cast<unsigned>(told("width", 16)), 0;
}
EXPORT int nvmlDeviceGetMaxPcieLinkWidth(NvmlDevice*, unsigned* lanes) {
  return *lanes = static_cast<unsigned>(told("width_most", 16)), 0;
}
EXPORT int nvmlDeviceGetMemoryInfo(NvmlDevice* device, NvmlMemory* memory) {
  const auto index = static_cast<int>(reinterpret_cast<std::uintptr_t>(device)) - 1;
  const std::lock_guard lock(fake->mutex);
  memory->total = fake->devices.at(index).total;
  memory->used = fake->taken(index);
  memory->free = memory->total - memory->used;
  return 0;
}
EXPORT int nvmlDeviceGetComputeRunningProcesses_v3(NvmlDevice* device, unsigned* n, NvmlProcess* list) {
  const auto index = static_cast<int>(reinterpret_cast<std::uintptr_t>(device)) - 1;
  const std::lock_guard lock(fake->mutex);
  const bool runs = fake->devices.at(index).contexts > 0;
  const unsigned long long foreign = told("foreign", 0);
  const unsigned room = *n;
  *n = runs + (foreign > 0);
  if (room < *n) return kNvmlInsufficientSize;
  unsigned at = 0;
  if (runs) list[at++] = {static_cast<unsigned>(getpid()), fake->taken(index), 0, 0};
  if (foreign) list[at++] = {static_cast<unsigned>(told("pid", 1)), foreign, 0, 0};
  return 0;
}
