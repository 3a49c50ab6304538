#include "api/access.h"

#include <algorithm>
#include <string_view>

#include "base/error.h"

namespace steelyard::api {
namespace {

// "localhost:11434" → "localhost", "[::1]:80" → "::1"
std::string_view name_of(std::string_view host) {
  if (host.starts_with('[')) return host.substr(1, host.find(']') - 1);
  return host.substr(0, host.find(':'));
}

bool is_loopback(std::string_view name) {
  if (name == "localhost" || name.ends_with(".localhost") || name == "::1" || name == "0.0.0.0" ||
      name == "::")
    return true;
  return name.starts_with("127.") && name.find_first_not_of("0123456789.") == std::string_view::npos;
}

bool listens_on_loopback(std::string_view host) {
  const std::string_view name = name_of(host);
  return name != "0.0.0.0" && name != "::" && host != "::1" ? is_loopback(name) : host == "::1";
}

bool contains(const std::vector<std::string>& list, std::string_view value) {
  return std::find(list.begin(), list.end(), value) != list.end();
}

}  // namespace

std::string refusal(const AccessRules& rules, const std::string& host, const std::string& origin) {
  if (!host.empty() && listens_on_loopback(rules.listen_host) && !is_loopback(name_of(host)) &&
      !contains(rules.allowed_hosts, name_of(host)))
    return fmt::format("requests for the host '{}' aren't answered on the loopback address", name_of(host));
  if (origin.empty() || contains(rules.allowed_origins, "*") || contains(rules.allowed_origins, origin))
    return {};
  for (const std::string_view scheme : {"http://", "https://"})
    if (origin.starts_with(scheme) && is_loopback(name_of(std::string_view(origin).substr(scheme.size()))))
      return {};
  for (const std::string_view scheme :
       {"app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"})
    if (origin.starts_with(scheme)) return {};
  return fmt::format("the web origin '{}' isn't allowed; --origin admits it", origin);
}

}  // namespace steelyard::api
