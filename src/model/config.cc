#include "model/config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <numbers>
#include <optional>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

constexpr std::uint32_t kMaxLayers = 1024;
constexpr std::uint32_t kMaxWidth = 1u << 20;
constexpr std::uint32_t kMaxVocabulary = 1u << 24;

// Reads "<architecture>.<key>" with a range; every message names the whole key.
class Keys {
 public:
  Keys(const GgufFile& file, std::string architecture)
      : file_(file), meta_(file.metadata()), architecture_(std::move(architecture)) {}

  const std::string& architecture() const { return architecture_; }
  const GgufFile& file() const { return file_; }
  std::string key(std::string_view suffix) const { return fmt::format("{}.{}", architecture_, suffix); }

  std::uint32_t count(std::string_view suffix, std::uint32_t max) const {
    const std::string k = key(suffix);
    const auto v = whole(k);
    return in_range(k, v ? *v : meta_.require_uint(k), max);
  }
  std::uint32_t count_or(std::string_view suffix, std::uint32_t max, std::uint32_t fallback) const {
    const std::string k = key(suffix);
    const auto v = whole(k);
    return v ? in_range(k, *v, max) : fallback;
  }
  // 0 means none, and is written so.
  std::uint32_t count_or_none(std::string_view suffix, std::uint32_t max, std::uint32_t fallback) const {
    const auto v = whole(key(suffix));
    return v && *v == 0 ? 0 : count_or(suffix, max, fallback);
  }
  // Within [least, most], which also keeps a double from becoming an infinite float.
  float number_or(std::string_view suffix, float fallback, float least, float most) const {
    const std::string k = key(suffix);
    const auto v = meta_.find_float(k);
    if (v && !(*v >= least && *v <= most))
      throw_error(ErrorKind::bad_input, "{} is {}, but must be {} to {}", k, *v, least, most);
    return v ? static_cast<float>(*v) : fallback;
  }
  bool has(std::string_view suffix) const { return meta_.contains(key(suffix)); }
  std::optional<std::string_view> text(std::string_view suffix) const {
    return meta_.find_string(key(suffix));
  }

  // One number for all layers, or an array with one a layer.
  std::vector<std::uint32_t> per_layer(std::string_view suffix, std::uint32_t n_layers, std::uint32_t max,
                                       std::optional<std::vector<std::uint32_t>> fallback = {}) const {
    const std::string k = key(suffix);
    const GgufEntry* entry = meta_.find(k);
    if (!entry && fallback) return *fallback;
    if (!entry || entry->type() != GgufType::array)
      return std::vector<std::uint32_t>(n_layers, in_range(k, meta_.require_uint(k), max));
    const GgufArray values = meta_.require_array(k);
    if (values.size() < n_layers)
      throw_error(ErrorKind::bad_input, "{} has {} values for {} layers", k, values.size(), n_layers);
    std::vector<std::uint32_t> out(n_layers);
    for (std::uint32_t i = 0; i < n_layers; ++i) out[i] = in_range(k, values.uint_at(i), max);
    return out;
  }

 private:
  // An integer, or an array that says the same of every layer.
  std::optional<std::uint64_t> whole(const std::string& k) const {
    const GgufEntry* entry = meta_.find(k);
    if (!entry || entry->type() != GgufType::array) return meta_.find_uint(k);
    const GgufArray values = meta_.require_array(k);
    for (std::uint64_t i = 0; i < values.size(); ++i)
      if (values.uint_at(i) != values.uint_at(0))
        throw_error(ErrorKind::unsupported, "{} differs from layer to layer, which isn't supported yet", k);
    return values.uint_at(0);
  }

  static std::uint32_t in_range(const std::string& key, std::uint64_t value, std::uint32_t max) {
    if (value == 0 || value > max)
      throw_error(ErrorKind::bad_input, "{} is {}, but must be 1 to {}", key, value, max);
    return static_cast<std::uint32_t>(value);
  }

  const GgufFile& file_;
  const GgufMetadata& meta_;
  std::string architecture_;
};

