#include "store/synth_model.h"

#include <fmt/ranges.h>

#include <array>
#include <cmath>
#include <numbers>

#include "base/error.h"

namespace steelyard {
namespace {

// Published configurations; "tiny-…" are made up, small enough for tests and of widths that every type
// divides.
constexpr std::array kShapes = {
    // name, architecture, embedding, feed_forward, layers, heads, kv, head, vocabulary, context, rope base,
    // tied, window, experts, used, their feed-forward, dense layers
    SynthShape{"llama3.1-70b", "llama", 8192, 28672, 80, 64, 8, 128, 128256, 131072, 5e5, false},
    SynthShape{"llama3.1-8b", "llama", 4096, 14336, 32, 32, 8, 128, 128256, 131072, 5e5, false},
    SynthShape{"llama3.2-3b", "llama", 3072, 8192, 28, 24, 8, 128, 128256, 131072, 5e5, true},
    SynthShape{"llama3.2-1b", "llama", 2048, 8192, 16, 32, 8, 64, 128256, 131072, 5e5, true},
    SynthShape{"mistral-7b", "llama", 4096, 14336, 32, 32, 8, 128, 32768, 32768, 1e6, false},
    SynthShape{"smollm2-135m", "llama", 576, 1536, 30, 9, 3, 64, 49152, 8192, 1e5, true},
    SynthShape{"qwen2.5-32b", "qwen2", 5120, 27648, 64, 40, 8, 128, 152064, 32768, 1e6, false},
    SynthShape{"qwen2.5-7b", "qwen2", 3584, 18944, 28, 28, 4, 128, 152064, 32768, 1e6, false},
    SynthShape{"qwen2.5-0.5b", "qwen2", 896, 4864, 24, 14, 2, 64, 151936, 32768, 1e6, true},
    SynthShape{"qwen3-8b", "qwen3", 4096, 12288, 36, 32, 8, 128, 151936, 40960, 1e6, false},
    SynthShape{"qwen3-0.6b", "qwen3", 1024, 3072, 28, 16, 8, 128, 151936, 40960, 1e6, true},
    SynthShape{"gemma3-270m", "gemma3", 640, 2048, 18, 4, 1, 256, 262144, 32768, 1e6, true, 512},
    SynthShape{"gemma3-1b", "gemma3", 1152, 6912, 26, 4, 1, 256, 262144, 32768, 1e6, true, 512},
    SynthShape{"gemma2-2b", "gemma2", 2304, 9216, 26, 8, 4, 256, 256000, 8192, 1e4, true, 4096},
    SynthShape{"phi3-mini", "phi3", 3072, 8192, 32, 32, 32, 96, 32064, 131072, 1e4, false, 262144},
    SynthShape{"qwen3-30b-a3b", "qwen3moe", 2048, 6144, 48, 32, 4, 128, 151936, 40960, 1e6, false, 0, 128, 8,
               768},
    SynthShape{"gpt-oss-20b", "gpt-oss", 2880, 2880, 24, 64, 8, 64, 201088, 131072, 1.5e5, false, 128, 32, 4,
               2880},
    SynthShape{"mixtral-8x7b", "llama", 4096, 14336, 32, 32, 8, 128, 32000, 32768, 1e6, false, 0, 8, 2,
               14336},
    SynthShape{"granite3.3-8b", "granite", 4096, 12800, 40, 32, 8, 128, 49159, 131072, 1e7, true},
    SynthShape{"granite3.1-moe-3b", "granitemoe", 1536, 512, 32, 24, 8, 64, 49155, 131072, 1e7, true, 0, 40,
               8, 512},
    SynthShape{"smollm3-3b", "smollm3", 2048, 11008, 36, 16, 4, 128, 128256, 65536, 5e6, true},
    SynthShape{"ministral3-8b", "mistral3", 4096, 14336, 34, 32, 8, 128, 131072, 262144, 1e6, false},
    SynthShape{"glm4.5-air", "glm4moe", 4096, 10944, 46, 96, 8, 128, 151552, 131072, 1e6, false, 0, 128, 8,
               1408, 1},
    SynthShape{"glm4-9b", "glm4", 4096, 13696, 40, 32, 2, 128, 151552, 32768, 1e4, false},
    SynthShape{"tiny-llama", "llama", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e4, false},
    SynthShape{"tiny-qwen2", "qwen2", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e6, true},
    SynthShape{"tiny-qwen3", "qwen3", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e6, true},
    SynthShape{"tiny-gemma2", "gemma2", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e4, true, 64},
    SynthShape{"tiny-gemma3", "gemma3", 256, 512, 7, 4, 1, 64, 1024, 4096, 1e6, true, 64},
    SynthShape{"tiny-qwen3moe", "qwen3moe", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e6, true, 0, 16, 4, 256},
    SynthShape{"tiny-mixtral", "llama", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e6, false, 0, 8, 2, 512},
    SynthShape{"tiny-gpt-oss", "gpt-oss", 256, 256, 4, 4, 2, 64, 1024, 131072, 1.5e5, false, 64, 8, 4, 256},
    SynthShape{"tiny-granite", "granite", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e4, true},
    SynthShape{"tiny-granitemoe", "granitemoe", 256, 256, 4, 4, 2, 64, 1024, 4096, 1e4, true, 0, 8, 2, 256},
    SynthShape{"tiny-smollm3", "smollm3", 256, 512, 4, 4, 2, 64, 1024, 4096, 5e6, true},
    SynthShape{"tiny-mistral3", "mistral3", 256, 512, 4, 4, 2, 64, 1024, 262144, 1e6, true},
    SynthShape{"tiny-glm4moe", "glm4moe", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e6, false, 0, 16, 4, 256, 1},
    SynthShape{"tiny-glm4", "glm4", 256, 512, 4, 4, 2, 64, 1024, 4096, 1e4, false},
    SynthShape{"tiny-phi3", "phi3", 256, 512, 4, 4, 4, 64, 1024, 16384, 1e4, false, 262144},
};
constexpr std::uint32_t kPhi3OriginalContext = 4096;

bool is_gemma(const SynthShape& s) { return s.architecture == "gemma2" || s.architecture == "gemma3"; }
bool is_granite(const SynthShape& s) { return s.architecture.starts_with("granite"); }
bool has_post_norms(const SynthShape& s) { return is_gemma(s) || s.architecture == "glm4"; }

// Appends tensors with the deviations that keep activations in the usual range.
class TensorList {
 public:
  TensorList(const SynthShape& shape, const Mixture& mixture) : shape_(shape), mixture_(mixture) {}

