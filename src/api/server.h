// The HTTP server, in the dialects of Ollama, OpenAI, Anthropic and llama-server over one ModelManager. A few
// threads serve any number of connections; a slow reader holds up nobody (its text gathers until it reads
// on).
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api/api_keys.h"
#include "engine/model_manager.h"
#include "observe/telemetry.h"
#include "store/store.h"

namespace steelyard {

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address or a name
  std::uint16_t port = 11434;      // 0: any free one, see Server::port()
  unsigned threads = 2;
  // Bytes; larger requests get 413. A context of a million tokens, whatever the script, is no more.
  std::uint64_t body_limit = 16 << 20;
  std::uint64_t bodies_limit = 128 << 20;         // of all requests being received together; beyond: 503
  std::vector<std::string> allowed_origins = {};  // beside loopback's: "https://host", "*"
  std::vector<std::string> allowed_hosts = {};    // beside loopback's names, when listening on loopback
  api::ApiKeys keys = {};                         // empty: nobody needs one
  // To receive a request's header, and between two pieces of its body; idle connections ×4, a whole body ×10.
  std::uint32_t header_timeout_s = 30;
  std::uint32_t write_timeout_s = 120;  // a reader that takes nothing for so long is dropped
  std::uint32_t max_connections = 8192;
  std::chrono::milliseconds stream_comment{15000};  // a stream of events says so often that it still works
  std::string version = "0";                        // that /api/version tells
  // One line a request, and one for a model that can't be listed; may be called from several threads.
  std::function<void(const std::string& line)> log;
  // What /metrics tells of the machine; null: nothing.
  std::shared_ptr<const Telemetry> telemetry = nullptr;
};

class Server {
 public:
  // Binds and listens, so that connections queue from here on. Throws Error(io) in one sentence when the
  // address can't be had (port in use). `models` and `store` must outlive the server.
  Server(ServerOptions options, ModelManager& models, const ModelStore& store);
  ~Server();  // stop() and wait

  std::uint16_t port() const;
  std::string address() const;  // "127.0.0.1:11434", the first of those it listens on
  bool loopback() const;        // only this machine can reach it

  // Serves until stop(); blocks. At the end running answers get `grace_s` to finish, then are cancelled.
  void run();
  // From any thread, and from a signal-waiting thread (not from a signal handler itself).
  void stop();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace steelyard