std::uint32_t vocabulary_size(const Keys& keys) {
  const GgufTensor* table = keys.file().find_tensor("token_embd.weight");
  if (!table)
    throw_error(ErrorKind::bad_input, "the file has no tensor token_embd.weight, so it holds no model");
  if (table->shape.n_dims != 2 || table->shape.rows() > kMaxVocabulary)
    throw_error(ErrorKind::bad_input, "token_embd.weight has shape {}, which is no table of tokens",
                to_string(table->shape));
  return static_cast<std::uint32_t>(table->shape.rows());
}

// What kind of RoPE scaling a file names must come with its numbers: without them answers go wrong only after
// a while, and nobody knows why.
void check_rope_scaling(const Keys& keys) {
  const auto type = keys.text("rope.scaling.type");
  if (!type || *type == "none") return;
  const auto has = [&](const char* tensor) { return keys.file().find_tensor(tensor) != nullptr; };
  const auto lacks = [&](std::string_view what) {
    throw_error(ErrorKind::bad_input, "{} is \"{}\", but the file lacks {}: convert or fetch it again",
                keys.key("rope.scaling.type"), *type, what);
  };
  if (*type == "linear") {
    if (!keys.has("rope.scaling.factor") && !keys.has("rope.scale_linear"))
      lacks(keys.key("rope.scaling.factor"));
  } else if (*type == "longrope" || *type == "su") {
    if (!has("rope_factors_long.weight") || !has("rope_factors_short.weight"))
      lacks("rope_factors_long.weight or rope_factors_short.weight");
  } else if (*type == "llama3") {
    if (!has("rope_freqs.weight")) lacks("rope_freqs.weight");
  } else if (*type == "yarn") {
    if (!keys.has("rope.scaling.factor")) lacks(keys.key("rope.scaling.factor"));
  } else {
    throw_error(ErrorKind::unsupported, "{} is \"{}\": this kind of RoPE scaling isn't supported yet",
                keys.key("rope.scaling.type"), readable(*type));
  }
}

float rope_freq_scale(const Keys& keys) {
  check_rope_scaling(keys);
  constexpr float kLeast = 1e-3f, kMost = 1e4f;
  const auto type = keys.text("rope.scaling.type");
  const float factor = keys.number_or(
      "rope.scaling.factor", keys.number_or("rope.scale_linear", 1.0f, kLeast, kMost), kLeast, kMost);
  return (!type || *type == "linear" || *type == "yarn") ? 1.0f / factor : 1.0f;
}

constexpr float kLeastBase = 1.0f, kMostBase = 1e12f;

// YaRN (arXiv:2309.00071): pairs that turn often within the original context keep their frequency, slow ones
// are stretched, those between blended; cos and sin grow with the factor. Which pairs: by how many turns (32
// and 1 unless the file says otherwise). `whole`: their numbers are rounded outwards, as most models were
// trained.
void read_yarn(const Keys& keys, RopeSpec& rope, std::uint32_t context_train, bool whole) {
  if (keys.text("rope.scaling.type") != "yarn") return;
  const double original = keys.count_or("rope.scaling.original_context_length", 1u << 30, context_train);
  const auto turns = [&](const char* key, float usual) { return keys.number_or(key, usual, 1e-3f, 1e6f); };
  const auto pair = [&](double n) {
    return rope.n_rot * std::log(original / (n * 2 * std::numbers::pi)) / (2 * std::log(double{rope.base}));
  };
  if (rope.base <= 1)
    throw_error(ErrorKind::bad_input, "{} is {}, with which nothing turns", keys.key("rope.freq_base"),
                rope.base);
  double begin = pair(turns("rope.scaling.yarn_beta_fast", 32)),
         end = pair(turns("rope.scaling.yarn_beta_slow", 1));
  if (whole) begin = std::floor(begin), end = std::ceil(end);
  begin = std::clamp(begin, 0.0, rope.n_rot - 1.0), end = std::clamp(end, 0.0, rope.n_rot - 1.0);
  rope.ramp_begin = static_cast<float>(begin);
  rope.ramp_end = static_cast<float>(std::max(end, begin + 0.001));
  // Two measures of the same growth, of which most files say one.
  const float growth = std::max(0.0f, -0.1f * std::log(rope.freq_scale));
  rope.magnitude = keys.number_or("rope.scaling.attn_factor", 1.0f, 0.01f, 100) * (1.0f + growth) /
                   (1.0f + growth * keys.number_or("rope.scaling.yarn_log_multiplier", 0, 0, 100));
}

