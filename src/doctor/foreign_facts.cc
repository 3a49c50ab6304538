// From a log's figures to facts: devices, what they read for a token, and the cards' nominal rates.
#include <algorithm>
#include <string>

#include "doctor/foreign_log.h"
#include "doctor/known_card.h"
#include "plan/fleet.h"

namespace steelyard::doctor {
namespace {

bool is_gpu(const std::string& device) {
  for (const std::string_view kind : {"CUDA", "ROCm", "Vulkan", "SYCL", "Metal", "MTL"})
    if (device.starts_with(kind)) return device.find("_Host") == device.npos;
  return false;
}

void add_card(DeviceFacts& d, const ForeignLog::Card& card) {
  d.name = card.name;
  d.memory = card.total;
  d.free = card.available;
  if (const Card* known = known_card(card.name)) {
    d.read_rate = known->read_gb * 1e9;
    d.nominal = true;
    if (d.memory == 0) d.memory = std::uint64_t{known->memory_gib} << 30;
  }
}

// Of the buffers that lie in host memory when everything is offloaded only rows of the embedding are read. A
// program that can use no GPU doesn't speak of offloading.
bool read_whole(const ForeignLog& log, bool gpu) {
  if (gpu || log.offloaded < log.layers) return true;
  return log.layers == 0 && std::ranges::none_of(log.weights, [](const auto& w) { return is_gpu(w.first); });
}

}  // namespace

Facts facts_of(const ForeignLog& log) {
  Facts f;
  f.engine = log.engine;
  f.model = log.model;
  f.quantization = log.file_type;
  f.layers = log.layers;
  f.layers_on_gpu = log.offloaded;
  f.width = log.width;
  f.context = log.context;
  f.context_train = log.context_train;
  f.kv_type = log.kv_type;
  f.flash_attention = log.flash_attention;
  f.bits_per_weight = log.bits_per_weight;
  f.streams = std::max(1u, log.sequences);
  f.threads = log.threads;
  f.tokens_per_second = log.tokens_per_second;
  f.prompt_tokens_per_second = log.prompt_tokens_per_second;
  f.loads = log.loads;
  f.requests = log.requests;
  f.truncated = log.truncated;
  f.read_again = log.read_again;
  f.no_gpu = log.no_gpu;
  // Who asks for layers on a GPU has one.
  f.gpu_present = log.no_gpu.find("insufficient") != std::string::npos ||
                  log.no_gpu.find("gpu-layers") != std::string::npos;

  std::map<std::string, DeviceFacts> devices;
  const auto place = [&](const std::string& buffer) -> DeviceFacts& {
    const bool gpu = is_gpu(buffer);
    DeviceFacts& d = devices[gpu ? buffer : "CPU"];
    d.id = gpu ? buffer : "CPU";
    d.gpu = gpu;
    return d;
  };
  for (const auto& [buffer, bytes] : log.weights) {
    DeviceFacts& d = place(buffer);
    d.holds[read_whole(log, d.gpu) ? "weights" : "embedding"] += bytes;
    if (read_whole(log, d.gpu)) d.read_weights += bytes;
  }
  for (const auto& [buffer, bytes] : log.kv) place(buffer).holds["KV state"] += bytes;
  for (const auto& [buffer, bytes] : log.compute) place(buffer).holds["workspace"] += bytes;
  for (const auto& [id, card] : log.cards) add_card(place(id), card);
  std::size_t working = 0;
  for (auto& [id, d] : devices) {
    std::uint64_t held = 0;
    for (const auto& [purpose, bytes] : d.holds) held += bytes;
    // What was free before the load.
    d.free = d.free > held ? d.free - held : 0;
    working += d.gpu && d.read_weights > 0;
  }
  f.split = working < 2                                   ? Split::one
            : log.split == "row" || log.split == "tensor" ? Split::ranks
                                                          : Split::stages;
  for (auto& [id, d] : devices)
    if (d.gpu) f.devices.push_back(std::move(d));
  if (const auto host = devices.find("CPU"); host != devices.end())
    f.devices.push_back(std::move(host->second));
  return f;
}

}  // namespace steelyard::doctor
