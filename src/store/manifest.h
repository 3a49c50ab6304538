// Manifests: small JSON files that say of which blobs a model is made (Docker's form, version 2, with
// Ollama's types of layers).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

inline constexpr std::uint64_t kMaxManifestBytes = 4 << 20;

// What a layer's media type ends with, after "application/vnd.ollama.image.".
inline constexpr std::string_view kModelLayer = "model", kTemplateLayer = "template", kSystemLayer = "system",
                                  kParamsLayer = "params", kMessagesLayer = "messages",
                                  kLicenseLayer = "license", kAdapterLayer = "adapter",
                                  kProjectorLayer = "projector";

struct Layer {
  std::string media_type, digest;  // a valid one
  std::uint64_t size = 0;

  bool is(std::string_view kind) const;
};

struct Manifest {
  Layer config;
  std::vector<Layer> layers;
  // Beside the layers': the manifests that a list refers to, and all that those refer to which weren't
  // chosen.
  std::vector<std::string> others;

  const Layer* find(std::string_view kind) const;  // the first; null: there is none
  std::vector<std::string> digests() const;        // of all blobs that it needs
  std::uint64_t bytes() const;                     // of its layers
};

// Where a list's manifests and models are looked for.
struct BlobSource {
  std::function<std::string(const std::string& digest)> read;  // a small blob; empty: it isn't there
  std::function<bool(const std::string& digest)> has;
};

// One manifest, or a list of them (Ollama 0.33 and later), of which one in GGUF counts: rather one whose
// model is there, and rather one for llama.cpp, which has the usual names of tensors. Throws
// Error(bad_input), naming `shown`: what isn't JSON, digests that are none, sizes that make no sense, a list
// without anything in GGUF.
Manifest parse_manifest(std::string_view text, const std::string& shown, const BlobSource& blobs = {});
std::string manifest_text(const Manifest& manifest);

std::string layer_media_type(std::string_view kind);

}  // namespace steelyard