RopeSpec read_rope(const Keys& keys, const ModelConfig& c, RopeSpec::Pairs pairs) {
  RopeSpec rope{.pairs = pairs,
                .n_rot = keys.count_or("rope.dimension_count", c.head_dim_k, c.head_dim_k),
                .base = keys.number_or("rope.freq_base", 10000.0f, kLeastBase, kMostBase),
                .freq_scale = rope_freq_scale(keys)};
  if (rope.n_rot % 2 != 0)
    throw_error(ErrorKind::bad_input, "{} is {}, but must be even", keys.key("rope.dimension_count"),
                rope.n_rot);
  return rope;
}

constexpr float kMostEpsilon = 0.1f, kMostSoftcap = 1e6f;

float norm_epsilon(const Keys& keys, float fallback) {
  return keys.number_or("attention.layer_norm_rms_epsilon", fallback, 0, kMostEpsilon);
}

// What every family shares. The family's function adds what differs.
ModelConfig read_common(const Keys& keys, RopeSpec::Pairs pairs) {
  ModelConfig c;
  c.architecture = keys.architecture();
  c.name = keys.file().metadata().find_string("general.name").value_or("");
  c.vocab_size = vocabulary_size(keys);
  c.n_embd = keys.count("embedding_length", kMaxWidth);
  c.context_train = keys.count_or("context_length", 1u << 30, 2048);
  const std::uint32_t n_layers = keys.count("block_count", kMaxLayers);
  const auto heads = keys.per_layer("attention.head_count", n_layers, kMaxWidth);
  const auto kv_heads = keys.per_layer("attention.head_count_kv", n_layers, kMaxWidth, heads);
  const auto n_ff = keys.per_layer("feed_forward_length", n_layers, kMaxWidth);
  for (std::uint32_t i = 0; i < n_layers; ++i) {
    if (heads[i] % kv_heads[i] != 0)
      throw_error(ErrorKind::bad_input, "layer {} has {} heads, which its {} KV heads don't divide", i,
                  heads[i], kv_heads[i]);
    c.layers.push_back(
        {.n_heads = heads[i], .n_kv_heads = kv_heads[i], .n_ff = n_ff[i], .window = 0, .rope = 0});
  }
  c.head_dim_k = keys.count_or("attention.key_length", 4096, std::max(1u, c.n_embd / heads[0]));
  c.head_dim_v = keys.count_or("attention.value_length", 4096, std::max(1u, c.n_embd / heads[0]));
  c.norm_eps = norm_epsilon(keys, 1e-5f);
  c.attention_scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim_k));
  c.tied_embedding = keys.file().find_tensor("output.weight") == nullptr;
  c.ropes.push_back(read_rope(keys, c, pairs));
  read_yarn(keys, c.ropes[0], c.context_train, c.architecture != "gpt-oss");
  return c;
}

