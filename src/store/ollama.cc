#include "store/ollama.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <system_error>

#include "base/error.h"
#include "base/input_file.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kMaxManifestBytes = 1 << 20;

// The model's digest in hex, or nothing.
std::optional<std::string> model_digest(const fs::path& manifest) try {
  const InputFile file = InputFile::open(manifest);
  if (file.size() > kMaxManifestBytes) return std::nullopt;
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  const auto json = nlohmann::json::parse(text);
  for (const auto& layer : json.at("layers")) {
    if (layer.at("mediaType") != "application/vnd.ollama.image.model") continue;
    const std::string digest = layer.at("digest");
    const std::string_view hex = std::string_view(digest).substr(std::min<std::size_t>(7, digest.size()));
    if (digest.starts_with("sha256:") && hex.size() == 64 &&
        hex.find_first_not_of("0123456789abcdef") == std::string_view::npos)
      return std::string(hex);
  }
  return std::nullopt;
} catch (const nlohmann::json::exception&) {
  return std::nullopt;
} catch (const Error&) {
  return std::nullopt;
}

std::vector<fs::path> children(const fs::path& folder) {
  std::vector<fs::path> paths;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error))
    paths.push_back(it->path());
  std::ranges::sort(paths);
  return paths;
}

std::string model_name(const fs::path& space, const fs::path& name, const fs::path& tag) {
  std::string out = space.filename() == "library" ? "" : space.filename().string() + "/";
  out += name.filename().string();
  return tag.filename() == "latest" ? out : out + ":" + tag.filename().string();
}

}  // namespace

bool is_ollama_folder(const fs::path& folder) {
  std::error_code ignored;
  return fs::is_directory(folder / "manifests", ignored) && fs::is_directory(folder / "blobs", ignored);
}

std::vector<OllamaModel> ollama_models(const fs::path& folder) {
  std::vector<OllamaModel> models;
  std::error_code ignored;
  for (const fs::path& host : children(folder / "manifests"))
    for (const fs::path& space : children(host))
      for (const fs::path& name : children(space))
        for (const fs::path& tag : children(name)) {
          const auto digest = model_digest(tag);
          if (!digest) continue;
          fs::path blob = folder / "blobs" / ("sha256-" + *digest);
          if (fs::is_regular_file(blob, ignored))
            models.push_back({model_name(space, name, tag), std::move(blob)});
        }
  return models;
}

}  // namespace steelyard
