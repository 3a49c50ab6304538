// ROOMS: gguf quant base program model device plan decoder
// Any bytes as a GGUF file: parse is a file or an Error, a file answers every question about itself, and
// where it holds a model that model is planned, loaded and runs a step.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <span>
#include <vector>

#include "base/error.h"
#include "decoder/decoder.h"
#include "device/device.h"
#include "gguf/gguf.h"
#include "gguf/summary.h"
#include "model/config.h"
#include "model/forward.h"
#include "plan/plan.h"
#include "quant/quant.h"

namespace {

using namespace steelyard;

// Errors are answers; anything else stops the run.
template <typename Ask>
void ask(const Ask& question) {
  try {
    question();
  } catch (const Error&) {
  }
}

// One way of reading each entry, chosen by its place: throwing is slow, and inputs are many.
void touch_metadata(const GgufMetadata& metadata) {
  std::size_t way = metadata.entries().size();
  for (const GgufEntry& entry : metadata.entries()) {
    const auto key = entry.key();
    if (metadata.find(key) != &entry || entry.printable(30).size() > 90) std::abort();
    const bool array = entry.type() == GgufType::array;
    ask([&] {
      switch (way++ % 6) {
        case 0:
          array ? void(metadata.require_array(key).strings()) : void(metadata.find_uint(key, 1000));
          break;
        case 1:
          array ? void(metadata.require_array(key).ints()) : void(metadata.find_int(key, -5, 5));
          break;
        case 2:
          array ? void(metadata.require_array(key).floats()) : void(metadata.find_float(key));
          break;
        case 3:
          array ? void(metadata.require_array(key).bool_at(2)) : void(metadata.find_bool(key));
          break;
        case 4:
          array ? void(metadata.require_array(key).string_at(1)) : void(metadata.find_string(key));
          break;
        default:
          void(metadata.require_array(key).uint_at(0));
      }
    });
  }
}

void touch_tensors(const GgufFile& file) {
  std::vector<float> row;
  for (const GgufTensor& tensor : file.tensors()) {
    if (file.find_tensor(tensor.name) != &tensor) std::abort();
    const std::span<const std::byte> data = file.data(tensor);
    if (data.size() != row_bytes(tensor.type, tensor.shape.elements())) std::abort();
    const std::uint64_t block = dtype_info(tensor.type).block;
    const std::uint64_t n = std::min<std::uint64_t>(tensor.shape.elements(), 4 * block) / block * block;
    row.resize(n);
    const std::size_t last = data.size() - row_bytes(tensor.type, n);
    dequantize(tensor.type, data.data(), n, row.data());
    dequantize(tensor.type, data.data() + last, n, row.data());
  }
}

constexpr std::uint64_t kMostMemory = 8 << 20;  // larger models are planned, but not loaded
constexpr StepLimits kLimits{.rows = 4, .outputs = 2, .slots = 1, .context = 40};

// A prompt of three tokens, then one sampled from it. NaN and infinite weights are part of the game.
void run_steps(Decoder& decoder) {
  const std::vector<std::int32_t> pages = {0, 1, 2}, prompt = {0, 0, 0}, last = {kLastSample};
  const std::vector<std::span<const std::int32_t>> tables(decoder.plan().groups.size(), pages);
  Chunk chunk{.slot = 0,
              .first_position = 0,
              .tokens = prompt,
              .block_tables = tables,
              .n_outputs = 1,
              .want = Want::sample};
  decoder.submit({{&chunk, 1}});
  decoder.wait();
  chunk.first_position = 3;
  chunk.tokens = last;
  decoder.submit({{&chunk, 1}});
  const std::int32_t token = decoder.wait().tokens[0];
  if (token < 0 || static_cast<std::uint32_t>(token) >= decoder.program().vocab_size) std::abort();
}

void plan_and_step(GgufFile parsed, Mode mode) {
  static const std::shared_ptr<Device> device = make_cpu_device({.threads = 1});
  const auto file = std::make_shared<const GgufFile>(std::move(parsed));
  const ModelConfig config = read_config(*file);
  const DType kv_type = mode == Mode::exact ? DType::F32 : DType::F16;
  Forward forward = write_forward(*file, config, {.kv_type = kv_type, .context = kLimits.context});
  const MemoryPlan plan = plan_memory({.config = &config,
                                       .program = &forward.program,
                                       .target = &device->target(),
                                       .limits = kLimits,
                                       .mode = mode,
                                       .kv_type = kv_type});
  if (plan.devices.at(0).total() > kMostMemory) return;
  run_steps(*Decoder::load(file, {{std::move(forward), device}}, plan));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ask([&] {
    GgufFile file = GgufFile::parse({reinterpret_cast<const std::byte*>(data), size});
    touch_metadata(file.metadata());
    touch_tensors(file);
    if (parameter_count(file) > 0 && quantization_name(file).empty()) std::abort();
    plan_and_step(std::move(file), size % 2 ? Mode::fast : Mode::exact);
  });
  return 0;
}