// Experts in every layer.
void read_experts(const Keys& keys, ModelConfig& c, Scoring scoring, bool renormalise) {
  Routing& r = c.routing;
  r.n_experts = keys.count("expert_count", kMostExperts);
  r.n_used = keys.count("expert_used_count", std::min(r.n_experts, kMostUsedExperts));
  r.scoring = scoring, r.renormalise = renormalise;
  c.n_ff_expert = keys.count_or("expert_feed_forward_length", kMaxWidth, c.layers[0].n_ff);
  for (const std::uint32_t width : {c.n_ff_expert, c.n_embd})
    if (width % kExpertRowUnit != 0)
      throw_error(ErrorKind::unsupported, "experts of {} by {} aren't supported: {} doesn't divide them",
                  c.n_embd, c.n_ff_expert, kExpertRowUnit);
  r.scale = keys.number_or("expert_weights_scale", 1, -1e4f, 1e4f);
  if (r.scale == 0) r.scale = 1;  // as some converters write it
  r.n_groups = std::max(1u, keys.count_or_none("expert_group_count", r.n_experts, 1));
  r.n_groups_used = keys.count_or_none("expert_group_used_count", r.n_groups, 0);
  if (r.n_groups_used == 0) r.n_groups_used = r.n_groups;
  if (r.n_experts % r.n_groups != 0 || r.n_used > r.n_experts / r.n_groups * r.n_groups_used)
    throw_error(ErrorKind::bad_input, "{} experts in {} groups, {} of which count, leave no choice of {}",
                r.n_experts, r.n_groups, r.n_groups_used, r.n_used);
  const std::uint32_t shared = keys.count_or_none("expert_shared_count", kMostExperts, 0);
  if (keys.has("expert_shared_feed_forward_length") || shared > 0)
    c.n_ff_shared =
        keys.count_or_none("expert_shared_feed_forward_length", kMaxWidth, shared * c.n_ff_expert);
  c.dense_layers = keys.count_or_none("leading_dense_block_count", kMaxLayers, 0);
}

// Mixtral's files are llama's, with experts.
ModelConfig read_llama(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::adjacent);
  if (keys.file().metadata().find_uint(keys.key("expert_count")).value_or(0) > 0)
    read_experts(keys, c, Scoring::softmax, true);
  return c;
}

ModelConfig read_qwen2(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::halves);
  c.qkv_bias = true;
  return c;
}

ModelConfig read_qwen3(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::halves);
  c.qk_norm = true;
  return c;
}

ModelConfig read_qwen3moe(const Keys& keys) {
  ModelConfig c = read_qwen3(keys);
  read_experts(keys, c, Scoring::softmax, true);
  return c;
}

ModelConfig read_gpt_oss(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::halves);
  read_experts(keys, c, Scoring::softmax_of_chosen, false);
  c.activation = Activation::clamped_swiglu;
  c.qkv_bias = c.sinks = true;
  const std::uint32_t window = keys.count("attention.sliding_window", 1u << 30);
  for (std::size_t i = 0; i < c.layers.size(); i += 2) c.layers[i].window = window;
  return c;
}

// Granite scales the embedding, every branch before it is added, attention, and the logits (downwards).
// Branches stay as they are here and the rest of the sum is divided by their scale instead: a norm doesn't
// see it, but for its epsilon.
ModelConfig read_granite(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::adjacent);
  constexpr float kLeast = 1e-4f, kMost = 1e4f;
  const float branch = keys.number_or("residual_scale", 1, kLeast, kMost);
  c.embedding_scale = keys.number_or("embedding_scale", 1, kLeast, kMost) / branch;
  c.norm_eps /= branch * branch;
  c.attention_scale = keys.number_or("attention.scale", c.attention_scale, 1e-6f, kMost);
  c.logit_scale = 1 / keys.number_or("logit_scale", 1, kLeast, kMost);
  return c;
}

ModelConfig read_granitemoe(const Keys& keys) {
  ModelConfig c = read_granite(keys);
  read_experts(keys, c, Scoring::softmax_of_chosen, false);
  return c;
}

// Every fourth layer knows nothing of positions.
ModelConfig read_smollm3(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::adjacent);
  for (std::size_t i = 3; i < c.layers.size(); i += 4) c.layers[i].rope = -1;
  return c;
}

// Ministral 3: llama's, stretched by YaRN, with a temperature of attention that grows with the position.
ModelConfig read_mistral3(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::adjacent);
  if (keys.file().metadata().find_uint(keys.key("expert_count")).value_or(0) > 0)
    read_experts(keys, c, Scoring::softmax, true);
  c.q_growth = keys.number_or("attention.temperature_scale", 0, 0, 100);
  c.q_growth_from =
      keys.count_or("attention.temperature_length", 1u << 30,
                    keys.count_or("rope.scaling.original_context_length", 1u << 30, c.context_train));
  return c;
}

