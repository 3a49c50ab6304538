#include "store/model_name.h"

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

namespace steelyard {
namespace {

constexpr std::string_view kSpace = "library", kTag = "latest", kDigestStart = "sha256:";
constexpr std::size_t kDigits = 64, kLongestPart = 128;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

bool is_part(std::string_view text, std::string_view signs) {
  if (text.empty() || text.size() > kLongestPart) return false;
  if (!is_letter_or_digit(text[0]) && text[0] != '_') return false;
  return std::ranges::all_of(text,
                             [&](char c) { return is_letter_or_digit(c) || signs.find(c) != signs.npos; });
}

bool is_name(const ModelName& n) {
  return is_part(n.host, "._-:") && is_part(n.space, "._-") && is_part(n.model, "._-") &&
         is_part(n.tag, "._-");
}

// The default registry has two names.
bool is_default_host(std::string_view host) { return host == kDefaultRegistry || host == "ollama.com"; }

}  // namespace

std::string ModelName::text() const {
  std::string out;
  if (!is_default_host(host))
    out = host + "/" + space + "/";
  else if (space != kSpace)
    out = space + "/";
  out += model;
  return tag == kTag ? out : out + ":" + tag;
}

std::filesystem::path ModelName::path() const { return std::filesystem::path(host) / space / model / tag; }

bool ModelName::on_hugging_face() const { return host == "hf.co" || host == "huggingface.co"; }

std::optional<ModelName> parse_model_name(std::string_view text) {
  if (const auto scheme = text.find("://"); scheme != text.npos) text.remove_prefix(scheme + 3);
  ModelName name{std::string(kDefaultRegistry), std::string(kSpace), "", std::string(kTag)};
  const std::size_t slash = text.rfind('/'), begin = slash == text.npos ? 0 : slash + 1;
  if (const std::size_t colon = text.find(':', begin); colon != text.npos) {
    name.tag = text.substr(colon + 1);
    text = text.substr(0, colon);
  }
  std::vector<std::string_view> parts;
  for (std::size_t at = 0;;) {
    const std::size_t end = std::min(text.find('/', at), text.size());
    parts.push_back(text.substr(at, end - at));
    if (end == text.size()) break;
    at = end + 1;
  }
  if (parts.size() > 3) return std::nullopt;
  name.model = parts.back();
  if (parts.size() > 1) name.space = parts[parts.size() - 2];
  if (parts.size() > 2) name.host = parts[0];
  if (!is_name(name)) return std::nullopt;
  return name;
}

std::optional<ModelName> model_name_of(const std::filesystem::path& relative) {
  const std::vector<std::filesystem::path> parts(relative.begin(), relative.end());
  if (parts.size() != 4) return std::nullopt;
  ModelName name{parts[0].string(), parts[1].string(), parts[2].string(), parts[3].string()};
  if (!is_name(name)) return std::nullopt;
  return name;
}

bool is_digest(std::string_view text) {
  return text.size() == kDigestStart.size() + kDigits && text.starts_with(kDigestStart) &&
         text.find_first_not_of("0123456789abcdef", kDigestStart.size()) == text.npos;
}

std::optional<std::string> canonical_digest(std::string_view text) {
  std::string out(text);
  if (out.starts_with("sha256-")) out[6] = ':';
  for (char& c : out)
    if (c >= 'A' && c <= 'F') c = static_cast<char>(c - 'A' + 'a');
  if (!is_digest(out)) return std::nullopt;
  return out;
}

std::string blob_file_name(std::string_view digest) {
  std::string name(digest);
  name[6] = '-';
  return name;
}

}  // namespace steelyard
