// What is known of a machine, a model on it and how fast it is, as plain data: measured here, or read out of
// another program's log. What isn't known is 0, empty or nullopt, and no cause is claimed from it.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "observe/file_place.h"
#include "observe/host.h"

namespace steelyard::doctor {

// Whose settings a change is written in.
enum class Engine : std::uint8_t { steelyard, ollama, llama_cpp };
const char* engine_name(Engine engine);

// What a device's part of a token's time goes to.
enum class Part : std::uint8_t { weights, kv, links, waits, other, sampling };
const char* part_name(Part part);

struct StepLine {
  Part part;
  double bytes = 0;
  double seconds = 0;
  double limit = 0;  // bytes/s; 0: unknown, or it has none
  double rate() const { return seconds > 0 ? bytes / seconds : 0; }
};

// Somebody else's use of a device or of the processor.
struct OtherProcess {
  std::uint32_t pid = 0;
  std::string name;
  std::uint64_t bytes = 0;  // of a GPU's memory
  double cores = 0;         // of the processor
};

// What the driver's management library says of a GPU while it worked.
struct GpuHealth {
  double celsius = 0;
  double watts = 0, watts_limit = 0, watts_default = 0;
  double clock_mhz = 0, clock_most_mhz = 0;
  bool power_capped = false, too_hot = false, clocks_set = false;
  std::uint32_t link_width = 0, link_width_most = 0;  // lanes of PCI Express
  std::uint32_t link_generation = 0, link_generation_most = 0;
};

struct DeviceFacts {
  std::string id;    // "CUDA0", "CPU"
  std::string name;  // "NVIDIA GeForce RTX 3060"
  std::string pci;   // of a GPU that the driver lists
  bool gpu = false;
  std::uint64_t memory = 0, free = 0;          // bytes
  std::map<std::string, std::uint64_t> holds;  // the model's bytes by purpose: "weights", "KV state" …
  std::uint64_t read_weights = 0;              // of these, read for every token
  std::uint64_t read_kv = 0;                   // the same of the KV state, at the depth of the measurement
  double read_rate = 0;                        // bytes/s at best
  bool nominal = false;                        // that is what its maker names, not what was measured
  std::vector<StepLine> step;                  // empty: not measured
  std::optional<GpuHealth> health;
  std::vector<OtherProcess> others;
  double seconds() const;  // of `step`
  double busy() const;     // the same without waits
  double reads() const { return static_cast<double>(read_weights) + static_cast<double>(read_kv); }
};

// How the layers lie on the devices.
enum class Split : std::uint8_t { one, stages, ranks };

struct LinkFacts {
  std::string from, to;
  std::string way;        // "NVLink", "PCIe, through the host"
  bool peer = false;      // each reaches the other's memory itself
  double measured = 0;    // bytes/s of a copy that arrived; 0: not measured
  double used_bytes = 0;  // of it, for a token
};

struct Facts {
  Engine engine = Engine::steelyard;
  std::string model, quantization;
  Split split = Split::one;
  double tokens_per_second = 0;  // of one stream
  double spread = 0;             // of its repeats
  double prompt_tokens_per_second = 0;
  double limit_seconds = 0;   // of a token on this machine, where it was measured as a whole
  std::uint32_t streams = 1;  // that the settings allow at once
  std::uint32_t layers = 0;   // as people count: repeating ones and one for the output layer
  std::uint32_t layers_on_gpu = 0;
  std::uint32_t width = 0;               // of a row between layers, values
  std::uint32_t context = 0, depth = 0;  // tokens
  std::uint32_t context_train = 0;
  std::string kv_type;  // "f16", "q8_0"
  std::optional<bool> flash_attention;
  double bits_per_weight = 0;
  std::vector<std::string> slow_types;  // "IQ4_XS: 12 tensors"
  std::vector<DeviceFacts> devices;     // those that hold some of the model, and GPUs that hold none
  std::vector<LinkFacts> links;

  std::optional<HostFacts> host;
  std::uint32_t threads = 0;       // that compute
  std::optional<HostUse> run;      // what the system counted while it was measured
  std::vector<OtherProcess> busy;  // of the processor, meanwhile
  std::optional<FilePlace> file;
  double load_seconds = 0;

  std::string no_gpu;        // why no GPU can be used, in its own words
  bool gpu_present = false;  // in the machine, whether it can be used or not
  std::string driver;        // "580.65.06"
  std::string passed_over;   // why the model isn't on the GPU that could be used
  std::string stale_limits;  // why the limits are doubtful: "measured while the machine was busy"

  // Of a server.
  std::uint32_t loads = 0, requests = 0;
  std::uint64_t prompt_tokens = 0, cached_tokens = 0;
  std::uint32_t waiting = 0, refused = 0;
  std::uint32_t truncated = 0;   // prompts that were cut
  std::uint32_t read_again = 0;  // prompts whose cached part was thrown away
  std::uint32_t preempted = 0;
  double mixed_steps = 0;  // share of the steps with decoded tokens that read prompts as well

  const DeviceFacts* host_device() const;
  std::vector<const DeviceFacts*> gpus() const;
  // The share of a token's time that a part takes, on all devices together, 0 to 1. Ranks work at once; of
  // stages waits are only what nobody worked in.
  double share(Part part) const;
};

// Seconds of a token if all the devices that should have the model read its bytes at once, each at its best
// rate: the GPUs as far as they have room, the CPU for what is left. 0: a rate isn't known.
double limit_seconds(const Facts& facts);
// The same with the devices one after the other, as they are laid now.
double limit_in_turn(const Facts& facts);

}  // namespace steelyard::doctor
