// Who may do what: a server on the loopback address answers only requests meant for it, so that a web page
// can't reach it through a name that it controls (DNS rebinding), nor from a foreign origin. Pure, but for
// make_access_rules().
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "api/api_keys.h"

namespace steelyard::api {

struct AccessRules {
  bool loopback = true;              // what the server is bound to; where others reach it, any Host will do
  std::vector<std::string> hosts;    // admitted beside loopback's, in lower case; "*": all
  std::vector<std::string> origins;  // likewise
  ApiKeys keys = {};                 // empty: nobody needs one to ask
};

// As the user gave them, and this machine's own name.
AccessRules make_access_rules(bool loopback, std::vector<std::string> hosts, std::vector<std::string> origins,
                              ApiKeys keys = {});

// Empty: allowed; else one sentence why not. `host` and `origin` are the headers' values, empty when absent.
// Hosts beside the rules': localhost and its subdomains, addresses of loopback and private networks (no name
// leads there against the user's will), names ending in .local or .internal (no web page can have one).
// Origins: http and https of loopback names and addresses, and applications' schemes.
std::string refusal(const AccessRules& rules, std::string_view host, std::string_view origin);

// What a path does, and so who may ask for it.
enum class Need : std::uint8_t {
  nothing,  // says whether the server is there: everybody
  ask,      // uses models, or tells of them
  manage    // changes what models there are
};

// By key: where there are keys, asking takes one, and managing one of that role. Without keys everybody may
// ask, but nobody who comes from another machine may manage. `key` as presented_key() has it.
struct KeyRefusal {
  unsigned status = 0;  // 0: allowed; 401: no key, or an unknown one; 403: not with this one
  std::string why;
};
KeyRefusal key_refusal(const AccessRules& rules, Need need, std::string_view key);

// "LocalHost.:80" → "localhost", "[::1]:80" → "::1"; empty when it is no host with at most a port behind it.
std::string host_name(std::string_view host);

}  // namespace steelyard::api
