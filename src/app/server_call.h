// Calls to a running server, for the commands that ask one.
#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>

namespace steelyard {

struct ServerAddress {
  std::string host = "127.0.0.1";
  std::uint16_t port = 11434;
};
// "host", "host:port", ":port", "[::1]:port", with or without http:// before it; what isn't said stays as it
// is. Throws UsageError for a port that is none.
void read_address(std::string text, ServerAddress& address);

// Where the server is: as --host says, else $STEELYARD_HOST, else on this machine; its key is
// $STEELYARD_API_KEY.
class ServerCall {
 public:
  void add(CLI::App& command);
  // The answer's object. Throws Error: io when no server answers, else as the server says.
  nlohmann::ordered_json operator()(const std::string& method, const std::string& path,
                                    const nlohmann::ordered_json& body = {}) const;
  // The same of GET, as it came.
  std::string text(const std::string& path) const;
  std::string where() const;  // "http://127.0.0.1:11434"

 private:
  std::string send(const std::string& method, const std::string& path, const nlohmann::ordered_json& body,
                   long patience) const;

  std::string host_;
};

}  // namespace steelyard
