#include "device/cuda/testing/fake_driver.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <thread>

using namespace steelyard::cuda;

#define STEELYARD_CUDA_DECLARE(name, symbol, parameters) \
  extern "C" __attribute__((visibility("default"))) CuResult symbol parameters;
STEELYARD_CUDA_FUNCTIONS(STEELYARD_CUDA_DECLARE)
#undef STEELYARD_CUDA_DECLARE

namespace steelyard::cuda {
namespace {

FakeDriver* fake = nullptr;         // the driver's interface has no argument for it
thread_local int bound_device = 0;  // of the thread's context

template <typename T>
T* handle_of(std::uint64_t value) {
  return reinterpret_cast<T*>(value);
}

CuResult enter(const char* call) { return fake->fail ? fake->fail(call) : 0; }

CuResult copy(void* to, const void* from, std::size_t bytes, const char* call) {
  if (const CuResult r = enter(call)) return r;
  const std::lock_guard lock(fake->mutex);
  std::memcpy(to, from, bytes);
  return 0;
}

}  // namespace

FakeDriver::FakeDriver(std::uint64_t memory_bytes, int n) : devices(n, Device{.total = memory_bytes}) {
  fake = this;
#define STEELYARD_CUDA_SET(name, symbol, parameters) table_.name = symbol;
  STEELYARD_CUDA_FUNCTIONS(STEELYARD_CUDA_SET)
#undef STEELYARD_CUDA_SET
}

FakeDriver::~FakeDriver() { fake = nullptr; }

FakeDriver* FakeDriver::current() { return fake; }

std::string FakeDriver::pci(int device) const {
  char text[16];
  std::snprintf(text, sizeof text, "0000:%02x:00.0", 0x17 + device);
  return text;
}

std::uint64_t FakeDriver::taken(int device) const {
  const Device& d = devices.at(device);
  return d.used + (d.contexts > 0 ? context_bytes : 0);
}

}  // namespace steelyard::cuda

#define ENTER(name)                             \
  if (const CuResult r = enter(name)) return r; \
  const std::lock_guard lock(fake->mutex)

