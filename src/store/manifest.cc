#include "store/manifest.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <utility>

#include "base/error.h"
#include "store/model_name.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::string_view kLayerType = "application/vnd.ollama.image.";
constexpr const char* kManifestType = "application/vnd.docker.distribution.manifest.v2+json";
constexpr std::string_view kListTypes[] = {"application/vnd.ollama.manifest.list.v2+json",
                                           "application/vnd.docker.distribution.manifest.list.v2+json"};
constexpr std::size_t kMostLayers = 256;
constexpr std::uint64_t kMostBytes = std::uint64_t{1} << 50;

// What is wrong, without the manifest's name.
struct Broken {
  std::string why;
};

std::string text_of(const Json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}

Layer layer_of(const Json& json) {
  if (!json.is_object()) throw Broken{"a layer is no object"};
  auto digest = canonical_digest(text_of(json, "digest"));
  if (!digest) throw Broken{"a layer's digest is no SHA-256"};
  const auto size = json.find("size");
  if (size == json.end() || !size->is_number_unsigned() || size->get<std::uint64_t>() > kMostBytes)
    throw Broken{"a layer's size is no size"};
  return {text_of(json, "mediaType"), std::move(*digest), size->get<std::uint64_t>()};
}

Manifest single(const Json& json) {
  const auto layers = json.find("layers"), config = json.find("config");
  if (layers == json.end() || !layers->is_array() || layers->size() > kMostLayers)
    throw Broken{"it has no list of layers"};
  Manifest manifest;
  for (const Json& layer : *layers) manifest.layers.push_back(layer_of(layer));
  if (config != json.end() && config->is_object() && !text_of(*config, "digest").empty())
    manifest.config = layer_of(*config);
  return manifest;
}

Json parse(std::string_view text) {
  Json json = Json::parse(text, nullptr, false);
  if (!json.is_object()) throw Broken{"it is no JSON object"};
  return json;
}

// A manifest of a list, which may be there itself or as a blob's digest.
struct Child {
  Manifest manifest;
  std::string digest;  // of the blob, or empty
  int rank;            // the lowest counts; negative: it is nothing for us
};

int rank_of(const Json& json, const Manifest& manifest, const BlobSource& blobs) {
  const std::string runner = text_of(json, "runner"), format = text_of(json, "format");
  const Layer* model = manifest.find(kModelLayer);
  if (!model || format == "safetensors" || runner == "mlx") return -1;
  const int absent = blobs.has && !blobs.has(model->digest) ? 10 : 0;
  return absent + (runner == "llamacpp" ? 0 : runner == "ollama" ? 1 : 2);
}

std::optional<Child> child_of(const Json& json, const BlobSource& blobs) {
  if (!json.is_object()) throw Broken{"an entry of its list is no object"};
  if (json.contains("layers")) {
    Manifest manifest = single(json);
    const int rank = rank_of(json, manifest, blobs);
    return Child{std::move(manifest), "", rank};
  }
  const auto digest = canonical_digest(text_of(json, "digest"));
  if (!digest) throw Broken{"an entry of its list has no digest"};
  const std::string text = blobs.read ? blobs.read(*digest) : std::string();
  if (text.empty()) return std::nullopt;
  const Json inner = parse(text);
  Manifest manifest = single(inner);
  const int rank = rank_of(json.contains("runner") ? json : inner, manifest, blobs);
  return Child{std::move(manifest), *digest, rank};
}

Manifest from_list(const Json& json, const BlobSource& blobs) {
  const auto list = json.find("manifests");
  if (list == json.end() || !list->is_array() || list->size() > kMostLayers)
    throw Broken{"its list of manifests is none"};
  std::vector<Child> children;
  std::vector<std::string> others;
  for (const Json& entry : *list) {
    if (auto child = child_of(entry, blobs)) children.push_back(std::move(*child));
    if (auto digest = canonical_digest(text_of(entry, "digest"))) others.push_back(std::move(*digest));
  }
  const Child* best = nullptr;
  for (const Child& c : children)
    if (c.rank >= 0 && (!best || c.rank < best->rank)) best = &c;
  if (!best) throw Broken{"its list has no model in GGUF that is here"};
  Manifest manifest = best->manifest;
  for (const Child& c : children)
    for (const std::string& digest : c.manifest.digests()) others.push_back(digest);
  manifest.others = std::move(others);
  return manifest;
}

Json layer_json(const Layer& layer) {
  return {{"mediaType", layer.media_type}, {"digest", layer.digest}, {"size", layer.size}};
}

}  // namespace

bool Layer::is(std::string_view kind) const {
  return media_type.starts_with(kLayerType) && std::string_view(media_type).substr(kLayerType.size()) == kind;
}

const Layer* Manifest::find(std::string_view kind) const {
  const auto found = std::ranges::find_if(layers, [&](const Layer& l) { return l.is(kind); });
  return found == layers.end() ? nullptr : &*found;
}

std::vector<std::string> Manifest::digests() const {
  std::set<std::string> all(others.begin(), others.end());
  if (!config.digest.empty()) all.insert(config.digest);
  for (const Layer& l : layers) all.insert(l.digest);
  return {all.begin(), all.end()};
}

std::uint64_t Manifest::bytes() const {
  std::uint64_t sum = config.size;
  for (const Layer& l : layers) sum += l.size;
  return sum;
}

Manifest parse_manifest(std::string_view text, const std::string& shown, const BlobSource& blobs) {
  try {
    const Json json = parse(text);
    const bool list = std::ranges::find(kListTypes, text_of(json, "mediaType")) != std::end(kListTypes) ||
                      (json.contains("manifests") && !json.contains("layers"));
    return list ? from_list(json, blobs) : single(json);
  } catch (const Broken& broken) {
    throw_error(ErrorKind::bad_input, "the manifest of {} can't be used: {}", shown, broken.why);
  }
}

std::string manifest_text(const Manifest& manifest) {
  Json layers = Json::array();
  for (const Layer& l : manifest.layers) layers.push_back(layer_json(l));
  return Json{{"schemaVersion", 2},
              {"mediaType", kManifestType},
              {"config", layer_json(manifest.config)},
              {"layers", std::move(layers)}}
      .dump();
}

std::string layer_media_type(std::string_view kind) { return std::string(kLayerType) + std::string(kind); }

}  // namespace steelyard