// GLM-4.5: sigmoids with a bias of the choice, a shared expert, dense layers first and a drafting layer last.
ModelConfig read_glm4moe(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::halves);
  c.draft_layers =
      keys.count_or_none("nextn_predict_layers", static_cast<std::uint32_t>(c.layers.size()) - 1, 0);
  c.layers.resize(c.layers.size() - c.draft_layers);
  c.qk_norm = keys.file().find_tensor("blk.0.attn_q_norm.weight") != nullptr;
  const GgufMetadata& meta = keys.file().metadata();
  constexpr std::uint64_t kSigmoid = 2;
  if (meta.find_uint(keys.key("expert_gating_func")).value_or(kSigmoid) != kSigmoid)
    throw_error(ErrorKind::unsupported,
                "{} is another than sigmoid, which isn't supported in this architecture",
                keys.key("expert_gating_func"));
  read_experts(keys, c, Scoring::sigmoid, meta.find_bool(keys.key("expert_weights_norm")).value_or(true));
  return c;
}

ModelConfig read_glm4(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::adjacent);
  c.post_norms = true;
  c.fused_gate_up = true;
  return c;
}

// Attention scaling of the long factors (LongRoPE, arXiv:2402.13753): sqrt(1 + ln(L / L0) / ln(L0)).
float longrope_magnitude(double context_train, double context_original) {
  if (context_train <= context_original || context_original <= 1) return 1.0f;
  return static_cast<float>(
      std::sqrt(1.0 + std::log(context_train / context_original) / std::log(context_original)));
}

ModelConfig read_phi3(const Keys& keys) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::halves);
  c.fused_qkv = true;
  c.fused_gate_up = true;
  c.rope_original_context = keys.count_or("rope.scaling.original_context_length", 1u << 30, c.context_train);
  const bool scaled = keys.file().find_tensor("rope_factors_long.weight") != nullptr;
  if (!scaled && c.rope_original_context < c.context_train)
    throw_error(
        ErrorKind::bad_input,
        "{} is {} of {} tokens, but the file lacks rope_factors_long.weight: convert or fetch it again",
        keys.key("rope.scaling.original_context_length"), c.rope_original_context, c.context_train);
  c.ropes[0].magnitude = keys.number_or(
      "rope.scaling.attn_factor",
      scaled ? longrope_magnitude(c.context_train, c.rope_original_context) : 1.0f, 0.01f, 100);
  // Phi-3-mini-4k's first files say nothing of its window, which the published configuration has; a window of
  // 0 is Phi-4's way to say none.
  const std::uint32_t unsaid = c.context_train == 4096 ? 2047 : 0;
  const std::uint32_t window = keys.count_or_none("attention.sliding_window", 1u << 30, unsaid);
  // A window as long as the training context cuts nothing off.
  if (window < c.context_train)
    for (auto& layer : c.layers) layer.window = window;
  return c;
}

// Both gemmas; gemma-2-27b and gemma-3-27b divide by the embedding's share of a head instead of the head's
// width.
ModelConfig read_gemma(const Keys& keys, std::uint32_t layers_of_27b) {
  ModelConfig c = read_common(keys, RopeSpec::Pairs::halves);
  c.norm_eps = norm_epsilon(keys, 1e-6f);
  c.embedding_scale = std::sqrt(static_cast<float>(c.n_embd));
  c.activation = Activation::gelu_tanh;
  c.post_norms = true;
  if (c.layers.size() == layers_of_27b && c.layers[0].n_heads > 0)
    c.attention_scale =
        1.0f / std::sqrt(static_cast<float>(c.n_embd) / static_cast<float>(c.layers[0].n_heads));
  return c;
}

ModelConfig read_gemma2(const Keys& keys) {
  ModelConfig c = read_gemma(keys, 46);
  c.attention_softcap = keys.number_or("attn_logit_softcapping", 50.0f, 0, kMostSoftcap);
  c.final_softcap = keys.number_or("final_logit_softcapping", 30.0f, 0, kMostSoftcap);
  const std::uint32_t window = keys.count_or_none("attention.sliding_window", 1u << 30, 4096);
  for (std::size_t i = 0; i < c.layers.size(); i += 2) c.layers[i].window = window;
  return c;
}

