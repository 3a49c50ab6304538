#include "api/access.h"

#include <unistd.h>

#include <algorithm>
#include <boost/asio/ip/address.hpp>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard::api {
namespace {

namespace ip = boost::asio::ip;

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

bool is_port(std::string_view text) {
  return !text.empty() && text.size() <= 5 && text.find_first_not_of("0123456789") == text.npos;
}

bool is_name(std::string_view text) {
  return !text.empty() && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '_' || c == '.';
  });
}

std::optional<ip::address> address_of(const std::string& name) {
  boost::system::error_code error;
  const auto address = ip::make_address(name, error);
  if (error) return std::nullopt;
  if (address.is_v6() && address.to_v6().is_v4_mapped())
    return ip::address(ip::make_address_v4(ip::v4_mapped, address.to_v6()));
  return address;
}

bool is_private(const ip::address& a) {
  if (a.is_v6()) {
    const auto bytes = a.to_v6().to_bytes();
    return (bytes[0] & 0xfe) == 0xfc || a.to_v6().is_link_local();
  }
  const std::uint32_t v = a.to_v4().to_uint();
  return v >> 24 == 10 || v >> 20 == 0xac1 || v >> 16 == 0xc0a8 || v >> 16 == 0xa9fe;
}

bool is_loopback(const std::string& name) {
  if (const auto address = address_of(name)) return address->is_loopback() || address->is_unspecified();
  return name == "localhost" || name.ends_with(".localhost");
}

bool contains(const std::vector<std::string>& list, const std::string& value) {
  return std::ranges::find(list, value) != list.end() || std::ranges::find(list, "*") != list.end();
}

bool host_allowed(const AccessRules& rules, const std::string& name) {
  if (name.empty()) return false;
  if (const auto address = address_of(name); address && is_private(*address)) return true;
  return is_loopback(name) || name.ends_with(".local") || name.ends_with(".internal") ||
         contains(rules.hosts, name);
}

bool origin_allowed(const AccessRules& rules, std::string_view origin) {
  const std::string text = lowered(origin);
  if (contains(rules.origins, text)) return true;
  for (const std::string_view scheme : {"http://", "https://"})
    if (text.starts_with(scheme) && is_loopback(host_name(std::string_view(text).substr(scheme.size()))))
      return true;
  for (const char* scheme : {"app://", "file://", "tauri://", "vscode-webview://", "vscode-file://"})
    if (text.starts_with(scheme)) return true;
  return false;
}

}  // namespace

std::string host_name(std::string_view host) {
  std::string text = lowered(host);
  std::string name, rest;
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    if (end == text.npos) return {};
    name = text.substr(1, end - 1);
    rest = text.substr(end + 1);
    boost::system::error_code error;
    ip::make_address_v6(name, error);
    if (error) return {};
  } else {
    const std::size_t colon = text.find(':');
    name = text.substr(0, colon);
    rest = colon == text.npos ? "" : text.substr(colon);
    if (name.ends_with('.')) name.pop_back();
    if (!is_name(name)) return {};
  }
  if (!rest.empty() && (rest[0] != ':' || !is_port(std::string_view(rest).substr(1)))) return {};
  return name;
}

AccessRules make_access_rules(bool loopback, std::vector<std::string> hosts, std::vector<std::string> origins,
                              ApiKeys keys) {
  AccessRules rules{loopback, {}, {}, std::move(keys)};
  for (const std::string& host : hosts) rules.hosts.push_back(host == "*" ? host : host_name(host));
  std::erase(rules.hosts, std::string());
  for (std::string origin : origins) {
    while (origin.ends_with('/')) origin.pop_back();
    rules.origins.push_back(lowered(origin));
  }
  char own[256] = {};
  if (gethostname(own, sizeof own - 1) == 0 && *own) rules.hosts.push_back(lowered(own));
  return rules;
}

std::string refusal(const AccessRules& rules, std::string_view host, std::string_view origin) {
  if (!host.empty() && rules.loopback && !host_allowed(rules, host_name(host)))
    return fmt::format(
        "requests for the host '{}' aren't answered on the loopback address; --allow-host admits it",
        readable(host, 100));
  if (origin.empty() || origin_allowed(rules, origin)) return {};
  return fmt::format("the web origin '{}' isn't allowed; --origin admits it", readable(origin, 100));
}

KeyRefusal key_refusal(const AccessRules& rules, Need need, std::string_view key) {
  if (need == Need::nothing) return {};
  if (rules.keys.empty()) {
    if (need == Need::ask || rules.loopback) return {};
    return {403,
            "this server can be reached from other machines, so changing its models takes an API key: start "
            "it with --api-keys"};
  }
  if (key.empty()) return {401, "this server wants an API key, as \"Authorization: Bearer KEY\""};
  const ApiKeys::Key* known = rules.keys.find(key);
  if (!known) return {401, "this server doesn't know that API key"};
  if (need == Need::manage && known->role != KeyRole::manage)
    return {403, "this API key may ask, but not change models: that takes one of the role manage"};
  return {};
}

}  // namespace steelyard::api
