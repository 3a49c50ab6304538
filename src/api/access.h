// Who may call: a server on the loopback address answers only requests meant for it, so that a web page can't
// reach it through a name that it controls (DNS rebinding), nor from a foreign origin. Pure.
#pragma once

#include <string>
#include <vector>

namespace steelyard::api {

struct AccessRules {
  std::string listen_host;  // as given to the server
  std::vector<std::string> allowed_hosts;
  std::vector<std::string> allowed_origins;  // "*": all
};

// Empty: allowed; else one sentence why not. `host` and `origin` are the headers' values, empty when absent.
std::string refusal(const AccessRules& rules, const std::string& host, const std::string& origin);

}  // namespace steelyard::api
