// Random-weight GGUF files of real models' shapes: for speed and memory measurements and for tests, where the
// words don't matter. The same options write the same bytes.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

struct SynthShape {
  std::string_view name;          // "llama3.2-1b", "tiny-gemma3"
  std::string_view architecture;  // as in general.architecture
  std::uint32_t embedding, feed_forward, layers, heads, kv_heads, head_dim, vocabulary, context;
  double rope_base;
  bool tied;                 // no output.weight: the head is the token embedding
  std::uint32_t window = 0;  // sliding window, 0 = none
  // A mixture of experts in every layer: how many, how many a row uses, their feed-forward.
  std::uint32_t experts = 0, experts_used = 0, expert_feed_forward = 0;
  std::uint32_t dense_layers = 0;  // the first so many have none
};
std::span<const SynthShape> synth_shapes();

struct SynthOptions {
  std::string shape;            // a name of synth_shapes()
  std::string type = "q4_k_m";  // "q4_k_m" or a DType's name
  std::uint64_t seed = 7;
  // A byte-level BPE vocabulary (256 bytes, three special tokens, fillers up to the shape's size), so that
  // commands on text work; otherwise tokenizer.ggml.model = "none".
  bool vocabulary = false;
  bool chat_template = true;  // with a vocabulary: a template of <|im_start|> and <|im_end|>
  unsigned threads = 2;
  std::function<void(std::uint64_t done, std::uint64_t total)> progress;  // bytes of tensors, may be empty
};

// Throws Error: bad_input for an unknown shape or type (naming the known ones), io when the file can't be
// written; nothing is left behind then.
void write_synthetic_model(const SynthOptions& options, const std::filesystem::path& path);
// Only its header, and a hole instead of the tensors' data: for plans.
void write_synthetic_header(const SynthOptions& options, const std::filesystem::path& path);

}  // namespace steelyard
