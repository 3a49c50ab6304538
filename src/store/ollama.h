// Ollama's own folder of models, read only: small manifests name the blobs, and a blob of a model is a GGUF
// file.
//
//   manifests/HOST/NAMESPACE/NAME/TAG   {"layers": [{"mediaType": "application/vnd.ollama.image.model",
//                                                     "digest": "sha256:…"}, …]}
//   blobs/sha256-…
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace steelyard {

struct OllamaModel {
  std::string name;  // "llama3.2:1b"; "llama3.2" for the tag latest; "someone/…" outside of "library"
  std::filesystem::path path;
};

bool is_ollama_folder(const std::filesystem::path& folder);

// Manifests that can't be read, or whose blob isn't there, are left out.
std::vector<OllamaModel> ollama_models(const std::filesystem::path& folder);

}  // namespace steelyard
