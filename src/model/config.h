// A model's architecture as data, read from a file's metadata. Immutable values; every number is checked
// here, so that the readers need not.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gguf/gguf.h"
#include "program/program.h"

namespace steelyard {

struct LayerConfig {
  std::uint32_t n_heads;
  std::uint32_t n_kv_heads;
  std::uint32_t n_ff;
  std::uint32_t window;  // 0: full attention
  std::int16_t rope;     // index into ModelConfig::ropes
};

struct ModelConfig {
  std::string architecture;  // general.architecture
  std::string name;          // general.name, may be empty
  std::uint32_t n_embd = 0;
  std::uint32_t vocab_size = 0;
  std::uint32_t context_train = 0;  // tokens the model was trained for
  std::uint32_t head_dim_k = 0;
  std::uint32_t head_dim_v = 0;
  float norm_eps = 0;
  float embedding_scale = 1;
  float attention_scale = 0;
  float attention_softcap = 0;
  float q_growth = 0;  // RopeAppendOp
  std::uint32_t q_growth_from = 1;
  float logit_scale = 1;
  float final_softcap = 0;
  Activation activation = Activation::silu;
  bool qkv_bias = false;
  bool qk_norm = false;
  bool post_norms = false;  // norms on the branches, before the residual (gemma)
  bool fused_qkv = false;
  bool fused_gate_up = false;
  bool tied_embedding = false;
  bool sinks = false;
  // A mixture of experts instead of the one feed-forward; n_experts 0: none. Biases where the file has them.
  Routing routing;
  std::uint32_t n_ff_expert = 0;
  std::uint32_t n_ff_shared = 0;   // of the experts that every token uses, as one; 0: none
  std::uint32_t dense_layers = 0;  // the first so many have a feed-forward instead
  std::uint32_t draft_layers = 0;  // layers of the file behind the model's, which draft further tokens
  std::uint32_t rope_original_context = 0;  // phi3: up to it the short factors apply
  std::vector<RopeSpec> ropes;              // factors are filled in by write_forward
  std::vector<LayerConfig> layers;
};

// Throws Error(unsupported) naming an unknown architecture, Error(bad_input) naming the key that is missing
// or out of range.
ModelConfig read_config(const GgufFile& file);

// The architectures read_config knows.
std::vector<std::string> known_architectures();

}  // namespace steelyard