  void matrix(std::string name, std::uint64_t columns, std::uint64_t rows, std::uint32_t layer = 0) {
    TensorPlace place{name, layer, shape_.layers, columns, true, shape_.tied};
    place.experts = shape_.experts;
    add_matrix(std::move(name), {columns, rows}, tensor_type(mixture_, place));
  }
  // Of all experts; gpt-oss' are MXFP4 as published, whatever the others are.
  void experts(std::string name, std::uint64_t columns, std::uint64_t rows, std::uint32_t layer) {
    TensorPlace place{name, layer, shape_.layers, columns, true, shape_.tied};
    place.experts = shape_.experts;
    const bool mxfp4 = shape_.architecture == "gpt-oss";
    add_matrix(std::move(name), {columns, rows, shape_.experts},
               mxfp4 ? DType::MXFP4 : tensor_type(mixture_, place));
  }
  void router(std::string name, std::uint64_t columns) {
    add_matrix(std::move(name), {columns, shape_.experts}, DType::F32);
  }
  void biases(std::string name, std::uint64_t size) {  // of all experts
    out.push_back({std::move(name), {size, shape_.experts}, DType::F32, 0, 0.1, {}});
  }
  void norm(std::string name, std::uint64_t size) {
    out.push_back({std::move(name), {size}, DType::F32, 1, 0.05, {}});
  }
  void bias(std::string name, std::uint64_t size) {
    out.push_back({std::move(name), {size}, DType::F32, 0, 0.1, {}});
  }
  void literal(std::string name, std::vector<float> values) {
    out.push_back({std::move(name), {values.size()}, DType::F32, 0, 0, std::move(values)});
  }

  std::vector<SynthTensor> out;

 private:
  void add_matrix(std::string name, std::vector<std::uint64_t> dims, DType type) {
    const double deviation = 1 / std::sqrt(static_cast<double>(dims[0]));
    out.push_back({std::move(name), std::move(dims), type, 0, deviation, {}});
  }

