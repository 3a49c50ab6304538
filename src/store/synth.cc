#include "store/synth.h"

#include <algorithm>
#include <future>
#include <map>
#include <tuple>
#include <utility>

#include "base/dtype.h"
#include "base/error.h"
#include "gguf/writer.h"
#include "store/synth_blocks.h"
#include "store/synth_model.h"

namespace steelyard {
namespace {

constexpr std::uint64_t kChunkBytes = 8 << 20;

// A run of whole blocks of one tensor, generated on its own.
struct Chunk {
  const SynthTensor* tensor;
  const SynthBlocks* blocks;  // nullptr: the tensor's literal values
  std::uint64_t seed, bytes;

  std::vector<std::byte> data() const {
    std::vector<std::byte> out(bytes);
    if (blocks != nullptr) {
      blocks->fill(out, seed);
    } else {
      std::ranges::copy(std::as_bytes(std::span(tensor->literal)), out.begin());
    }
    return out;
  }
};

// Block generators, one for all tensors of the same type and spread.
class Generators {
 public:
  const SynthBlocks* of(const SynthTensor& t) {
    const auto key = std::make_tuple(t.type, t.mean, t.deviation);
    return &made_.try_emplace(key, t.type, t.mean, t.deviation).first->second;
  }

 private:
  std::map<std::tuple<DType, double, double>, SynthBlocks> made_;
};

std::vector<Chunk> cut(std::span<const SynthTensor> tensors, std::uint64_t seed, Generators& generators) {
  std::vector<Chunk> chunks;
  SynthRandom seeds(seed);
  for (const SynthTensor& tensor : tensors) {
    if (!tensor.literal.empty()) {
      chunks.push_back({&tensor, nullptr, 0, tensor.bytes()});
      continue;
    }
    const std::uint64_t block = dtype_info(tensor.type).block_bytes;
    const std::uint64_t piece = kChunkBytes / block * block;
    for (std::uint64_t left = tensor.bytes(); left > 0;) {
      chunks.push_back({&tensor, generators.of(tensor), seeds.next(), std::min(left, piece)});
      left -= chunks.back().bytes;
    }
  }
  return chunks;
}

}  // namespace

void write_synthetic_model(const SynthOptions& options, const std::filesystem::path& path) {
  const SynthShape& shape = find_synth_shape(options.shape);
  const Mixture mixture = parse_mixture(options.type);
  const std::vector<SynthTensor> tensors = synth_tensors(shape, mixture);
  Generators generators;
  const std::vector<Chunk> chunks = cut(tensors, options.seed, generators);

  GgufWriter writer(path);
  add_synth_metadata(writer, shape, mixture, options);
  for (const SynthTensor& tensor : tensors) writer.add_tensor(tensor.name, tensor.dims, tensor.type);
  // One thread makes the next chunk while this one writes the last.
  const std::launch how = options.threads > 1 ? std::launch::async : std::launch::deferred;
  const auto make = [&](std::size_t i) { return std::async(how, [&chunks, i] { return chunks[i].data(); }); };
  std::future<std::vector<std::byte>> ahead = make(0);
  std::uint64_t done = 0;
  for (std::size_t i = 0; i < chunks.size(); ++i) {
    const std::vector<std::byte> data = ahead.get();
    if (i + 1 < chunks.size()) ahead = make(i + 1);
    writer.write(data);
    done += data.size();
    if (options.progress) options.progress(done, writer.tensor_bytes());
  }
  writer.finish();
}

void write_synthetic_header(const SynthOptions& options, const std::filesystem::path& path) {
  const SynthShape& shape = find_synth_shape(options.shape);
  const Mixture mixture = parse_mixture(options.type);
  GgufWriter writer(path);
  add_synth_metadata(writer, shape, mixture, options);
  for (const SynthTensor& tensor : synth_tensors(shape, mixture))
    writer.add_tensor(tensor.name, tensor.dims, tensor.type);
  writer.finish_with_hole();
}

}  // namespace steelyard
