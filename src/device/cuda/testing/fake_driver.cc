#include "device/cuda/testing/fake_driver.h"

#include <sys/mman.h>

#include <cstring>

namespace steelyard::cuda {
namespace {

FakeDriver* fake = nullptr;  // the driver's interface has no context argument

CuResult enter(const char* call) { return fake->fail ? fake->fail(call) : 0; }

#define ENTER(name)                             \
  if (const CuResult r = enter(name)) return r; \
  const std::lock_guard lock(fake->mutex)

template <typename T>
T* handle_of(std::uint64_t value) {
  return reinterpret_cast<T*>(value);
}

CuResult device_attribute(int* value, int id, CuDevice) {
  *value = id == kAttrSms           ? 132
           : id == kAttrMajor       ? 9
           : id == kAttrMinor       ? 0
           : id == kAttrSharedOptin ? 232448
                                    : 1;
  return 0;
}

CuResult address_reserve(CuPtr* out, std::size_t bytes, std::size_t alignment, CuPtr, unsigned long long) {
  ENTER("address_reserve");
  // Unreadable until mapped, so that a stray access faults; over-reserved to align.
  void* p = mmap(nullptr, bytes + alignment, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (p == MAP_FAILED) return kCuOutOfMemory;
  *out = (reinterpret_cast<CuPtr>(p) + alignment - 1) / alignment * alignment;
  fake->ranges[*out] = bytes;
  fake->reserved += bytes;
  return 0;
}

CuResult address_free(CuPtr p, std::size_t bytes) {
  ENTER("address_free");
  if (fake->ranges.erase(p) != 1) return 1;
  fake->reserved -= bytes;
  munmap(reinterpret_cast<void*>(p), bytes);
  return 0;
}

CuResult memory_create(CuMemHandle* out, std::size_t bytes, const CuMemAllocationProp*, unsigned long long) {
  ENTER("memory_create");
  if (bytes % (2 << 20) != 0) return 1;
  if (fake->used + bytes > fake->total) return kCuOutOfMemory;
  fake->used += bytes;
  *out = fake->next_handle++;
  fake->allocations[*out] = bytes;
  return 0;
}

CuResult memory_release(CuMemHandle handle) {
  ENTER("memory_release");
  const auto it = fake->allocations.find(handle);
  if (it == fake->allocations.end()) return 1;
  fake->used -= it->second;
  fake->allocations.erase(it);
  return 0;
}

CuResult memory_map(CuPtr p, std::size_t bytes, std::size_t, CuMemHandle handle, unsigned long long) {
  ENTER("memory_map");
  auto range = fake->ranges.upper_bound(p);
  if (range == fake->ranges.begin()) return 1;
  --range;
  if (p + bytes > range->first + range->second || fake->mappings.count(p)) return 1;
  fake->mappings[p] = {handle, bytes};
  return 0;
}

CuResult memory_unmap(CuPtr p, std::size_t bytes) {
  ENTER("memory_unmap");
  if (fake->mappings.erase(p) != 1) return 1;
  mmap(reinterpret_cast<void*>(p), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
       -1, 0);
  return 0;
}

CuResult memory_access(CuPtr p, std::size_t bytes, const CuMemAccess*, std::size_t) {
  ENTER("memory_access");
  if (!fake->mappings.count(p)) return 1;
  return mprotect(reinterpret_cast<void*>(p), bytes, PROT_READ | PROT_WRITE) == 0 ? 0 : 1;
}

CuResult host_alloc(void** out, std::size_t bytes, unsigned) {
  ENTER("host_alloc");
  auto* p = static_cast<std::uint64_t*>(std::malloc(bytes + 64));
  *p = bytes;
  fake->pinned += bytes;
  *out = reinterpret_cast<std::byte*>(p) + 64;
  return 0;
}

CuResult host_free(void* p) {
  ENTER("host_free");
  auto* start = reinterpret_cast<std::uint64_t*>(static_cast<std::byte*>(p) - 64);
  fake->pinned -= *start;
  std::free(start);
  return 0;
}

CuResult copy(void* to, const void* from, std::size_t bytes, const char* call) {
  ENTER(call);
  std::memcpy(to, from, bytes);
  return 0;
}

// A library is its image, a kernel and a function are the kernel's name.
const FakeDriver::Image& image_of(CuLibrary library) {
  return *reinterpret_cast<const FakeDriver::Image*>(library);
}

CuResult library_load(CuLibrary* out, const void* image, int*, void**, unsigned, int*, void**, unsigned) {
  ENTER("library_load");
  *out = reinterpret_cast<CuLibrary>(const_cast<void*>(image));
  return 0;
}

CuResult library_kernel_count(unsigned* n, CuLibrary library) {
  ENTER("library_kernel_count");
  *n = static_cast<unsigned>(image_of(library).size());
  return 0;
}

CuResult library_kernels(CuKernel* out, unsigned n, CuLibrary library) {
  ENTER("library_kernels");
  for (unsigned i = 0; i < n; ++i)
    out[i] = reinterpret_cast<CuKernel>(const_cast<char*>(image_of(library).at(i)));
  return 0;
}

CuResult kernel_name(const char** name, CuKernel kernel) {
  ENTER("kernel_name");
  *name = reinterpret_cast<const char*>(kernel);
  return 0;
}

CuResult launch(const CuLaunchConfig* config, CuFunction f, void** args, void**) {
  ENTER("launch");
  if (config->grid_x * config->grid_y * config->grid_z == 0 || config->block_x == 0) return 1;
  const std::string name = reinterpret_cast<const char*>(f);
  ++fake->launches[name];
  if (fake->kernel && !fake->capturing) fake->kernel(name, args);
  return 0;
}

CuResult capture_begin(CuStream, int) {
  ENTER("capture_begin");
  fake->capturing = true;
  return 0;
}
CuResult capture_end(CuStream, CuGraph* graph) {
  ENTER("capture_end");
  fake->capturing = false;
  *graph = handle_of<CuGraphObject>(1);
  return 0;
}

void fill_memory(Driver& d) {
  d.address_reserve = address_reserve;
  d.address_free = address_free;
  d.memory_create = memory_create;
  d.memory_release = memory_release;
  d.memory_map = memory_map;
  d.memory_unmap = memory_unmap;
  d.memory_access = memory_access;
  d.host_alloc = host_alloc;
  d.host_free = host_free;
  d.host_pointer = [](CuPtr* out, void* p, unsigned) -> CuResult {
    *out = reinterpret_cast<CuPtr>(p);
    return 0;
  };
  d.memory_info = [](std::size_t* free, std::size_t* total) -> CuResult {
    ENTER("memory_info");
    *free = fake->total - fake->used;
    *total = fake->total;
    return 0;
  };
  d.copy_to_device = [](CuPtr to, const void* from, std::size_t n, CuStream) {
    return copy(reinterpret_cast<void*>(to), from, n, "copy_to_device");
  };
  d.copy_to_host = [](void* to, CuPtr from, std::size_t n, CuStream) {
    return copy(to, reinterpret_cast<void*>(from), n, "copy_to_host");
  };
  d.copy_on_device = [](CuPtr to, CuPtr from, std::size_t n, CuStream) {
    return copy(reinterpret_cast<void*>(to), reinterpret_cast<void*>(from), n, "copy_on_device");
  };
  d.set8 = [](CuPtr to, unsigned char value, std::size_t n, CuStream) -> CuResult {
    ENTER("set8");
    std::memset(reinterpret_cast<void*>(to), value, n);
    return 0;
  };
  d.set32 = [](CuPtr to, unsigned value, std::size_t n, CuStream) -> CuResult {
    ENTER("set32");
    for (std::size_t i = 0; i < n; ++i) reinterpret_cast<unsigned*>(to)[i] = value;
    return 0;
  };
}

void fill_device(Driver& d) {
  d.init = [](unsigned) -> CuResult { return 0; };
  d.driver_version = [](int* v) -> CuResult { return *v = 13000, 0; };
  d.error_name = [](CuResult, const char** name) -> CuResult { return *name = "FAKE_ERROR", 0; };
  d.device_count = [](int* n) -> CuResult { return *n = 1, 0; };
  d.device_get = [](CuDevice* device, int index) -> CuResult { return *device = index, enter("device_get"); };
  d.device_name = [](char* name, int n, CuDevice) -> CuResult {
    return std::strncpy(name, "Fake GPU", n), 0;
  };
  d.device_attribute = device_attribute;
  d.device_pci = [](char* name, int n, CuDevice) -> CuResult {
    return std::strncpy(name, "0000:17:00.0", n), 0;
  };
  d.device_total = [](std::size_t* total, CuDevice) -> CuResult { return *total = fake->total, 0; };
  d.context_retain = [](CuContext* c, CuDevice) -> CuResult {
    ENTER("context_retain");
    ++fake->contexts;
    return *c = handle_of<CuContextObject>(1), 0;
  };
  d.context_release = [](CuDevice) -> CuResult { return --fake->contexts, 0; };
  d.context_set = [](CuContext) -> CuResult { return enter("context_set"); };
  d.library_load = library_load;
  d.library_unload = [](CuLibrary) -> CuResult { return 0; };
  d.library_kernel_count = library_kernel_count;
  d.library_kernels = library_kernels;
  d.kernel_name = kernel_name;
  d.kernel_function = [](CuFunction* f, CuKernel k) -> CuResult {
    ENTER("kernel_function");
    return *f = reinterpret_cast<CuFunction>(k), 0;
  };
  d.kernel_set_attribute = [](int, int, CuKernel, CuDevice) -> CuResult { return 0; };
  d.occupancy = [](int* n, CuFunction, int, std::size_t) -> CuResult { return *n = 1, 0; };
}

void fill_streams(Driver& d) {
  d.stream_create = [](CuStream* s, unsigned) -> CuResult {
    ENTER("stream_create");
    return *s = handle_of<CuStreamObject>(++fake->streams), 0;
  };
  d.stream_destroy = [](CuStream) -> CuResult {
    ENTER("stream_destroy");
    return --fake->streams, 0;
  };
  d.stream_synchronize = [](CuStream) -> CuResult { return enter("stream_synchronize"); };
  d.stream_query = [](CuStream) -> CuResult { return enter("stream_query"); };
  d.stream_wait_event = [](CuStream, CuEvent, unsigned) -> CuResult { return 0; };
  d.event_create = [](CuEvent* e, unsigned) -> CuResult {
    ENTER("event_create");
    return *e = handle_of<CuEventObject>(++fake->events), 0;
  };
  d.event_destroy = [](CuEvent) -> CuResult {
    ENTER("event_destroy");
    return --fake->events, 0;
  };
  d.event_record = [](CuEvent, CuStream) -> CuResult { return enter("event_record"); };
  d.event_query = [](CuEvent) -> CuResult { return enter("event_query"); };
  d.event_synchronize = [](CuEvent) -> CuResult { return enter("event_synchronize"); };
  d.event_elapsed = [](float* ms, CuEvent, CuEvent) -> CuResult { return *ms = 1.0f, 0; };
  d.launch = launch;
  d.capture_begin = capture_begin;
  d.capture_end = capture_end;
  d.graph_instantiate = [](CuGraphExec* e, CuGraph, unsigned long long) -> CuResult {
    ENTER("graph_instantiate");
    return *e = handle_of<CuGraphExecObject>(++fake->graphs), 0;
  };
  d.graph_destroy = [](CuGraph) -> CuResult { return 0; };
  d.graph_exec_destroy = [](CuGraphExec) -> CuResult {
    ENTER("graph_exec_destroy");
    return --fake->graphs, 0;
  };
  d.graph_upload = [](CuGraphExec, CuStream) -> CuResult { return enter("graph_upload"); };
  d.graph_launch = [](CuGraphExec, CuStream) -> CuResult {
    ENTER("graph_launch");
    return ++fake->graph_launches, 0;
  };
}

}  // namespace

FakeDriver::FakeDriver(std::uint64_t memory_bytes) : total(memory_bytes) {
  fake = this;
  fill_memory(table_);
  fill_device(table_);
  fill_streams(table_);
}

FakeDriver::~FakeDriver() { fake = nullptr; }

std::span<const KernelImage> FakeDriver::images() {
  static const Image kernels = {"general_activation",
                                "general_attention_64",
                                "general_attention_128",
                                "general_attention_256",
                                "general_attention_512",
                                "general_attention_combine_64",
                                "general_attention_combine_128",
                                "general_attention_combine_256",
                                "general_attention_combine_512",
                                "general_attention_split_64",
                                "general_attention_split_128",
                                "general_attention_split_256",
                                "general_attention_split_512",
                                "general_embed",
                                "general_matmul",
                                "general_matmul_tile",
                                "general_norm",
                                "general_poison",
                                "general_residual",
                                "general_rope_append",
                                "general_rope_table",
                                "general_sample",
                                "general_softcap",
                                "fast_attention_64",
                                "fast_attention_128",
                                "fast_attention_256",
                                "fast_attention_combine_64",
                                "fast_attention_combine_128",
                                "fast_attention_combine_256",
                                "fast_attention_split_64",
                                "fast_attention_split_128",
                                "fast_attention_split_256",
                                "fast_prompt_64",
                                "fast_prompt_128",
                                "fast_prompt_256",
                                "fast_convert",
                                "fast_few_input",
                                "fast_linear_1",
                                "fast_linear_8",
                                "fast_repack",
                                "fast_rows_16_1",
                                "fast_rows_16_2",
                                "fast_rows_16_4",
                                "fast_rows_32_2",
                                "fast_rows_32_4",
                                "fast_rows_64_2",
                                "fast_rows_64_4",
                                "fast_rows_128_2",
                                "fast_rows_128_4",
                                "fast_step",
                                "probe_mma",
                                "probe_nothing",
                                "probe_read",
                                "probe_wgmma"};
  static const KernelImage image[] = {{"fake", &kernels}};
  return image;
}

}  // namespace steelyard::cuda
