// Helpers of this room's tests: a model loaded on the CPU, or on the GPU that STEELYARD_TEST_DEVICE names
// ("cuda0"), with its own simple page tables.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "decoder/decoder.h"
#include "device/device.h"
#include "device/devices.h"
#include "device/page_tables.h"
#include "device/step.h"
#include "device/target.h"
#include "device/testing/test_device.h"
#include "gguf/gguf.h"
#include "model/config.h"
#include "model/forward.h"
#include "plan/plan.h"
#include "program/program.h"
#include "program/share.h"

namespace steelyard::testing {

struct LoadOptions {
  Mode mode = Mode::fast;
  DType kv_type = DType::F16;
  StepLimits limits{.rows = 64, .outputs = 64, .slots = 1, .context = 256};
  std::uint32_t threads = 2;
  // Layers over so many stages of so many tensor ranks, each a device: those of a GPU test in turn with the
  // CPU where there is one GPU alone; or, with STEELYARD_CUDA_SMS, on that GPU, each with a share of it.
  std::uint32_t parts = 1, ranks = 1;
};

// One chunk for a slot.
struct TestChunk {
  std::uint32_t slot;
  std::vector<std::int32_t> tokens;
  Want want = Want::logits;
};

class TestModel {
 public:
  TestModel(const std::filesystem::path& path, LoadOptions options) : lengths_(options.limits.slots, 0) {
    if (options.mode == Mode::exact) options.kv_type = DType::F32;
    auto file = std::make_shared<const GgufFile>(GgufFile::open(path));
    config = read_config(*file);
    std::vector<PlacedPart> parts = place(*file, options);
    const MemoryPlan plan = plan_parts(parts, options);
    decoder = Decoder::load(file, std::move(parts), plan);
    std::vector<std::uint32_t> pages;
    for (const GroupPlan& group : plan.groups) pages.push_back(group.pages_per_sequence);
    tables_.emplace(pages, options.limits.slots, most_pages(options.limits, plan.page_tokens));
  }

  // Runs one step with a chunk per entry; every token's output is wanted.
  const StepResult& step(const std::vector<TestChunk>& chunks) {
    submit(chunks);
    return decoder->wait();
  }
  void submit(const std::vector<TestChunk>& chunks) {
    chunks_.clear();
    for (const auto& c : chunks) {
      chunks_.push_back({.slot = c.slot,
                         .first_position = lengths_[c.slot],
                         .tokens = c.tokens,
                         .block_tables = tables_->of(c.slot),
                         .n_outputs = static_cast<std::uint32_t>(c.want != Want::none ? c.tokens.size() : 0),
                         .want = c.want,
                         .sampling = sampling});
      lengths_[c.slot] += static_cast<std::int32_t>(c.tokens.size());
    }
    decoder->submit({chunks_});
  }

  // Logits [tokens][vocab] of one sequence from its start, in chunks of `rows`.
  std::vector<float> logits(const std::vector<std::int32_t>& tokens, std::size_t rows) {
    std::vector<float> out;
    lengths_[0] = 0;
    for (std::size_t at = 0; at < tokens.size(); at += rows) {
      const std::size_t end = std::min(at + rows, tokens.size());
      const auto& result = step({{0, {tokens.begin() + at, tokens.begin() + end}}});
      out.insert(out.end(), result.logits.begin(), result.logits.end());
    }
    return out;
  }

  ModelConfig config;
  std::unique_ptr<Decoder> decoder;
  SamplingParams sampling{.temperature = 0};

 private:
  std::vector<PlacedPart> place(const GgufFile& file, const LoadOptions& options) {
    const ForwardOptions forward{.kv_type = options.kv_type, .context = options.limits.context};
    if (options.parts * options.ranks == 1) {
      std::vector<PlacedPart> all;
      all.push_back({write_forward(file, config, forward), make_test_device(options.threads)});
      return all;
    }
    const auto n = static_cast<std::uint32_t>(config.layers.size());
    std::vector<Share> stages;  // the embedding and the output layer with the outermost layers
    for (std::uint32_t i = 0; i < options.parts; ++i)
      for (std::uint32_t rank = 0; rank < options.ranks; ++rank)
        stages.push_back({i == 0 ? 0 : n * i / options.parts + 1,
                          i + 1 == options.parts ? n + 2 : n * (i + 1) / options.parts + 1, rank,
                          options.ranks});
    std::vector<PlacedPart> parts;
    for (Forward& f : in_parts(write_forward(file, config, forward), stages))
      parts.push_back({std::move(f), make_part_device(parts.size(), options.threads)});
    return parts;
  }
  static std::shared_ptr<Device> make_part_device(std::size_t part, std::uint32_t threads) {
    if (!tests_a_gpu()) return make_cpu_device({.threads = threads});
    const std::uint32_t gpus = find_cuda_devices().count;
    if (std::getenv("STEELYARD_CUDA_SMS")) return make_cuda_device(static_cast<std::uint32_t>(part) % gpus);
    if (gpus == 1 && part % 2 == 1) return make_cpu_device({.threads = threads});
    static Devices devices;  // a GPU has one context and one queue
    return devices.cuda(static_cast<std::uint32_t>(part) % gpus);
  }
  MemoryPlan plan_parts(const std::vector<PlacedPart>& parts, const LoadOptions& options) const {
    std::vector<PlanInput> inputs;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Device& device = *parts[i].device;
      inputs.push_back({.config = &config,
                        .program = &parts[i].forward.program,
                        .target = &device.target(),
                        .device = device.info().id,
                        .limits = options.limits,
                        .mode = options.mode,
                        .kv_type = options.kv_type,
                        .threads = device.info().threads,
                        .process_bytes = i == 0 ? 1u : 0u,
                        .context_bytes = device.info().context_bytes});
      if (parts.size() > 1) inputs.back().limits.in_flight = options.parts + 1;
    }
    return parts.size() == 1 ? plan_memory(inputs[0]) : plan_stages(inputs);
  }

  std::vector<std::int32_t> lengths_;
  std::optional<PageTables> tables_;
  std::vector<Chunk> chunks_;
};

inline std::filesystem::path golden(const std::string& name) {
  return std::filesystem::path(STEELYARD_SOURCE_DIR) / "tests/data/models" / name;
}

// The data of a .npy file of 4-byte elements (version 1.0, little endian, C order).
template <typename T>
std::vector<T> read_npy(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
  const std::size_t begin =
      10 + static_cast<unsigned char>(bytes.at(8)) + 256 * static_cast<unsigned char>(bytes.at(9));
  std::vector<T> values((bytes.size() - begin) / sizeof(T));
  std::copy(bytes.begin() + begin, bytes.end(), reinterpret_cast<char*>(values.data()));
  return values;
}

inline std::vector<std::int32_t> read_ids(const std::filesystem::path& path) {
  std::ifstream in(path);
  return {std::istream_iterator<std::int32_t>(in), {}};
}

// Real models that test.sh fetched, or an empty path.
inline std::filesystem::path real_model(const std::string& file) {
  std::filesystem::path cache;
  if (const char* xdg = std::getenv("XDG_CACHE_HOME"))
    cache = xdg;
  else if (const char* home = std::getenv("HOME"))
    cache = std::filesystem::path(home) / ".cache";
  const auto path = cache / "steelyard/models" / file;
  return std::filesystem::exists(path) ? path : std::filesystem::path();
}

}  // namespace steelyard::testing
