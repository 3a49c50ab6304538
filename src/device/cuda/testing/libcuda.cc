// The fake driver as a library in libcuda.so.1's place (STEELYARD_CUDA_DRIVER), for end-to-end tests on
// machines without a GPU: everything works but kernels, which compute nothing, so that every sample is token
// 0; it loads fake_kernels.bin. It answers for NVML too.
//
//   STEELYARD_FAKE_MEMORY   bytes of a GPU's memory
//   STEELYARD_FAKE_DEVICES  how many GPUs there are
//   STEELYARD_FAKE_FAIL     "CALL N RESULT": from the N-th call of that function of Driver on, it returns
//   RESULT
//   STEELYARD_FAKE_SLOW     "CALL MS": every call of that function takes so many milliseconds
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <functional>
#include <memory>
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
  if (runs && *n < 1) return kNvmlInsufficientSize;
  if (runs) *list = {static_cast<unsigned>(getpid()), fake->taken(index), 0, 0};
  return *n = runs, 0;
}