extern "C" {

// The driver and its devices.

CuResult cuInit(unsigned) { return 0; }
CuResult cuDriverGetVersion(int* version) { return *version = 13000, 0; }
CuResult cuGetErrorName(CuResult, const char** name) { return *name = "FAKE_ERROR", 0; }
CuResult cuDeviceGetCount(int* n) { return *n = static_cast<int>(fake->devices.size()), 0; }
CuResult cuDeviceGet(CuDevice* device, int index) { return *device = index, enter("device_get"); }
CuResult cuDeviceGetName(char* name, int n, CuDevice) { return std::strncpy(name, "Fake GPU", n), 0; }
CuResult cuDeviceGetAttribute(int* value, int id, CuDevice) {
  *value = id == kAttrSms           ? 132
           : id == kAttrMajor       ? 9
           : id == kAttrMinor       ? 0
           : id == kAttrSharedOptin ? 232448
           : id == kAttrClock       ? 1980000
           : id == kAttrMemoryClock ? 3201000
           : id == kAttrBusWidth    ? 6144
                                    : 1;
  return 0;
}
CuResult cuDeviceTotalMem_v2(std::size_t* total, CuDevice device) {
  return *total = fake->devices.at(device).total, 0;
}
CuResult cuDeviceGetPCIBusId(char* name, int n, CuDevice device) {
  return std::strncpy(name, fake->pci(device).c_str(), n), 0;
}

// A context is its device's number, one up.

CuResult cuDevicePrimaryCtxRetain(CuContext* context, CuDevice device) {
  ENTER("context_retain");
  ++fake->contexts;
  ++fake->devices.at(device).contexts;
  return *context = handle_of<CuContextObject>(device + 1), 0;
}
CuResult cuDevicePrimaryCtxRelease_v2(CuDevice device) {
  const std::lock_guard lock(fake->mutex);
  --fake->contexts;
  return --fake->devices.at(device).contexts, 0;
}
CuResult cuCtxSetCurrent(CuContext context) {
  bound_device = context ? static_cast<int>(reinterpret_cast<std::uint64_t>(context)) - 1 : 0;
  return enter("context_set");
}

// Memory.

CuResult cuMemGetInfo_v2(std::size_t* free, std::size_t* total) {
  ENTER("memory_info");
  *total = fake->devices.at(bound_device).total;
  *free = *total - fake->taken(bound_device);
  return 0;
}
CuResult cuMemAddressReserve(CuPtr* out, std::size_t bytes, std::size_t alignment, CuPtr,
                             unsigned long long) {
  ENTER("address_reserve");
  // Unreadable until mapped, so that a stray access faults; over-reserved to align.
  void* p = mmap(nullptr, bytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return kCuOutOfMemory;
  *out = (reinterpret_cast<CuPtr>(p) + alignment - 1) / alignment * alignment;
  fake->ranges[*out] = bytes;
  fake->reserved += bytes;
  return 0;
}
CuResult cuMemAddressFree(CuPtr p, std::size_t bytes) {
  ENTER("address_free");
  if (fake->ranges.erase(p) != 1) return 1;
  fake->reserved -= bytes;
  munmap(reinterpret_cast<void*>(p), bytes);
  return 0;
}
CuResult cuMemCreate(CuMemHandle* out, std::size_t bytes, const CuMemAllocationProp* prop,
                     unsigned long long) {
  ENTER("memory_create");
  const int device = prop->location.id;
  if (bytes % (2 << 20) != 0) return 1;
  if (fake->taken(device) + bytes > fake->devices.at(device).total) return kCuOutOfMemory;
  fake->used(device) += bytes;
  *out = fake->next_handle++;
  fake->allocations[*out] = {bytes, device};
  return 0;
}
CuResult cuMemRelease(CuMemHandle handle) {
  ENTER("memory_release");
  const auto it = fake->allocations.find(handle);
  if (it == fake->allocations.end()) return 1;
  fake->used(it->second.device) -= it->second.bytes;
  fake->allocations.erase(it);
  return 0;
}
CuResult cuMemMap(CuPtr p, std::size_t bytes, std::size_t, CuMemHandle handle, unsigned long long) {
  ENTER("memory_map");
  auto range = fake->ranges.upper_bound(p);
  if (range == fake->ranges.begin()) return 1;
  --range;
  if (p + bytes > range->first + range->second || fake->mappings.count(p)) return 1;
  fake->mappings[p] = {handle, bytes};
  return 0;
}
CuResult cuMemUnmap(CuPtr p, std::size_t bytes) {
  ENTER("memory_unmap");
  if (fake->mappings.erase(p) != 1) return 1;
  mmap(reinterpret_cast<void*>(p), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
       -1, 0);
  return 0;
}
CuResult cuMemSetAccess(CuPtr p, std::size_t bytes, const CuMemAccess*, std::size_t) {
  ENTER("memory_access");
  if (!fake->mappings.count(p)) return 1;
  return mprotect(reinterpret_cast<void*>(p), bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : 1;
}
CuResult cuMemHostAlloc(void** out, std::size_t bytes, unsigned) {
  ENTER("host_alloc");
  auto* p = static_cast<std::uint64_t*>(std::malloc(bytes + 64));
  *p = bytes;
  fake->pinned += bytes;
  *out = reinterpret_cast<std::byte*>(p) + 64;
  return 0;
}
CuResult cuMemFreeHost(void* p) {
  ENTER("host_free");
  auto* start = reinterpret_cast<std::uint64_t*>(static_cast<std::byte*>(p) - 64);
  fake->pinned -= *start;
  std::free(start);
  return 0;
}
CuResult cuMemHostGetDevicePointer_v2(CuPtr* out, void* p, unsigned) {
  return *out = reinterpret_cast<CuPtr>(p), 0;
}
CuResult cuMemcpyHtoDAsync_v2(CuPtr to, const void* from, std::size_t n, CuStream) {
  return copy(reinterpret_cast<void*>(to), from, n, "copy_to_device");
}
CuResult cuMemcpyDtoHAsync_v2(void* to, CuPtr from, std::size_t n, CuStream) {
  return copy(to, reinterpret_cast<void*>(from), n, "copy_to_host");
}
CuResult cuMemcpyDtoDAsync_v2(CuPtr to, CuPtr from, std::size_t n, CuStream) {
  return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), n, "copy_on_device");
}
CuResult cuMemsetD8Async(CuPtr to, unsigned char value, std::size_t n, CuStream) {
  ENTER("set8");
  std::memset(reinterpret_cast<void*>(to), value, n);
  return 0;
}
CuResult cuMemsetD32Async(CuPtr to, unsigned value, std::size_t n, CuStream) {
  ENTER("set32");
  for (std::size_t i = 0; i < n; ++i) reinterpret_cast<unsigned*>(to)[i] = value;
  return 0;
}

// Streams and events: all work is done when its call returns.

CuResult cuStreamCreate(CuStream* stream, unsigned) {
  ENTER("stream_create");
  return *stream = handle_of<CuStreamObject>(++fake->streams), 0;
}
CuResult cuStreamDestroy_v2(CuStream) {
  ENTER("stream_destroy");
  return --fake->streams, 0;
}
CuResult cuStreamSynchronize(CuStream) { return enter("stream_synchronize"); }
CuResult cuStreamQuery(CuStream) { return enter("stream_query"); }
CuResult cuStreamWaitEvent(CuStream, CuEvent, unsigned) { return 0; }
// The stream runs at once, so the caller waits: for the CPU's part of a model.
CuResult cuStreamWaitValue64_v2(CuStream, CuPtr address, std::uint64_t least, unsigned) {
  ENTER("stream_wait_value");
  const auto* value = reinterpret_cast<const std::atomic<std::uint64_t>*>(address);
  while (static_cast<std::int64_t>(value->load() - least) < 0) std::this_thread::yield();
  return 0;
}
CuResult cuStreamWriteValue64_v2(CuStream, CuPtr address, std::uint64_t value, unsigned) {
  ENTER("stream_write_value");
  reinterpret_cast<std::atomic<std::uint64_t>*>(address)->store(value);
  return 0;
}
CuResult cuEventCreate(CuEvent* event, unsigned) {
  ENTER("event_create");
  return *event = handle_of<CuEventObject>(++fake->events), 0;
}
CuResult cuEventDestroy_v2(CuEvent) {
  ENTER("event_destroy");
  return --fake->events, 0;
}
CuResult cuEventRecord(CuEvent, CuStream) { return enter("event_record"); }
CuResult cuEventQuery(CuEvent) { return enter("event_query"); }
CuResult cuEventSynchronize(CuEvent) { return enter("event_synchronize"); }
CuResult cuEventElapsedTime(float* ms, CuEvent, CuEvent) { return *ms = 1.0f, 0; }

// Kernels: a library is its image, a kernel and a function are the kernel's name.

CuResult cuLibraryLoadData(CuLibrary* out, const void* image, int*, void**, unsigned, int*, void**,
                           unsigned) {
  ENTER("library_load");
  static constexpr char kStart[] = "fake kernels\n";
  if (std::strncmp(static_cast<const char*>(image), kStart, sizeof kStart - 1) != 0) return kCuNoBinary;
  // Every device loads the same image, and keeps pointers into its names.
  std::vector<std::string>& names = fake->libraries[image];
  if (!names.empty()) return *out = reinterpret_cast<CuLibrary>(&names), 0;
  const char* begin = static_cast<const char*>(image) + sizeof kStart - 1;
  std::istringstream text(std::string(begin, std::strstr(begin, "\nend\n")));
  for (std::string name; text >> name;) names.push_back(name);
  *out = reinterpret_cast<CuLibrary>(&names);
  return 0;
}
CuResult cuLibraryUnload(CuLibrary) { return 0; }
CuResult cuLibraryGetKernelCount(unsigned* n, CuLibrary library) {
  ENTER("library_kernel_count");
  *n = static_cast<unsigned>(reinterpret_cast<const std::vector<std::string>*>(library)->size());
  return 0;
}
CuResult cuLibraryEnumerateKernels(CuKernel* out, unsigned n, CuLibrary library) {
  ENTER("library_kernels");
  const auto& names = *reinterpret_cast<const std::vector<std::string>*>(library);
  for (unsigned i = 0; i < n; ++i)
    out[i] = reinterpret_cast<CuKernel>(const_cast<char*>(names.at(i).c_str()));
  return 0;
}
CuResult cuKernelGetName(const char** name, CuKernel kernel) {
  ENTER("kernel_name");
  *name = reinterpret_cast<const char*>(kernel);
  return 0;
}
CuResult cuKernelGetFunction(CuFunction* function, CuKernel kernel) {
  ENTER("kernel_function");
  return *function = reinterpret_cast<CuFunction>(kernel), 0;
}
CuResult cuKernelSetAttribute(int, int, CuKernel, CuDevice) { return 0; }
CuResult cuOccupancyMaxActiveBlocksPerMultiprocessor(int* n, CuFunction, int, std::size_t) {
  return *n = 1, 0;
}
CuResult cuLaunchKernelEx(const CuLaunchConfig* config, CuFunction function, void** args, void**) {
  ENTER("launch");
  if (config->grid_x * config->grid_y * config->grid_z == 0 || config->block_x == 0) return 1;
  const std::string name = reinterpret_cast<const char*>(function);
  ++fake->launches[name];
  if (fake->kernel && !fake->capturing) fake->kernel(name, args);
  return 0;
}

// Graphs.

CuResult cuStreamBeginCapture_v2(CuStream, int) {
  ENTER("capture_begin");
  fake->capturing = true;
  return 0;
}
CuResult cuStreamEndCapture(CuStream, CuGraph* graph) {
  ENTER("capture_end");
  fake->capturing = false;
  *graph = handle_of<CuGraphObject>(1);
  return 0;
}
CuResult cuGraphInstantiateWithFlags(CuGraphExec* executable, CuGraph, unsigned long long) {
  ENTER("graph_instantiate");
  return *executable = handle_of<CuGraphExecObject>(++fake->graphs), 0;
}
CuResult cuGraphDestroy(CuGraph) { return 0; }
CuResult cuGraphExecDestroy(CuGraphExec) {
  ENTER("graph_exec_destroy");
  return --fake->graphs, 0;
}
CuResult cuGraphUpload(CuGraphExec, CuStream) { return enter("graph_upload"); }
CuResult cuGraphLaunch(CuGraphExec, CuStream) {
  ENTER("graph_launch");
  return ++fake->graph_launches, 0;
}

}  // extern "C"
