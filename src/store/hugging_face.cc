// Hugging Face: a repository's files with their SHA-256, and one of them as a model of Ollama's layout.
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "base/readable.h"
#include "base/sha256.h"
#include "gguf/split.h"
#include "store/download.h"
#include "store/model_files.h"
#include "store/ollama.h"
#include "store/registry.h"

namespace steelyard {
namespace {

using Json = nlohmann::json;

// Where nobody says which: the first that there is.
constexpr const char* kUsual[] = {"q4_k_m", "q4_k_s", "q4_0", "q5_k_m", "q8_0", "mxfp4", "f16", "bf16"};

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string endpoint() {
  std::string url = environment("HF_ENDPOINT");
  while (url.ends_with('/')) url.pop_back();
  return url.empty() ? "https://huggingface.co" : url;
}

std::string login() {
  std::string token = environment("HF_TOKEN");
  if (token.empty()) {
    const std::string home = environment("HF_HOME");
    token = read_small(home.empty() ? std::filesystem::path(environment("HOME")) / ".cache/huggingface/token"
                                    : std::filesystem::path(home) / "token");
  }
  while (!token.empty() && std::isspace(static_cast<unsigned char>(token.back())) != 0) token.pop_back();
  const bool plain = std::ranges::all_of(token, [](char c) { return c > 0x20 && c < 0x7f; });
  return token.empty() || !plain ? "" : "Authorization: Bearer " + token;
}

// `word` in `name`, not within a longer word.
bool has_word(std::string_view name, std::string_view word) {
  const auto part = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_'; };
  for (std::size_t at = 0; (at = name.find(word, at)) != name.npos; ++at) {
    const std::size_t end = at + word.size();
    if ((at == 0 || !part(name[at - 1])) && (end == name.size() || !part(name[end]))) return true;
  }
  return false;
}

std::string base_name(const std::string& file) { return file.substr(file.rfind('/') + 1); }

// A folder's name may say the type, too.
bool is_wanted(const std::string& file, std::string_view tag) {
  return lower(base_name(file)) == tag || has_word(lower(file), tag);
}

std::string text_of(const Json& json, const char* key) {
  const auto it = json.find(key);
  return it != json.end() && it->is_string() ? it->get<std::string>() : std::string();
}

WebResponse ask(WebClient& client, const WebRequest& request, const ModelName& name) {
  WebResponse r = client.get(request);
  for (int attempt = 0; attempt < 3 && (r.status == 429 || r.status >= 500 || r.status == 0); ++attempt) {
    const auto wait = retry_pause(r, attempt);
    if (!wait || r.failure == "it was cancelled") break;
    pause(*wait, {});
    r = client.get(request);
  }
  if (!r.failure.empty()) throw_error(ErrorKind::io, "{} can't be read: {}", request.url, r.failure);
  if (r.status == 401 || r.status == 403 || r.status == 404)
    throw_error(ErrorKind::not_found,
                "there is no {}/{} on Hugging Face, or it takes a token that may read it (HF_TOKEN)",
                name.space, name.model);
  if (r.status != 200) throw_error(ErrorKind::io, "{} can't be read (HTTP {})", request.url, r.status);
  return r;
}

// What Ollama's own configs say of a model; it is part of a manifest.
std::string config_text(const std::string& digest, std::string_view tag) {
  return nlohmann::ordered_json{{"model_format", "gguf"},
                                {"model_family", ""},
                                {"model_families", nullptr},
                                {"model_type", ""},
                                {"file_type", tag == "latest" ? "" : tag},
                                {"architecture", "amd64"},
                                {"os", "linux"},
                                {"rootfs", {{"type", "layers"}, {"diff_ids", {digest}}}}}
      .dump();
}

}  // namespace

std::string choose_gguf(const std::vector<std::string>& files, std::string_view tag) {
  std::vector<std::string> good;
  for (const std::string& file : files) {
    const std::string name = lower(base_name(file));
    if (name.ends_with(".gguf") && !name.starts_with("mmproj") && !parse_split_name(base_name(file)))
      good.push_back(file);
  }
  std::ranges::sort(good, {},
                    [](const std::string& f) { return std::pair(f.size(), f); });  // the plainest first
  const auto find = [&](std::string_view wanted) {
    const auto it = std::ranges::find_if(good, [&](const std::string& f) { return is_wanted(f, wanted); });
    return it == good.end() ? std::string() : *it;
  };
  if (tag != "latest") return find(lower(tag));
  for (const char* usual : kUsual)
    if (std::string file = find(usual); !file.empty()) return file;
  return good.empty() ? std::string() : good[0];
}

RemoteModel find_on_hugging_face(WebClient& client, const ModelName& name) {
  const std::string repository = url_encoded(name.space) + "/" + url_encoded(name.model), secret = login();
  const WebResponse r = ask(client,
                            {.url = endpoint() + "/api/models/" + repository + "/tree/main?recursive=true",
                             .headers = {},
                             .secret = secret,
                             .body = {}},
                            name);
  const Json list = Json::parse(r.body, nullptr, false);
  if (!list.is_array()) throw_error(ErrorKind::io, "what {} sent is no list of files", r.url);
  std::vector<std::string> files;
  for (const Json& entry : list)
    if (entry.is_object()) files.push_back(text_of(entry, "path"));
  const std::string file = choose_gguf(files, name.tag);
  if (file.empty()) {
    const bool split = std::ranges::any_of(files, [&](const std::string& f) {
      return parse_split_name(base_name(f)) && is_wanted(f, lower(name.tag));
    });
    if (split)
      throw_error(
          ErrorKind::unsupported,
          "{} is in several parts, which aren't pulled yet: `hf download` fetches them, and Steelyard finds "
          "them where that puts them",
          name.text());
    throw_error(ErrorKind::not_found, "{}/{} has no GGUF file for '{}'", name.space, name.model,
                readable(name.tag));
  }
  const auto entry =
      std::ranges::find_if(list, [&](const Json& e) { return e.is_object() && text_of(e, "path") == file; });
  const Json lfs = entry->value("lfs", Json::object());
  const auto digest = canonical_digest("sha256:" + text_of(lfs.is_object() ? lfs : Json::object(), "oid"));
  const auto size = lfs.is_object() && lfs.contains("size") ? lfs["size"] : Json();
  if (!digest || !size.is_number_unsigned())
    throw_error(ErrorKind::unsupported,
                "Hugging Face doesn't tell the SHA-256 of {}, without which it isn't pulled", readable(file));
  Manifest manifest;
  const std::string config = config_text(*digest, name.tag);
  manifest.config = {"application/vnd.docker.container.image.v1+json", "sha256:" + sha256_hex(config),
                     config.size()};
  manifest.layers = {{layer_media_type(kModelLayer), *digest, size.get<std::uint64_t>()}};
  std::string path;
  for (std::size_t at = 0; at <= file.size();) {
    const std::size_t end = std::min(file.find('/', at), file.size());
    path += "/" + url_encoded(std::string_view(file).substr(at, end - at));
    at = end + 1;
  }
  RemoteModel model;
  model.manifest = manifest_text(manifest);
  model.smalls.push_back({"config", config});
  model.blobs.push_back({manifest.layers[0],
                         {.url = endpoint() + "/" + repository + "/resolve/main" + path,
                          .headers = {},
                          .secret = secret,
                          .body = {}}});
  return model;
}

}  // namespace steelyard
