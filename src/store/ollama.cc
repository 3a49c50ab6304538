#include "store/ollama.h"

#include <algorithm>
#include <optional>
#include <set>
#include <span>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/input_file.h"
#include "base/sha256.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

std::vector<fs::path> children(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    paths.push_back(it->path());
  std::ranges::sort(paths);
  return paths;
}

std::optional<OllamaModel> read_model(const fs::path& folder, const NamedManifest& named) {
  const std::string text = read_small(named.path);
  if (text.empty()) return std::nullopt;
  try {
    OllamaModel model{named.name, folder, named.path, sha256_hex(text), {}, {}};
    model.parts = parse_manifest(text, named.name.text(), blobs_of(folder));
    const Layer* weights = model.parts.find(kModelLayer);
    if (!weights) return std::nullopt;
    model.path = folder / "blobs" / blob_file_name(weights->digest);
    std::error_code ignored;
    if (!fs::is_regular_file(model.path, ignored)) return std::nullopt;
    return model;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace

bool is_ollama_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder / "blobs", ignored) && (fs::is_directory(folder / "manifests", ignored) ||
                                                         fs::is_directory(folder / "manifests-v2", ignored));
}

std::vector<NamedManifest> named_manifests(const fs::path& folder) {
  std::vector<NamedManifest> all;
  std::set<fs::path> seen;
  for (const char* kind : {"manifests-v2", "manifests"})
    for (const fs::path& host : children(folder / kind))
      for (const fs::path& space : children(host))
        for (const fs::path& model : children(space))
          for (const fs::path& tag : children(model)) {
            const fs::path relative = host.filename() / space.filename() / model.filename() / tag.filename();
            auto name = model_name_of(relative);
            if (name && seen.insert(relative).second) all.push_back({std::move(*name), tag});
          }
  return all;
}

std::vector<OllamaModel> ollama_models(const fs::path& folder) {
  std::vector<OllamaModel> models;
  for (const NamedManifest& named : named_manifests(folder))
    if (auto model = read_model(folder, named)) models.push_back(std::move(*model));
  return models;
}

std::string read_small(const fs::path& path) try {
  const InputFile file = InputFile::open(path);
  if (file.size() > kMaxManifestBytes) return {};
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return text;
} catch (const Error&) {
  return {};
}

std::string read_blob(const fs::path& folder, std::string_view digest) {
  std::string text = read_small(folder / "blobs" / blob_file_name(digest));
  return "sha256:" + sha256_hex(text) == digest ? text : std::string();
}

BlobSource blobs_of(const fs::path& folder) {
  return {.read = [folder](const std::string& digest) { return read_blob(folder, digest); },
          .has =
              [folder](const std::string& digest) {
                std::error_code ignored;
                return fs::is_regular_file(folder / "blobs" / blob_file_name(digest), ignored);
              }};
}

ModelDefaults defaults_of(const OllamaModel& model) {
  const auto read = [&](const Layer& layer) { return read_blob(model.folder, layer.digest); };
  const auto first = [&](std::string_view kind) {
    const Layer* layer = model.parts.find(kind);
    return layer ? read(*layer) : std::string();
  };
  ModelDefaults defaults{.system = first(kSystemLayer),
                         .chat_template = first(kTemplateLayer),
                         .licenses = {},
                         .parameters = first(kParamsLayer),
                         .messages = first(kMessagesLayer)};
  for (const Layer& layer : model.parts.layers)
    if (layer.is(kLicenseLayer)) defaults.licenses.push_back(read(layer));
  return defaults;
}

}  // namespace steelyard
