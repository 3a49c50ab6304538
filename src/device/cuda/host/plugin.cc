// The plug-in's side of abi.h: every call catches what the engine throws and turns it into a status.
#include <cstring>
#include <memory>

#include "base/error.h"
#include "device/cuda/host/executable.h"
#include "device/cuda/host/loader.h"
#include "device/cuda/host/wire.h"
#include "device/cuda/probe/probe.h"

namespace steelyard::cuda {
namespace {

using namespace abi;

const Driver* loaded_driver(std::string& why) {
  struct Loaded {
    Driver driver;
    std::string why;
    bool ok = false;
  };
  static const Loaded loaded = [] {
    Loaded l;
    l.ok = load_driver(l.driver, l.why);
    if (l.ok && l.driver.init(0) != 0) {
      l.ok = false;
      l.why = "the NVIDIA driver finds no usable GPU";
    }
    return l;
  }();
  why = loaded.why;
  return loaded.ok ? &loaded.driver : nullptr;
}

void write(Message* message, const std::string& text) {
  if (!message) return;
  const std::size_t n = std::min(text.size(), sizeof message->text - 1);
  std::memcpy(message->text, text.data(), n);
  message->text[n] = 0;
}

template <typename Fn>
Status guarded(Message* message, Fn&& fn) {
  try {
    fn();
    return 0;
  } catch (const Error& e) {
    write(message, e.what());
    return 1 + static_cast<Status>(e.kind());
  } catch (const std::bad_alloc&) {
    write(message, "out of memory");
    return 1 + static_cast<Status>(ErrorKind::no_memory);
  } catch (const std::exception& e) {
    write(message, e.what());
    return 1 + static_cast<Status>(ErrorKind::internal);
  }
}

}  // namespace

namespace abi {

struct Device {
  std::unique_ptr<Gpu> gpu;
};
struct Arena {
  std::unique_ptr<VirtualArena> arena;
};
struct Executable {
  Program program;
  std::unique_ptr<CudaExecutable> executable;
  std::vector<OpNanoseconds> trace;
};

}  // namespace abi

namespace {

Status device_count(std::uint32_t* count, Message* m) {
  return guarded(m, [&] {
    std::string why;
    const Driver* driver = loaded_driver(why);
    if (!driver) throw_error(ErrorKind::not_found, "{}", why);
    int n = 0, version = 0;
    if (driver->driver_version(&version) != 0 || version < 13000)
      throw_error(
          ErrorKind::unsupported,
          "the NVIDIA driver is too old: it supports CUDA {}.{}, Steelyard needs 13.0 (driver 580 or newer)",
          version / 1000, version % 1000 / 10);
    if (driver->device_count(&n) != 0) n = 0;
    *count = static_cast<std::uint32_t>(n);
  });
}

Status device_open(std::uint32_t index, abi::Device** out, DeviceDescription* d, Message* m) {
  return guarded(m, [&] {
    std::string why;
    const Driver* driver = loaded_driver(why);
    if (!driver) throw_error(ErrorKind::not_found, "{}", why);
    auto device = std::make_unique<abi::Device>();
    device->gpu = std::make_unique<Gpu>(*driver, static_cast<int>(index), embedded_kernels());
    const Gpu& gpu = *device->gpu;
    std::snprintf(d->id, sizeof d->id, "%s", gpu.id().c_str());
    std::snprintf(d->name, sizeof d->name, "%s", gpu.info().name.c_str());
    std::snprintf(d->kernels, sizeof d->kernels, "sm_%u%u", gpu.info().major, gpu.info().minor);
    d->memory_bytes = gpu.total_memory();
    d->context_bytes = gpu.context_bytes();
    *out = device.release();
  });
}

void device_close(abi::Device* device) { delete device; }

Status device_memory(abi::Device* device, std::uint64_t* total, std::uint64_t* free, Message* m) {
  return guarded(m, [&] {
    *total = device->gpu->total_memory();
    *free = device->gpu->free_memory();
  });
}

Status device_driver_memory(abi::Device* device, DriverMemory* memory, Message* m) {
  return guarded(m, [&] { *memory = device->gpu->driver_memory(); });
}

Status device_lost(abi::Device* device, std::int32_t* lost, Message* m) {
  return guarded(m, [&] { *lost = device->gpu->lost(); });
}

Status device_measure(abi::Device* device, Rates* rates, Message* m) {
  return guarded(m, [&] { *rates = measure_rates(*device->gpu); });
}

Status arena_make(abi::Device* device, const char* purpose, std::uint64_t bytes, abi::Arena** out,
                  std::uint64_t* address, Message* m) {
  return guarded(m, [&] {
    auto arena = std::make_unique<abi::Arena>();
    arena->arena = std::make_unique<VirtualArena>(*device->gpu, purpose, bytes);
    *address = arena->arena->address();
    *out = arena.release();
  });
}

void arena_free(abi::Arena* arena) { delete arena; }

Status arena_stats(abi::Arena* arena, ArenaStats* out, Message* m) {
  return guarded(m, [&] {
    const VirtualArena::Stats s = arena->arena->stats();
    *out = {s.reserved, s.mapped, s.used, s.pieces};
  });
}

Status load(abi::Device* device, const Load* loads, std::uint64_t n, Mode mode, abi::Arena* arena,
            ProgressCall progress, void* context, Message* m) {
  return guarded(m, [&] {
    std::vector<WeightSpec> specs;
    std::vector<WeightLoad> list;
    specs.reserve(n);
    for (std::uint64_t i = 0; i < n; ++i) {
      specs.push_back(from_wire(loads[i].spec));
      list.push_back({&specs.back(), {loads[i].raw, loads[i].raw_bytes}, loads[i].offset});
    }
    LoadProgress call;
    if (progress) call = [&](std::uint64_t done, std::uint64_t total) { progress(context, done, total); };
    load_weights(*device->gpu, list, mode, arena->arena->address(), call);
  });
}

Status compile(abi::Device* device, const ProgramView* program, const BindingsView* b,
               const StepLimits* limits, Mode mode, abi::Executable** out, Message* report, Message* m) {
  return guarded(m, [&] {
    Bindings bindings;
    for (std::uint64_t i = 0; i < b->weights.size; ++i)
      bindings.weights.push_back(reinterpret_cast<const std::byte*>(b->weights.data[i]));
    for (std::uint64_t i = 0; i < b->states.size; ++i)
      bindings.states.push_back(reinterpret_cast<std::byte*>(b->states.data[i]));
    bindings.pages.assign(b->pages.data, b->pages.data + b->pages.size);
    bindings.workspace = reinterpret_cast<std::byte*>(b->workspace);
    bindings.workspace_bytes = b->workspace_bytes;
    auto e = std::make_unique<abi::Executable>();
    e->program = from_wire(*program);
    e->executable = std::make_unique<CudaExecutable>(*device->gpu, e->program, bindings, *limits, mode);
    write(report, e->executable->report());
    *out = e.release();
  });
}

void executable_free(abi::Executable* e) { delete e; }

template <typename T>
std::span<const T> span_of(const List<T>& list) {
  return {list.data, list.size};
}
template <typename T>
List<T> list_of(std::span<const T> span) {
  return {span.data(), span.size()};
}

Status staging_bytes(abi::Executable* e, std::uint64_t* bytes, Message* m) {
  return guarded(m, [&] { *bytes = e->executable->staging_bytes(); });
}

Status launch(abi::Executable* e, const BlockView* b, Message* m) {
  return guarded(m, [&] {
    e->executable->launch({span_of(b->tokens), span_of(b->positions), span_of(b->row_sequence),
                           span_of(b->sequences), span_of(b->outputs), span_of(b->block_tables),
                           b->pages_per_sequence});
  });
}

Status wait(abi::Executable* e, ResultView* out, Message* m) {
  return guarded(m, [&] {
    const StepResult& r = e->executable->wait();
    *out = {list_of(r.tokens), list_of(r.logits), list_of(r.hidden), r.nanoseconds};
  });
}

Status reset_slot(abi::Executable* e, std::uint32_t slot, Message* m) {
  return guarded(m, [&] { e->executable->reset_slot(slot); });
}

Status copy_pages(abi::Executable* e, std::uint32_t group, const std::int32_t* from, const std::int32_t* to,
                  std::uint64_t n, Message* m) {
  return guarded(m, [&] { e->executable->copy_pages(group, {from, n}, {to, n}); });
}

Status set_tracing(abi::Executable* e, std::int32_t on, Message* m) {
  return guarded(m, [&] { e->executable->set_tracing(on != 0); });
}

Status trace(abi::Executable* e, List<OpNanoseconds>* out, Message* m) {
  return guarded(m, [&] {
    e->trace.clear();
    for (const OpTime& t : e->executable->trace()) e->trace.push_back({t.op, t.nanoseconds});
    *out = {e->trace.data(), e->trace.size()};
  });
}

Status set_probe(abi::Executable* e, ProbeCall probe, void* context, Message* m) {
  return guarded(m, [&] {
    if (!probe) return e->executable->set_indexed_probe({});
    e->executable->set_indexed_probe(
        [=](std::size_t op, BufferId buffer, std::uint32_t row, std::span<const float> values) {
          probe(context, static_cast<std::uint32_t>(op), buffer, row, values.data(), values.size());
        });
  });
}

}  // namespace
}  // namespace steelyard::cuda

extern "C" __attribute__((visibility("default"))) const steelyard::cuda::abi::Api* steelyard_cuda_api(
    std::uint32_t version) {
  using namespace steelyard::cuda;
  static const abi::Api api{abi::kAbiVersion,
                            sizeof(abi::Api),
                            sizeof(abi::ProgramView),
                            sizeof(abi::BlockView),
                            sizeof(steelyard::StepOutput),
                            device_count,
                            device_open,
                            device_close,
                            device_memory,
                            device_driver_memory,
                            device_lost,
                            device_measure,
                            arena_make,
                            arena_free,
                            arena_stats,
                            load,
                            compile,
                            executable_free,
                            staging_bytes,
                            launch,
                            wait,
                            reset_slot,
                            copy_pages,
                            set_tracing,
                            trace,
                            set_probe};
  return version == abi::kAbiVersion ? &api : nullptr;
}