// Which layers see a window: every one but each sixth (or as the file says), or an array with one word a
// layer, as Ollama's own files have it.
std::vector<bool> gemma3_local_layers(const Keys& keys, std::size_t n_layers) {
  constexpr std::string_view kKey = "attention.sliding_window_pattern";
  std::vector<bool> local(n_layers);
  const GgufMetadata& meta = keys.file().metadata();
  const GgufEntry* entry = meta.find(keys.key(kKey));
  if (!entry || entry->type() != GgufType::array) {
    const std::uint32_t pattern = keys.count_or(kKey, kMaxLayers, 6);
    for (std::size_t i = 0; i < n_layers; ++i) local[i] = i % pattern != pattern - 1;
    return local;
  }
  const GgufArray words = meta.require_array(keys.key(kKey));
  if (words.size() < n_layers)
    throw_error(ErrorKind::bad_input, "{} has {} values for {} layers", keys.key(kKey), words.size(),
                n_layers);
  for (std::size_t i = 0; i < n_layers; ++i)
    local[i] = words.is_integer() ? words.int_at(i) != 0 : words.bool_at(i);
  return local;
}

ModelConfig read_gemma3(const Keys& keys) {
  ModelConfig c = read_gemma(keys, 62);
  c.qk_norm = true;
  c.final_softcap = keys.number_or("final_logit_softcapping", 0.0f, 0, kMostSoftcap);
  const std::uint32_t window = keys.count_or_none("attention.sliding_window", 1u << 30, 0);
  // Files of Ollama's leave both bases out and mean the published ones.
  c.ropes[0].base = keys.number_or("rope.freq_base", 1e6f, kLeastBase, kMostBase);
  RopeSpec local = c.ropes[0];
  local.base = keys.number_or("rope.local.freq_base", 10000.0f, kLeastBase, kMostBase);
  local.freq_scale = 1.0f;
  c.ropes.push_back(local);
  const std::vector<bool> is_local = gemma3_local_layers(keys, c.layers.size());
  for (std::size_t i = 0; i < c.layers.size(); ++i) {
    if (!is_local[i]) continue;
    c.layers[i].rope = 1;
    c.layers[i].window = window;
  }
  return c;
}

using Reader = ModelConfig (*)(const Keys&);
const std::map<std::string, Reader, std::less<>>& readers() {
  static const std::map<std::string, Reader, std::less<>> table = {
      {"llama", read_llama},           {"qwen2", read_qwen2},       {"qwen3", read_qwen3},
      {"qwen3moe", read_qwen3moe},     {"phi3", read_phi3},         {"gemma2", read_gemma2},
      {"gemma3", read_gemma3},         {"gpt-oss", read_gpt_oss},   {"granite", read_granite},
      {"granitemoe", read_granitemoe}, {"smollm3", read_smollm3},   {"glm4", read_glm4},
      {"glm4moe", read_glm4moe},       {"mistral3", read_mistral3},
  };
  return table;
}

void check_config(const ModelConfig& c) {
  if (c.head_dim_k % 2 != 0 || c.head_dim_v % 2 != 0)
    throw_error(ErrorKind::unsupported, "heads of {} and {} elements aren't supported; widths must be even",
                c.head_dim_k, c.head_dim_v);
}

}  // namespace

std::vector<std::string> known_architectures() {
  std::vector<std::string> names;
  for (const auto& [name, reader] : readers()) names.push_back(name);
  return names;
}

ModelConfig read_config(const GgufFile& file) {
  const std::string architecture(file.metadata().require_string("general.architecture"));
  const auto reader = readers().find(architecture);
  if (reader == readers().end())
    throw_error(ErrorKind::unsupported, "the architecture \"{}\" isn't supported; Steelyard runs {}",
                readable(architecture), fmt::join(known_architectures(), ", "));
  ModelConfig config = reader->second(Keys(file, architecture));
  check_config(config);
  return config;
}

}  // namespace steelyard
