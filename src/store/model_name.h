// Names of models in registries and in stores of Ollama's layout: [HOST/][NAMESPACE/]MODEL[:TAG].
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace steelyard {

inline constexpr std::string_view kDefaultRegistry = "registry.ollama.ai";

// All four parts, each a file's name as it is: of letters, digits and a few signs, at first a letter, a digit
// or '_', so never "..", a path or hidden.
struct ModelName {
  std::string host, space, model, tag;

  // As short as it can be said: "llama3.2:1b", "someone/tuned", "hf.co/org/repo:Q4_K_M". The tag "latest" is
  // left out.
  std::string text() const;
  std::filesystem::path path() const;  // HOST/NAMESPACE/MODEL/TAG
  bool on_hugging_face() const;
  bool operator==(const ModelName&) const = default;
};

// With the defaults (registry.ollama.ai, library, latest) for what isn't said; a scheme before it
// ("https://") doesn't count. Nothing: it is no such name.
std::optional<ModelName> parse_model_name(std::string_view text);
// Of the four folders below "manifests"; nothing where they are no name.
std::optional<ModelName> model_name_of(const std::filesystem::path& relative);

// "sha256:" and 64 digits: what blobs are called, and the only thing by which they are found.
bool is_digest(std::string_view text);
// Also as a file's name has it ("sha256-…") → with ':' and lower-case digits; nothing when it is none.
std::optional<std::string> canonical_digest(std::string_view text);
// "sha256:ab…" → "sha256-ab…"
std::string blob_file_name(std::string_view digest);

}  // namespace steelyard
