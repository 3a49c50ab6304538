// A server on a loopback port over small random models, a client that sees every byte, and the log's lines.
#pragma once

#include <gtest/gtest.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "api/server.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "store/store.h"

namespace steelyard {

struct Response {
  int status = 0;
  std::string head, body;  // the body without its chunks' frames
};

// One connection, blocking. Throws std::runtime_error when it can't be made or ends too soon.
class Client {
 public:
  explicit Client(std::uint16_t port);
  ~Client();
  Client(const Client&) = delete;
  void send(const std::string& text);
  void request(const std::string& method, const std::string& path, const std::string& body = "",
               const std::string& headers = "Host: localhost\r\n");
  Response response(bool head_only = false);
  void end_sending();
  bool closed();  // by the server; waits for it
  std::string take_until(const std::string& end);
  std::string take(std::size_t n);

 private:
  bool receive();
  std::string cut(std::size_t n);
  int socket_ = -1;
  std::string data_;  // received, not taken yet
};

// Takes a server's log; from any thread. The server may outlive it: they own the lines together.
class LogLines {
 public:
  ServerOptions options() const;  // of a server that logs here
  std::vector<std::string> all() const;

 private:
  struct Lines {
    std::mutex mutex;
    std::vector<std::string> lines;
  };
  std::shared_ptr<Lines> lines_ = std::make_shared<Lines>();
};

// A server with "tiny", and "plain" without a chat template, in its store.
class ServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  static void TearDownTestSuite();
  void start(ServerOptions options = {},
             ModelOptions model_options = {.threads = 1, .context = 512, .slots = 4},
             ModelManager::Load load = {});
  void stop();
  void SetUp() override { start(); }
  void TearDown() override { stop(); }
  Response ask(const std::string& method, const std::string& path, const std::string& body = "");
  std::uint32_t active();  // requests that engines have

  static inline std::filesystem::path directory_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<ModelManager> models_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
  std::uint16_t port_ = 0;
};

inline const std::string kGenerate =
    R"({"model": "tiny", "raw": true, "prompt": "hello there", "options": {"num_predict": 6, "seed": 5}})";
inline const std::string kEndless =
    R"({"model": "tiny", "raw": true, "prompt": "x", "stream": false,
        "options": {"num_predict": 100000, "num_ctx": 1000, "temperature": 2, "top_k": 0, "seed": 3}})";

}  // namespace steelyard