  const SynthShape& shape_;
  const Mixture& mixture_;
};

// Frequency factors of Llama 3.1 and later: long wavelengths are stretched by `factor`, short ones kept,
// those between 8192/4 and 8192 positions blended.
std::vector<float> llama3_factors(const SynthShape& s, double factor) {
  std::vector<float> factors(s.head_dim / 2);
  for (std::size_t i = 0; i < factors.size(); ++i) {
    const double exponent = 2.0 * static_cast<double>(i) / s.head_dim;
    const double wavelength = 2 * std::numbers::pi * std::pow(s.rope_base, exponent);
    const double smooth = std::clamp((8192 / wavelength - 1) / 3, 0.0, 1.0);
    factors[i] = static_cast<float>(1 / ((1 - smooth) / factor + smooth));
  }
  return factors;
}

// Made up, of the published ones' size: short near 1, long growing to 60.
std::vector<float> phi3_factors(const SynthShape& s, double most) {
  std::vector<float> factors(s.head_dim / 2);
  for (std::size_t i = 0; i < factors.size(); ++i)
    factors[i] = static_cast<float>(1 + (most - 1) * static_cast<double>(i * i) /
                                            static_cast<double>(factors.size() * factors.size()));
  return factors;
}

void add_rope_factors(TensorList& list, const SynthShape& s) {
  if (s.architecture == "phi3") {
    list.literal("rope_factors_long.weight", phi3_factors(s, 60));
    list.literal("rope_factors_short.weight", phi3_factors(s, 2));
  } else if (s.name.starts_with("llama3")) {
    list.literal("rope_freqs.weight", llama3_factors(s, s.name.starts_with("llama3.2") ? 32 : 8));
  }
}

void add_attention(TensorList& list, const SynthShape& s, std::uint32_t i, const std::string& p) {
  const std::uint64_t q = std::uint64_t{s.heads} * s.head_dim, kv = std::uint64_t{s.kv_heads} * s.head_dim;
  list.norm(p + "attn_norm.weight", s.embedding);
  if (s.architecture == "phi3") {
    list.matrix(p + "attn_qkv.weight", s.embedding, q + 2 * kv, i);
  } else {
    list.matrix(p + "attn_q.weight", s.embedding, q, i);
    list.matrix(p + "attn_k.weight", s.embedding, kv, i);
    list.matrix(p + "attn_v.weight", s.embedding, kv, i);
  }
  const bool oss = s.architecture == "gpt-oss";
  if (s.architecture == "qwen2" || s.architecture.starts_with("glm4") || oss) {
    list.bias(p + "attn_q.bias", q);
    list.bias(p + "attn_k.bias", kv);
    list.bias(p + "attn_v.bias", kv);
  }
  if (s.architecture.starts_with("qwen3") || s.architecture == "gemma3") {
    list.norm(p + "attn_q_norm.weight", s.head_dim);
    list.norm(p + "attn_k_norm.weight", s.head_dim);
  }
  list.matrix(p + "attn_output.weight", q, s.embedding, i);
  if (oss) {
    list.bias(p + "attn_output.bias", s.embedding);
    list.bias(p + "attn_sinks.weight", s.heads);
  }
  if (has_post_norms(s)) list.norm(p + "post_attention_norm.weight", s.embedding);
}

std::string ffn_norm_name(const SynthShape& s) {
  const bool after = s.architecture == "gpt-oss" || s.architecture == "glm4moe";
  return after ? "post_attention_norm.weight" : "ffn_norm.weight";
}

void add_experts(TensorList& list, const SynthShape& s, std::uint32_t i, const std::string& p) {
  const bool oss = s.architecture == "gpt-oss";
  list.norm(p + ffn_norm_name(s), s.embedding);
  list.router(p + "ffn_gate_inp.weight", s.embedding);
  list.experts(p + "ffn_gate_exps.weight", s.embedding, s.expert_feed_forward, i);
  list.experts(p + "ffn_up_exps.weight", s.embedding, s.expert_feed_forward, i);
  list.experts(p + "ffn_down_exps.weight", s.expert_feed_forward, s.embedding, i);
  if (s.architecture == "glm4moe") {
    list.bias(p + "exp_probs_b.bias", s.experts);
    list.matrix(p + "ffn_gate_shexp.weight", s.embedding, s.expert_feed_forward, i);
    list.matrix(p + "ffn_up_shexp.weight", s.embedding, s.expert_feed_forward, i);
    list.matrix(p + "ffn_down_shexp.weight", s.expert_feed_forward, s.embedding, i);
  }
  if (!oss) return;
  list.bias(p + "ffn_gate_inp.bias", s.experts);
  list.biases(p + "ffn_gate_exps.bias", s.expert_feed_forward);
  list.biases(p + "ffn_up_exps.bias", s.expert_feed_forward);
  list.biases(p + "ffn_down_exps.bias", s.embedding);
}

void add_feed_forward(TensorList& list, const SynthShape& s, std::uint32_t i, const std::string& p) {
  if (s.experts > 0 && i >= s.dense_layers) return add_experts(list, s, i, p);
  list.norm(p + ffn_norm_name(s), s.embedding);
  if (s.architecture == "phi3" || s.architecture == "glm4") {
    list.matrix(p + "ffn_up.weight", s.embedding, 2ull * s.feed_forward, i);
  } else {
    list.matrix(p + "ffn_gate.weight", s.embedding, s.feed_forward, i);
    list.matrix(p + "ffn_up.weight", s.embedding, s.feed_forward, i);
  }
  list.matrix(p + "ffn_down.weight", s.feed_forward, s.embedding, i);
  if (has_post_norms(s)) list.norm(p + "post_ffw_norm.weight", s.embedding);
}

void add_family_keys(GgufWriter& w, const SynthShape& s, const std::string& arch) {
  if (s.window != 0) w.add_u32(arch + "attention.sliding_window", s.window);
  if (s.experts != 0) {
    w.add_u32(arch + "expert_count", s.experts);
    w.add_u32(arch + "expert_used_count", s.experts_used);
    w.add_u32(arch + "expert_feed_forward_length", s.expert_feed_forward);
  }
  if (s.architecture == "glm4moe") {
    w.add_u32(arch + "expert_shared_count", 1);
    w.add_u32(arch + "expert_gating_func", 2);
    w.add_bool(arch + "expert_weights_norm", true);
    w.add_u32(arch + "leading_dense_block_count", s.dense_layers);
  }
  if (s.architecture == "gpt-oss") {
    w.add_string(arch + "rope.scaling.type", "yarn");
    w.add_f32(arch + "rope.scaling.factor", 32);
    w.add_u32(arch + "rope.scaling.original_context_length", 4096);
  }
  if (s.architecture == "mistral3") {
    w.add_string(arch + "rope.scaling.type", "yarn");
    w.add_f32(arch + "rope.scaling.factor", 16);
    w.add_u32(arch + "rope.scaling.original_context_length", 16384);
    w.add_f32(arch + "rope.scaling.yarn_log_multiplier", 1);
    w.add_f32(arch + "attention.temperature_scale", 0.1f);
  }
  if (is_granite(s)) {  // as 3.3-8b has them
    w.add_f32(arch + "embedding_scale", 12);
    w.add_f32(arch + "residual_scale", 0.22f);
    w.add_f32(arch + "attention.scale", 1.0f / static_cast<float>(s.head_dim));
    w.add_f32(arch + "logit_scale", 16);
  }
  if (s.architecture == "gemma2") {
    w.add_f32(arch + "attn_logit_softcapping", 50);
    w.add_f32(arch + "final_logit_softcapping", 30);
  }
  if (s.architecture == "phi3") {
    w.add_u32(arch + "rope.scaling.original_context_length", kPhi3OriginalContext);
    const double original = kPhi3OriginalContext;
    w.add_f32(arch + "rope.scaling.attn_factor",
              static_cast<float>(std::sqrt(1 + std::log(s.context / original) / std::log(original))));
  }
}

void append_utf8(std::string& out, std::uint32_t c) {  // below 0x800
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else {
    out += static_cast<char>(0xc0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 0x3f));
  }
}

// The letters that byte-level BPE writes for bytes: printable Latin-1 stands for itself, the rest for U+0100
// on.
std::vector<std::string> byte_letters() {
  std::vector<std::string> letters(256);
  std::uint32_t next = 256;
  for (std::uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b <= 0xac) || b >= 0xae;
    append_utf8(letters[b], printable ? b : next++);
  }
  return letters;
}

