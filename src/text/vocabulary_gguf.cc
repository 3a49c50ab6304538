// Reading the tokenizer.ggml.* keys of a file.
#include <limits>

#include "base/error.h"
#include "gguf/gguf.h"
#include "text/vocabulary.h"

namespace steelyard {

namespace {

std::vector<std::string_view> strings_of(const GgufMetadata& metadata, const char* key) {
  auto array = metadata.find_array(key);
  if (!array) return {};
  return array->strings();
}

std::vector<std::int32_t> types_of(const GgufMetadata& metadata, const char* key) {
  auto array = metadata.find_array(key);
  if (!array) return {};
  std::vector<std::int32_t> types;
  types.reserve(array->size());
  for (std::int64_t type : array->ints())
    types.push_back(type < 0 || type > 6 ? -1 : static_cast<std::int32_t>(type));
  return types;
}

// Some converters write −1 for "none", signed or not.
std::optional<std::int64_t> id_or_none(const GgufMetadata& metadata, const char* key) {
  const auto id = metadata.find_int(key);
  return id && *id == std::numeric_limits<std::uint32_t>::max() ? kNoToken : id;
}

// For those whose absence means the same.
std::optional<std::int64_t> optional_id(const GgufMetadata& metadata, const char* key) {
  const auto id = id_or_none(metadata, key);
  return id == kNoToken ? std::nullopt : id;
}

}  // namespace

Vocabulary Vocabulary::from_metadata(const GgufMetadata& metadata) {
  VocabularyParts parts;
  parts.model = std::string(metadata.find_string("tokenizer.ggml.model").value_or("none"));
  parts.pre = std::string(metadata.find_string("tokenizer.ggml.pre").value_or(""));
  parts.tokens = strings_of(metadata, "tokenizer.ggml.tokens");
  if (auto scores = metadata.find_array("tokenizer.ggml.scores")) parts.scores = scores->floats();
  parts.types = types_of(metadata, "tokenizer.ggml.token_type");
  parts.merges = strings_of(metadata, "tokenizer.ggml.merges");
  parts.bos = id_or_none(metadata, "tokenizer.ggml.bos_token_id");
  parts.eos = id_or_none(metadata, "tokenizer.ggml.eos_token_id");
  parts.eot = optional_id(metadata, "tokenizer.ggml.eot_token_id");
  parts.eom = optional_id(metadata, "tokenizer.ggml.eom_token_id");
  parts.unknown = optional_id(metadata, "tokenizer.ggml.unknown_token_id");
  parts.padding = optional_id(metadata, "tokenizer.ggml.padding_token_id");
  parts.separator = optional_id(metadata, "tokenizer.ggml.seperator_token_id");  // spelt so in the format
  parts.add_bos = metadata.find_bool("tokenizer.ggml.add_bos_token");
  parts.add_eos = metadata.find_bool("tokenizer.ggml.add_eos_token");
  parts.add_space_prefix = metadata.find_bool("tokenizer.ggml.add_space_prefix");
  parts.chat_template = std::string(metadata.find_string("tokenizer.chat_template").value_or(""));
  std::string_view name = metadata.find_string("general.name").value_or("");
  for (const char* phi : {"phi-3", "phi3", "Phi-3", "Phi3"})
    if (name.find(phi) != std::string_view::npos) parts.strip_after_special = true;
  return Vocabulary(parts);
}

}  // namespace steelyard
