// Ordinary and hostile clients at once, while two models take turns in memory that holds one. Built a second
// time under the thread sanitizer (race_test), which is what it is for; so it's short, and counts rounds, not
// seconds.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "api/server.h"
#include "api/testing/server_fixture.h"
#include "device/device.h"
#include "engine/errors.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"

namespace steelyard {
namespace {

using Json = nlohmann::json;

// Loads real models, one at a time.
class OneAtATime {
 public:
  ModelManager::Load load() {
    return [this](const std::filesystem::path& path, std::uint32_t context, const LoadProgress& progress) {
      const std::lock_guard lock(mutex_);
      if (!present_.expired()) throw NoRoom("there is room for one", "CPU", 1, 0);
      const ModelOptions options{
          .device = "cpu", .threads = 1, .context = std::max(context, 512u), .slots = 4};
      auto model = std::make_shared<const LoadedModel>(prepare_model(path, options), progress);
      present_ = model;
      ++loads;
      return model;
    };
  }
  std::atomic<int> loads{0};

 private:
  std::mutex mutex_;
  std::weak_ptr<const LoadedModel> present_;
};

class Stress : public ServerTest {
 protected:
  void SetUp() override { start({.threads = 2}, {}, machine_.load()); }
  void TearDown() override {
    join();
    stop();
  }
  void join() {
    for (auto& thread : threads_) thread.join();
    threads_.clear();
  }
  // `work(i)` for i from 0 to rounds - 1; a client whose connection breaks goes on with the next.
  void thread(int rounds, std::function<void(int)> work) {
    threads_.emplace_back([this, rounds, work = std::move(work)] {
      for (int i = 0; i < rounds && !over_; ++i) {
        try {
          work(i);
        } catch (const std::runtime_error&) {
        }
      }
    });
  }
  // The same request, whatever else goes on: one text.
  void generate(int i) {
    const bool plain = i % 2;
    Json request = Json::parse(kGenerate);
    request["model"] = plain ? "plain" : "tiny";
    request["stream"] = false;
    const Response r = ask("POST", "/api/generate", request.dump());
    if (r.status == 503) return;
    EXPECT_EQ(r.status, 200) << r.body;
    if (r.status != 200) return;
    const std::string text = Json::parse(r.body)["response"];
    const std::lock_guard lock(mutex_);
    if (texts_[plain].empty()) texts_[plain] = text;
    EXPECT_EQ(text, texts_[plain]);
    ++answered_;
  }
  void chat(int i) {
    const std::string path = i % 2 ? "/api/chat" : "/v1/chat/completions";
    const Response r =
        ask("POST", path, R"({"model": "tiny", "stream": true, "truncate": true, "keep_alive": "1m",
        "max_tokens": 4, "options": {"num_predict": 4}, "messages": [{"role": "user", "content": "hello"}]})");
    EXPECT_TRUE(r.status == 200 || r.status == 503) << r.body;
  }
  void unload(int i) {
    ask("POST", "/api/generate",
        i % 2 ? R"({"model": "plain", "keep_alive": 0})" : R"({"model": "tiny", "keep_alive": 0})");
  }
  void look(int) {
    for (const char* path : {"/", "/api/tags", "/v1/models", "/api/version"})
      EXPECT_EQ(ask("GET", path).status, 200);
    active();
  }
  void vanish(int i) {
    Json request = Json::parse(kEndless);
    request["stream"] = i % 2 == 0;
    Client client(port_);
    client.request("POST", "/api/generate", request.dump());
    if (i % 4 == 0) client.take_until("response");
    if (i % 4 == 1) client.send("x");
  }
  void hostile(int i) {
    const std::string post = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n";
    const std::string texts[] = {"\x16\x03\x01", "GET / HTTP/1.1\r\n\r\n", "X: " + std::string(70000, 'y'),
                                 post + std::string(5000, ' '), post + std::string(100000, '[')};
    Client client(port_);
    client.send(texts[i % 5]);
    if (i % 5 != 3 && i % 5 != 0) client.take_until("\r\n");
  }
  void begin(int rounds) {
    for (int i = 0; i < 3; ++i) thread(rounds, [this, i](int n) { generate(n + i); });
    thread(rounds, [this](int n) { chat(n); });
    thread(rounds, [this](int n) { unload(n); });
    thread(rounds, [this](int n) { look(n); });
    thread(rounds, [this](int n) { vanish(n); });
    thread(rounds, [this](int n) { hostile(n); });
  }

  OneAtATime machine_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::string texts_[2];
  std::atomic<int> answered_{0};
  std::atomic<bool> over_{false};
};

TEST_F(Stress, EverybodyIsServedWhileModelsComeAndGo) {
  begin(10);
  join();
  EXPECT_GT(answered_, 0);
  EXPECT_GT(machine_.loads, 1);
  EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(Stress, TheServerEndsInTheMiddle) {
  begin(1000);
  while (answered_ < 3) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  over_ = true;
  server_->stop();
  join();
  EXPECT_THROW(Client{port_}, std::runtime_error);
}

}  // namespace
}  // namespace steelyard