constexpr std::string_view kChatTemplate =
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

void add_vocabulary(GgufWriter& w, std::uint32_t size) {
  constexpr std::int32_t kNormal = 1, kControl = 3, kUnused = 5;
  std::vector<std::string> tokens = byte_letters();
  std::vector<std::int32_t> types(256, kNormal);
  for (const char* special : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"}) {
    tokens.emplace_back(special);
    types.push_back(kControl);
  }
  // One merge, so that the list isn't empty: a double space.
  const std::string space = tokens[' '];
  tokens.push_back(space + space);
  types.push_back(kNormal);
  const std::vector<std::string> merges = {space + " " + space};
  for (std::size_t i = tokens.size(); i < size; ++i) tokens.push_back(fmt::format("<unused{}>", i));
  types.resize(tokens.size(), kUnused);
  w.add_string("tokenizer.ggml.model", "gpt2");
  w.add_string("tokenizer.ggml.pre", "gpt-2");
  w.add_array("tokenizer.ggml.tokens", std::span<const std::string>(tokens));
  w.add_array("tokenizer.ggml.token_type", std::span<const std::int32_t>(types));
  w.add_array("tokenizer.ggml.merges", std::span<const std::string>(merges));
  w.add_u32("tokenizer.ggml.bos_token_id", 256);
  w.add_u32("tokenizer.ggml.eos_token_id", 258);
  w.add_bool("tokenizer.ggml.add_bos_token", false);
}

}  // namespace

