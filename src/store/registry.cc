#include "store/registry.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "base/error.h"
#include "base/readable.h"
#include "base/sha256.h"
#include "store/download.h"

namespace steelyard {
namespace {

using Json = nlohmann::json;

constexpr const char* kAccept =
    "Accept: application/vnd.docker.distribution.manifest.v2+json, "
    "application/vnd.ollama.manifest.list.v2+json";
constexpr int kMostAttempts = 4;
constexpr std::size_t kMostToken = 16 << 10;

// Tried again where that may help. Throws Error(io) for a failure.
WebResponse get_small(WebClient& client, const WebRequest& request) {
  for (int attempt = 0;; ++attempt) {
    WebResponse r = client.get(request);
    const bool again = r.status == 429 || r.status >= 500 || r.status == 0;
    const auto wait = retry_pause(r, attempt);
    if (!again || attempt + 1 == kMostAttempts || !wait || r.failure == "it was cancelled") {
      if (!r.failure.empty())
        throw_error(r.failure == "it was cancelled" ? ErrorKind::cancelled : ErrorKind::io,
                    "{} can't be read: {}", request.url, r.failure);
      return r;
    }
    pause(*wait, {});
  }
}

// KEY="VALUE" of a challenge.
std::string parameter(const std::string& challenge, const std::string& key) {
  const std::size_t at = challenge.find(key + "=\"");
  if (at == challenge.npos) return {};
  const std::size_t begin = at + key.size() + 2, end = challenge.find('"', begin);
  return end == challenge.npos ? std::string() : challenge.substr(begin, end - begin);
}

// Without what could end a header.
bool is_token(const std::string& text) {
  return !text.empty() && text.size() <= kMostToken &&
         std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

class Registry {
 public:
  Registry(WebClient& client, const ModelName& name, bool insecure) : client_(client), name_(name) {
    const bool plain = insecure || is_local_origin(origin_of("http://" + name.host));
    base_ = (plain ? "http://" : "https://") + name.host;
    origin_ = origin_of(base_);
    if (origin_.empty()) throw_error(ErrorKind::bad_input, "'{}' is no host", readable(name.host));
    repository_ = base_ + "/v2/" + url_encoded(name.space) + "/" + url_encoded(name.model);
  }

  // Of a tag or a digest.
  std::string manifest(const std::string& reference) {
    WebRequest request = authorised(repository_ + "/manifests/" + reference);
    request.headers = {kAccept};
    WebResponse r = get_small(client_, request);
    if (r.status == 401) {
      log_in(r.header("www-authenticate"));
      request.secret = secret_;
      r = get_small(client_, request);
    }
    check(r);
    if (r.body.size() > kMaxManifestBytes)
      throw_error(ErrorKind::bad_input, "the manifest of {} is larger than any", name_.text());
    return std::move(r.body);
  }
  WebRequest blob(const std::string& digest) const { return authorised(repository_ + "/blobs/" + digest); }

 private:
  WebRequest authorised(const std::string& url) const {
    return {.url = url, .headers = {}, .secret = secret_, .body = {}};
  }
  void check(const WebResponse& r) const {
    if (r.status == 404)
      throw_error(ErrorKind::not_found, "there is no model '{}' at {}", name_.text(), base_);
    if (r.status == 401 || r.status == 403)
      throw_error(ErrorKind::io, "{} doesn't let us read {} (HTTP {}); logging in isn't supported", base_,
                  name_.text(), r.status);
    if (r.status != 200)
      throw_error(ErrorKind::io, "{} can't give us {} (HTTP {})", base_, name_.text(), r.status);
  }
  void log_in(const std::string& challenge) {
    const WebResponse r = get_small(client_, {.url = token_address(challenge, origin_)});
    const Json json = Json::parse(r.body, nullptr, false);
    std::string token;
    for (const char* key : {"access_token", "token"})
      if (json.is_object() && json.contains(key) && json[key].is_string()) token = json[key];
    if (r.status != 200 || !is_token(token))
      throw_error(ErrorKind::io, "{} gives no token for {} (HTTP {})", base_, name_.text(), r.status);
    secret_ = "Authorization: Bearer " + token;
  }

  WebClient& client_;
  const ModelName& name_;
  std::string base_, origin_, repository_, secret_;
};

}  // namespace

std::string token_address(const std::string& challenge, const std::string& origin) {
  const std::string realm = parameter(challenge, "realm");
  const bool bearer =
      challenge.size() > 7 && (challenge.starts_with("Bearer ") || challenge.starts_with("bearer "));
  const std::string there = origin_of(realm);
  if (!bearer || there.empty() || realm.find_first_of("?# ") != realm.npos)
    throw_error(ErrorKind::unsupported, "{} wants a login of a kind that isn't supported", origin);
  if (there != origin)
    throw_error(ErrorKind::unsupported,
                "{} wants a login at {}, which is another server: nothing is asked or told there", origin,
                there);
  return fmt::format("{}?service={}&scope={}", realm, url_encoded(parameter(challenge, "service")),
                     url_encoded(parameter(challenge, "scope")));
}

RemoteModel find_in_registry(WebClient& client, const ModelName& name, bool insecure) {
  Registry registry(client, name, insecure);
  RemoteModel model;
  model.manifest = registry.manifest(name.tag);
  const BlobSource list{.read =
                            [&](const std::string& digest) {
                              std::string text = registry.manifest(digest);
                              if ("sha256:" + sha256_hex(text) != digest)
                                throw_error(ErrorKind::bad_input,
                                            "a manifest of {} isn't what its digest says", name.text());
                              model.smalls.push_back({"manifest", text});
                              return text;
                            },
                        .has = {}};
  const Manifest manifest = parse_manifest(model.manifest, name.text(), list);
  std::set<std::string> seen;
  std::vector<Layer> layers = manifest.layers;
  if (!manifest.config.digest.empty()) layers.push_back(manifest.config);
  if (!manifest.find(kModelLayer))
    throw_error(ErrorKind::unsupported, "{} has no model in GGUF", name.text());
  for (const Layer& layer : layers)
    if (seen.insert(layer.digest).second) model.blobs.push_back({layer, registry.blob(layer.digest)});
  return model;
}

}  // namespace steelyard
