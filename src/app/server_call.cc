#include "app/server_call.h"

#include <cstdlib>

#include "app/command_line.h"
#include "base/error.h"
#include "base/readable.h"
#include "store/web_client.h"

namespace steelyard {
namespace {

ErrorKind kind_of(long status) {
  if (status == 404) return ErrorKind::not_found;
  return status < 500 ? ErrorKind::bad_input : ErrorKind::io;
}

}  // namespace

void read_address(std::string text, ServerAddress& address) {
  if (const auto scheme = text.find("://"); scheme != std::string::npos) text = text.substr(scheme + 3);
  while (text.ends_with('/')) text.pop_back();
  const auto colon = text.rfind(':');
  const bool port_given = colon != std::string::npos && (text.find(':') == colon || text.find(']') < colon);
  if (port_given) {
    const std::string port = text.substr(colon + 1);
    if (!CLI::detail::lexical_cast(port, address.port))
      throw_usage("'{}' is no port: give one from 0 to 65535", port);
    text = text.substr(0, colon);
  }
  if (text.starts_with('[') && text.ends_with(']')) text = text.substr(1, text.size() - 2);
  if (!text.empty()) address.host = text;
}

void ServerCall::add(CLI::App& command) {
  command
      .add_option(
          "--host", host_,
          "where the server is (default: $STEELYARD_HOST, else 127.0.0.1:11434); its key, if it wants "
          "one, is $STEELYARD_API_KEY")
      ->type_name("ADDRESS");
}

std::string ServerCall::where() const {
  ServerAddress address;
  if (const char* env = std::getenv("STEELYARD_HOST"); env && *env) read_address(env, address);
  if (!host_.empty()) read_address(host_, address);
  // What a server listens on for everybody is called by its own address.
  if (address.host == "0.0.0.0" || address.host == "::") address.host = "127.0.0.1";
  const bool v6 = address.host.find(':') != std::string::npos;
  return fmt::format(fmt::runtime(v6 ? "http://[{}]:{}" : "http://{}:{}"), address.host, address.port);
}

std::string ServerCall::send(const std::string& method, const std::string& path,
                             const nlohmann::ordered_json& body, long patience) const {
  const std::string where = this->where();
  WebRequest request{.method = method, .url = where + path};
  if (!body.is_null()) request.body = body.dump();
  request.headers = {"Content-Type: application/json"};
  if (const char* key = std::getenv("STEELYARD_API_KEY"); key && *key)
    request.secret = std::string("Authorization: Bearer ") + key;
  const WebResponse response = WebClient({}, patience).send(request);
  if (!response.failure.empty())
    throw_error(ErrorKind::io, "no server answers at {} ({}): start one with `steelyard serve`", where,
                response.failure);
  if (response.status != 200) {
    const auto answer = nlohmann::ordered_json::parse(response.body, nullptr, false);
    const bool said = answer.is_object() && answer.contains("error") && answer["error"].is_string();
    throw_error(
        kind_of(response.status), "the server at {} says: {}", where,
        said ? readable(answer["error"].get<std::string>(), 1000) : fmt::format("HTTP {}", response.status));
  }
  return response.body;
}

nlohmann::ordered_json ServerCall::operator()(const std::string& method, const std::string& path,
                                              const nlohmann::ordered_json& body) const {
  auto answer = nlohmann::ordered_json::parse(send(method, path, body, 3600), nullptr, false);
  if (!answer.is_object()) throw_error(ErrorKind::io, "what answers at {} is no Steelyard", where());
  return answer;
}

std::string ServerCall::text(const std::string& path) const { return send("GET", path, nullptr, 10); }

}  // namespace steelyard
