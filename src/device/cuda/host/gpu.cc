#include "device/cuda/host/gpu.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <string_view>
#include <thread>

#include "base/error.h"

namespace steelyard::cuda {
namespace {

bool is_sticky(CuResult r) {
  switch (r) {
    case kCuDeviceUnavailable:
    case kCuInvalidDevice:
    case kCuEccUncorrectable:
    case kCuNvlinkUncorrectable:
    case kCuContained:
    case kCuIllegalAddress:
    case kCuLaunchTimeout:
    case kCuContextDestroyed:
    case kCuAssert:
    case kCuHardwareStack:
    case kCuIllegalInstruction:
    case kCuMisalignedAddress:
    case kCuInvalidAddressSpace:
    case kCuInvalidPc:
    case kCuLaunchFailed:
    case kCuTensorMemoryLeak:
    case kCuUnknown:
      return true;
    default:
      return false;
  }
}

constexpr const char* kPoison = "general_poison";

bool wants_poison() {
  const char* wish = std::getenv("STEELYARD_CUDA_POISON");
  return wish && std::string_view(wish) == "1";
}

}  // namespace

Gpu::Gpu(const Driver& driver, int index, std::span<const KernelImage> images, const UsedMemory& used)
    : driver_(driver), id_(fmt::format("CUDA{}", index)), used_(used), poisons_(wants_poison()) {
  check(driver_.device_get(&device_, index), "finding the device");
  read_info();
  char pci[32] = {};
  if (driver_.device_pci(pci, sizeof pci, device_) == 0) pci_ = pci;
  const auto before = used_(pci_);
  check(driver_.context_retain(&context_, device_), "opening the device");
  try {
    bind();
    load_images(images);
    check(driver_.stream_create(&queue_, kStreamNonBlocking), "making a stream");
    if (poisons_) allow_shared(kernel(kPoison), info_.shared_per_block);  // loaded: captures allow no loading
    if (const auto after = before ? used_(pci_) : std::nullopt)
      context_bytes_ = taken_between(*before, *after);
  } catch (...) {
    close();
    throw;
  }
}

Gpu::~Gpu() { close(); }

void Gpu::close() {
  driver_.context_set(context_);
  if (queue_) driver_.stream_destroy(queue_);
  for (CuLibrary library : libraries_) driver_.library_unload(library);
  driver_.context_release(device_);
}

void Gpu::read_info() {
  char name[128] = {};
  check(driver_.device_name(name, sizeof name, device_), "reading the device's name");
  info_.name = name;
  const auto attribute = [&](int id) {
    int value = 0;
    check(driver_.device_attribute(&value, id, device_), "reading the device's attributes");
    return static_cast<std::uint32_t>(value);
  };
  info_.major = attribute(kAttrMajor);
  info_.minor = attribute(kAttrMinor);
  info_.sms = attribute(kAttrSms);
  // For tests: two parts of a model on one GPU, each with half of it, so that both run at once.
  if (const char* most = std::getenv("STEELYARD_CUDA_SMS"); most && std::atoi(most) > 0)
    info_.sms = std::min(info_.sms, static_cast<std::uint32_t>(std::atoi(most)));
  info_.l2_bytes = attribute(kAttrL2);
  info_.shared_per_block = attribute(kAttrSharedOptin);
  info_.clock_hz = 1e3 * attribute(kAttrClock);
  info_.memory_clock_hz = 1e3 * attribute(kAttrMemoryClock);
  info_.memory_bus_bits = attribute(kAttrBusWidth);
  if (attribute(kAttrVirtualMemory) == 0)
    throw_error(ErrorKind::unsupported, "{} ({}) has no virtual memory management", id_, info_.name);
  std::size_t total = 0;
  check(driver_.device_total(&total, device_), "reading the device's memory");
  total_ = total;
}

void Gpu::load_images(std::span<const KernelImage> images) {
  for (const KernelImage& image : images) {
    CuLibrary library = nullptr;
    const CuResult result =
        driver_.library_load(&library, image.data.data(), nullptr, nullptr, 0, nullptr, nullptr, 0);
    if (result == kCuNoBinary) continue;  // compiled for other architectures only
    check(result, "loading the kernels");
    libraries_.push_back(library);
    list_kernels(library);
  }
  if (libraries_.empty())
    throw_error(ErrorKind::unsupported, "this build has no kernels for {} ({}, compute capability {}.{})",
                id_, info_.name, info_.major, info_.minor);
}

// By name beforehand: asking the driver for a kernel that a library lacks is an error there, which checkers
// report.
void Gpu::list_kernels(CuLibrary library) {
  unsigned n = 0;
  check(driver_.library_kernel_count(&n, library), "counting the kernels");
  std::vector<CuKernel> kernels(n);
  check(driver_.library_kernels(kernels.data(), n, library), "listing the kernels");
  for (CuKernel kernel : kernels) {
    const char* name = nullptr;
    check(driver_.kernel_name(&name, kernel), "reading a kernel's name");
    kernels_.try_emplace(name, Kernel{.kernel = kernel});
  }
}

std::uint64_t Gpu::free_memory() {
  bind();
  std::size_t free = 0, total = 0;
  check(driver_.memory_info(&free, &total), "reading the free memory");
  return free;
}

DriverMemory Gpu::driver_memory() {
  const std::lock_guard lock(memory_mutex_);
  const auto used = used_(pci_);
  DriverMemory m = used ? *used : DriverMemory{.all = total_ - std::min(total_, free_memory())};
  m.all -= std::min(m.all, allocated_);
  m.own -= std::min(m.own, allocated_);
  return m;
}

CuMemHandle Gpu::allocate(std::uint64_t bytes) {
  CuMemAllocationProp prop{};
  prop.type = 1;
  prop.location = {1, device_};
  const std::lock_guard lock(memory_mutex_);
  CuMemHandle handle = 0;
  check(driver_.memory_create(&handle, bytes, &prop, 0), "allocating memory");
  allocated_ += bytes;
  return handle;
}

void Gpu::release(CuMemHandle handle, std::uint64_t bytes) {
  const std::lock_guard lock(memory_mutex_);
  driver_.memory_release(handle);
  allocated_ -= bytes;
}

void Gpu::bind() {
  if (lost()) throw_error(ErrorKind::io, "{} is lost since an earlier error; restart to use it again", id_);
  check(driver_.context_set(context_), "binding the context");
}

void Gpu::check(CuResult result, std::string_view what) {
  if (result == 0) return;
  const char* name = nullptr;
  if (driver_.error_name(result, &name) != 0 || !name) name = "unknown error";
  if (is_sticky(result)) {
    lost_.store(true, std::memory_order_relaxed);
    throw_error(ErrorKind::io, "{} is lost: {} failed with {} ({})", id_, what, name, result);
  }
  const ErrorKind kind = result == kCuOutOfMemory ? ErrorKind::no_memory : ErrorKind::io;
  throw_error(kind, "{}: {} failed with {} ({})", id_, what, name, result);
}

void Gpu::wait_for(CuEvent event, volatile std::uint32_t* abort, std::chrono::milliseconds patience) {
  using Clock = std::chrono::steady_clock;
  constexpr auto kSpin = std::chrono::milliseconds(2);
  constexpr auto kPause = std::chrono::microseconds(30);
  const auto start = Clock::now();
  const auto give_up = patience + patience / 8;  // after the abort flag was set
  for (bool aborted = false;;) {
    const CuResult result = driver_.event_query(event);
    if (result != kCuNotReady) return check(result, "waiting for a step");
    const auto waited = Clock::now() - start;
    if (waited > patience && !aborted) {
      if (abort) *abort = 1;
      aborted = true;
    }
    if (waited > give_up) {
      lost_.store(true, std::memory_order_relaxed);
      throw_error(ErrorKind::io, "{} is lost: a step didn't end within {} s", id_,
                  std::chrono::duration_cast<std::chrono::seconds>(patience).count());
    }
    if (waited > kSpin) std::this_thread::sleep_for(kPause);
  }
}

void Gpu::drain(CuEvent event, std::chrono::milliseconds patience) noexcept {
  const auto start = std::chrono::steady_clock::now();
  while (!lost() && driver_.event_query(event) == kCuNotReady) {
    if (std::chrono::steady_clock::now() - start > patience) lost_.store(true, std::memory_order_relaxed);
    std::this_thread::sleep_for(std::chrono::microseconds(30));
  }
}

Gpu::Kernel* Gpu::find_kernel(const char* name) {
  const std::lock_guard lock(kernels_mutex_);
  const auto found = kernels_.find(std::string_view(name));
  if (found == kernels_.end()) return nullptr;
  Kernel& entry = found->second;
  if (!entry.function) {
    check(driver_.kernel_function(&entry.function, entry.kernel), "loading a kernel");
    // One split of L1 and shared memory for all: changing it between kernels drains the multiprocessor.
    driver_.kernel_set_attribute(kFuncSharedCarveout, 100, entry.kernel, device_);
  }
  return &entry;
}

Gpu::Kernel& Gpu::kernel(const char* name) {
  Kernel* found = find_kernel(name);
  if (!found) throw_error(ErrorKind::internal, "{}: no kernel is named {}", id_, name);
  return *found;
}

void Gpu::allow_shared(Kernel& kernel, std::uint32_t bytes) {
  const std::lock_guard lock(kernels_mutex_);
  if (bytes <= kernel.shared_bytes || bytes <= 48 * 1024) return;
  check(driver_.kernel_set_attribute(kFuncMaxDynamicShared, static_cast<int>(bytes), kernel.kernel, device_),
        "raising a kernel's shared memory");
  kernel.shared_bytes = bytes;
}

void StreamLauncher::launch(const KernelLaunch& l, void** args) {
  if (gpu_.poisons()) {
    std::uint32_t bytes = gpu_.info().shared_per_block;
    KernelLaunch poison{kPoison};
    poison.grid[0] = gpu_.info().sms;
    poison.block[0] = 256;
    poison.shared_bytes = bytes;
    void* poison_args[] = {&bytes};
    start(poison, poison_args);
  }
  start(l, args);
}

void StreamLauncher::start(const KernelLaunch& l, void** args) {
  Gpu::Kernel& kernel = gpu_.kernel(l.kernel);
  gpu_.allow_shared(kernel, l.shared_bytes);
  CuLaunchAttribute attributes[3] = {};
  unsigned n = 0;
  if (l.cooperative) {
    attributes[n].id = kLaunchCooperative;
    attributes[n++].value.flag = 1;
  }
  if (l.dependent) {
    attributes[n].id = kLaunchDependent;
    attributes[n++].value.flag = 1;
  }
  if (l.cluster > 1) {
    attributes[n].id = kLaunchCluster;
    attributes[n++].value.cluster = {l.cluster, 1, 1};
  }
  const CuLaunchConfig config{l.grid[0],  l.grid[1],      l.grid[2], l.block[0], l.block[1],
                              l.block[2], l.shared_bytes, stream_,   attributes, n};
  gpu_.check(gpu_.driver().launch(&config, kernel.function, args, nullptr), l.kernel);
}

Stream::Stream(Gpu& gpu) : gpu_(gpu) {
  gpu_.bind();
  gpu_.check(gpu_.driver().stream_create(&stream_, kStreamNonBlocking), "making a stream");
}
Stream::~Stream() {
  if (stream_) gpu_.driver().stream_destroy(stream_);
}
void Stream::synchronize() {
  gpu_.check(gpu_.driver().stream_synchronize(stream_), "waiting for the device");
}

Event::Event(Gpu& gpu, bool timing) : gpu_(gpu) {
  gpu_.bind();
  gpu_.check(gpu_.driver().event_create(&event_, timing ? kEventDefault : kEventDisableTiming),
             "making an event");
}
Event::~Event() {
  if (event_) gpu_.driver().event_destroy(event_);
}
void Event::record(CuStream stream) {
  gpu_.check(gpu_.driver().event_record(event_, stream), "recording an event");
}
void Event::synchronize() { gpu_.check(gpu_.driver().event_synchronize(event_), "waiting for the device"); }

PinnedMemory::PinnedMemory(Gpu& gpu, std::uint64_t bytes) : gpu_(gpu), bytes_(bytes) {
  gpu_.bind();
  void* data = nullptr;
  gpu_.check(gpu_.driver().host_alloc(&data, bytes, kHostPortable | kHostDeviceMap), "pinning host memory");
  data_ = static_cast<std::byte*>(data);
  std::memset(data_, 0, bytes);
  CuPtr device = 0;
  const CuResult result = gpu_.driver().host_pointer(&device, data, 0);
  if (result != 0) gpu_.driver().host_free(data);
  gpu_.check(result, "mapping host memory");
  device_ = device;
}
PinnedMemory::~PinnedMemory() {
  if (data_) gpu_.driver().host_free(data_);
}

}  // namespace steelyard::cuda
