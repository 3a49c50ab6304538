// Folders of Ollama's layout: small manifests name the blobs, and a blob of a model is a GGUF file. What is
// here only reads; store_folder.h writes.
//
//   manifests/HOST/NAMESPACE/NAME/TAG      {"layers": [{"mediaType": "application/vnd.ollama.image.model",
//                                                       "digest": "sha256:…", "size": …}, …]}
//   manifests-v2/HOST/NAMESPACE/NAME/TAG   a link to a blob that is such a manifest (Ollama 0.33 and later)
//   blobs/sha256-…
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "store/manifest.h"
#include "store/model_name.h"

namespace steelyard {

struct OllamaModel {
  ModelName name;
  std::filesystem::path folder;    // with "manifests" and "blobs" in it
  std::filesystem::path manifest;  // the file
  std::string digest;              // SHA-256 of the manifest, in hex: what Ollama calls the model's
  Manifest parts;
  std::filesystem::path path;  // of the model's blob
};

// One that has both kinds of folders in it.
bool is_ollama_folder(const std::filesystem::path& folder);

// By name. Manifests that can't be read, or whose blob isn't there, are left out.
std::vector<OllamaModel> ollama_models(const std::filesystem::path& folder);

// Every manifest of the folder, whether it can be read or not: of a name in both forms the newer one.
struct NamedManifest {
  ModelName name;
  std::filesystem::path path;
};
std::vector<NamedManifest> named_manifests(const std::filesystem::path& folder);

// A manifest's or a small layer's text. Empty: there is none, it can't be read, or it is larger than any.
std::string read_small(const std::filesystem::path& file);
std::string read_blob(const std::filesystem::path& folder, std::string_view digest);
BlobSource blobs_of(const std::filesystem::path& folder);

// What a model brings along beside its weights.
struct ModelDefaults {
  std::string system;                 // the message before every conversation
  std::string chat_template;          // Go's text/template, or Jinja
  std::vector<std::string> licenses;  // texts
  std::string parameters;             // a JSON object of options by Ollama's names; or empty
  std::string messages;               // a JSON list of {role, content}, with which a chat begins; or empty
};
ModelDefaults defaults_of(const OllamaModel& model);

}  // namespace steelyard
