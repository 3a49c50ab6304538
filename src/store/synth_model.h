// What a synthetic model's file holds: tensors and metadata, per architecture. Internal to store/.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "gguf/writer.h"
#include "store/mixture.h"
#include "store/synth.h"

namespace steelyard {

struct SynthTensor {
  std::string name;
  std::vector<std::uint64_t> dims;  // fastest first
  DType type;
  double mean, deviation;      // of the random weights
  std::vector<float> literal;  // F32 values that aren't random: RoPE factors

  std::uint64_t bytes() const;
};

const SynthShape& find_synth_shape(std::string_view name);  // Error bad_input names the known ones
std::vector<SynthTensor> synth_tensors(const SynthShape& shape, const Mixture& mixture);
void add_synth_metadata(GgufWriter& writer, const SynthShape& shape, const Mixture& mixture,
                        const SynthOptions& options);

}  // namespace steelyard
