// The interface of the plug-in libsteelyard_cuda.so: plain data and functions, status codes, no exceptions,
// nothing shared between its sides but what is passed. Both sides are built from this header; kAbiVersion and
// the sizes that steelyard_cuda_api() checks refuse any other pairing.
#pragma once

#include <cstddef>
#include <cstdint>

#include "device/driver_memory.h"
#include "device/step.h"
#include "device/target.h"

namespace steelyard::cuda::abi {

inline constexpr std::uint32_t kAbiVersion = 3;
inline constexpr const char* kEntryPoint = "steelyard_cuda_api";

// 0, or 1 + ErrorKind with a sentence in the message.
using Status = std::int32_t;
struct Message {
  char text[1024];
};

struct Device;  // owned by the plug-in
struct Arena;
struct Executable;

struct DeviceDescription {
  char id[16], name[128], kernels[32];
  std::uint64_t memory_bytes, context_bytes;  // as DeviceInfo
};

struct Rates {  // as DeviceRates
  double read_bytes_per_second;
  double multiply_per_second;  // f16 tensor cores
  double to_device_bytes_per_second, from_device_bytes_per_second;
  double launch_seconds;
};

template <typename T>
struct List {  // a view
  const T* data;
  std::uint64_t size;
};

struct Weight {
  const char* name;
  WeightRole role;
  std::int16_t layer;
  DType type;
  std::uint32_t rows, cols;
};
struct Buffer {
  const char* name;
  std::uint32_t width;
  RowSet rows;
};
struct Group {
  const char* name;
  std::uint32_t window;
};
struct Operation {
  std::int32_t layer;
  std::uint32_t kind;  // index of the variant in OpBody
  alignas(8) unsigned char body[96];
};

struct ProgramView {
  std::uint32_t n_embd, vocab_size;
  List<Buffer> buffers;
  List<Weight> weights;
  List<Group> groups;
  List<StateSpec> states;
  List<RopeSpec> ropes;
  List<Operation> ops;
};

struct Load {
  Weight spec;
  const std::byte* raw;
  std::uint64_t raw_bytes, offset;
};

struct BindingsView {
  List<std::uint64_t> weights, states;  // device addresses
  List<std::uint32_t> pages;
  std::uint64_t workspace, workspace_bytes;
};

struct BlockView {
  List<std::int32_t> tokens, positions;
  List<std::uint32_t> row_sequence;
  List<StepSequence> sequences;
  List<StepOutput> outputs;
  List<std::int32_t> block_tables;
  std::uint32_t pages_per_sequence;
};

struct ResultView {
  List<std::int32_t> tokens;
  List<float> logits, hidden;
  std::int64_t nanoseconds;
};

struct OpNanoseconds {
  std::uint32_t op;
  std::int64_t nanoseconds;
};

struct ArenaStats {
  std::uint64_t reserved, mapped, used, pieces;
};

using ProgressCall = void (*)(void* context, std::uint64_t done, std::uint64_t total);
using ProbeCall = void (*)(void* context, std::uint32_t op, std::int32_t buffer, std::uint32_t row,
                           const float* values, std::uint64_t n);

struct Api {
  std::uint32_t version;
  std::uint32_t api_bytes, program_bytes, block_bytes, output_bytes;  // sizeof, as the plug-in was built

  Status (*device_count)(std::uint32_t* count, Message*);
  Status (*device_open)(std::uint32_t index, Device**, DeviceDescription*, Message*);
  void (*device_close)(Device*);
  Status (*device_memory)(Device*, std::uint64_t* total, std::uint64_t* free, Message*);
  Status (*device_driver_memory)(Device*, DriverMemory*, Message*);
  Status (*device_lost)(Device*, std::int32_t* lost, Message*);
  Status (*device_measure)(Device*, Rates*, Message*);

  Status (*arena_make)(Device*, const char* purpose, std::uint64_t bytes, Arena**, std::uint64_t* address,
                       Message*);
  void (*arena_free)(Arena*);
  Status (*arena_stats)(Arena*, ArenaStats*, Message*);

  Status (*load_weights)(Device*, const Load*, std::uint64_t n, Mode, Arena*, ProgressCall, void* context,
                         Message*);

  Status (*compile)(Device*, const ProgramView*, const BindingsView*, const StepLimits*, Mode, Executable**,
                    Message* report, Message*);
  void (*executable_free)(Executable*);
  Status (*staging_bytes)(Executable*, std::uint64_t*, Message*);
  Status (*launch)(Executable*, const BlockView*, Message*);
  Status (*wait)(Executable*, ResultView*, Message*);
  Status (*reset_slot)(Executable*, std::uint32_t slot, Message*);
  Status (*copy_pages)(Executable*, std::uint32_t group, const std::int32_t* from, const std::int32_t* to,
                       std::uint64_t n, Message*);
  Status (*set_tracing)(Executable*, std::int32_t on, Message*);
  Status (*trace)(Executable*, List<OpNanoseconds>*, Message*);
  Status (*set_probe)(Executable*, ProbeCall, void* context, Message*);  // nullptr: off
};

// The one exported function. nullptr: another version.
using EntryPoint = const Api* (*)(std::uint32_t version);

}  // namespace steelyard::cuda::abi