std::span<const SynthShape> synth_shapes() { return kShapes; }

std::uint64_t SynthTensor::bytes() const {
  std::uint64_t elements = 1;
  for (const std::uint64_t size : dims) elements *= size;
  return row_bytes(type, elements);
}

const SynthShape& find_synth_shape(std::string_view name) {
  std::vector<std::string_view> names;
  for (const SynthShape& shape : kShapes) {
    if (shape.name == name) return shape;
    names.push_back(shape.name);
  }
  throw_error(ErrorKind::bad_input, "there is no shape '{}'; known are {}", name, fmt::join(names, ", "));
}

std::vector<SynthTensor> synth_tensors(const SynthShape& s, const Mixture& mixture) {
  TensorList list(s, mixture);
  list.matrix("token_embd.weight", s.embedding, s.vocabulary);
  list.norm("output_norm.weight", s.embedding);
  if (!s.tied) list.matrix("output.weight", s.embedding, s.vocabulary);
  add_rope_factors(list, s);
  for (std::uint32_t i = 0; i < s.layers; ++i) {
    const std::string p = fmt::format("blk.{}.", i);
    add_attention(list, s, i, p);
    add_feed_forward(list, s, i, p);
  }
  return std::move(list.out);
}

void add_synth_metadata(GgufWriter& w, const SynthShape& s, const Mixture& mixture,
                        const SynthOptions& options) {
  const std::string arch = std::string(s.architecture) + ".";
  w.add_string("general.architecture", s.architecture);
  w.add_string("general.type", "model");
  w.add_string("general.name", fmt::format("synthetic {}", s.name));
  w.add_u32("general.file_type", mixture_file_type(mixture));
  w.add_u32(arch + "block_count", s.layers);
  w.add_u32(arch + "context_length", s.context);
  w.add_u32(arch + "embedding_length", s.embedding);
  w.add_u32(arch + "feed_forward_length", s.feed_forward);
  w.add_u32(arch + "attention.head_count", s.heads);
  w.add_u32(arch + "attention.head_count_kv", s.kv_heads);
  w.add_u32(arch + "attention.key_length", s.head_dim);
  w.add_u32(arch + "attention.value_length", s.head_dim);
  w.add_u32(arch + "rope.dimension_count", s.architecture.starts_with("glm4") ? s.head_dim / 2 : s.head_dim);
  w.add_f32(arch + "rope.freq_base", static_cast<float>(s.rope_base));
  w.add_f32(arch + "attention.layer_norm_rms_epsilon", s.architecture == "llama" ? 1e-5f : 1e-6f);
  w.add_u32(arch + "vocab_size", s.vocabulary);
  add_family_keys(w, s, arch);
  if (options.vocabulary) {
    add_vocabulary(w, s.vocabulary);
    if (options.chat_template) w.add_string("tokenizer.chat_template", kChatTemplate);
  } else {
    w.add_string("tokenizer.ggml.model", "none");
  }
}

}  // namespace steelyard
