// Connections: what comes over the wire, who goes, who waits; with a real engine on a tiny random model.
#include "api/session.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <stop_token>
#include <thread>

#include "api/handlers.h"
#include "api/server.h"
#include "api/testing/server_fixture.h"
#include "base/error.h"
#include "device/device.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"

namespace steelyard {
namespace {

namespace asio = boost::asio;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;
using namespace std::chrono_literals;

TEST_F(ServerTest, HeadersThatWouldBeReadInTwoWaysEndTheConnection) {
  const std::string get = "GET / HTTP/1.1\r\n", post = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\n";
  const std::pair<std::string, int> cases[] = {
      {get + "\r\n", 400},
      {get + "Host: localhost\r\nHost: localhost\r\n\r\n", 400},
      {post + "Transfer-Encoding: xchunked\r\n\r\n", 501},
      {post + "Transfer-Encoding: identity\r\nContent-Length: 2\r\n\r\n{}", 400},
      {post + "Transfer-Encoding: gzip\r\n\r\n", 501},
      {post + "Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}", 415}};
  for (const auto& [text, status] : cases) {
    Client client(port_);
    client.send(text);
    EXPECT_EQ(client.response().status, status) << text;
    EXPECT_TRUE(client.closed()) << text;
  }
}

TEST_F(ServerTest, TheHeaderOfAStreamComesBeforeItsTextAndCommentsFollow) {
  stop();
  start({.stream_comment = 1ms});
  Client client(port_);
  client.request("POST", "/v1/chat/completions",
                 Json{{"model", "tiny"},
                      {"stream", true},
                      {"max_tokens", 100},
                      {"messages", {{{"role", "user"}, {"content", std::string(300, 'x')}}}}}
                     .dump());
  const Response r = client.response();
  EXPECT_EQ(r.status, 200);
  EXPECT_THAT(r.body, StartsWith("data: "));
  EXPECT_THAT(r.body, HasSubstr(": working\n\n"));
}

TEST_F(ServerTest, UploadsShareABudgetAndEndInTime) {
  stop();
  start({.bodies_limit = 1 << 20, .header_timeout_s = 1});
  const std::string head = "POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2000000\r\n\r\n";
  Client first(port_), second(port_);
  first.send(head + std::string(900000, ' '));
  std::this_thread::sleep_for(100ms);
  second.send(head + std::string(900000, ' '));
  const Response refused = second.response();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After"));
  EXPECT_EQ(ask("POST", "/api/generate", kGenerate).status, 200);  // small bodies have room
  EXPECT_TRUE(first.closed());                                     // the rest never came
  int status = 503;                                                // its part is free a moment after that
  for (int tries = 0; status == 503 && tries < 1000; ++tries)
    status = ask("POST", "/api/chat", "{" + std::string(900000, ' ')).status;
  EXPECT_EQ(status, 400);
}

TEST_F(ServerTest, SurvivesNonsenseOnTheWire) {
  Client garbage(port_);
  garbage.send("this is no HTTP at all\r\n\r\n");
  EXPECT_EQ(garbage.response().status, 400);
  EXPECT_TRUE(garbage.closed());
  Client huge(port_);
  huge.send("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_EQ(huge.response().status, 413);
  Client header(port_);
  header.send("GET / HTTP/1.1\r\nX: " + std::string(100000, 'x'));
  EXPECT_EQ(header.response().status, 431);
  EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(ServerTest, KeepsConnectionsForTheNextRequest) {
  Client client(port_);
  for (int i = 0; i < 3; ++i) {
    client.request("POST", "/api/generate", kGenerate);
    EXPECT_EQ(client.response().status, 200);
  }
}

TEST_F(ServerTest, ADisconnectCancelsTheAnswer) {
  for (const bool stream : {true, false}) {
    auto client = std::make_unique<Client>(port_);
    client->request("POST", "/api/generate",
                    Json{{"model", "tiny"},
                         {"raw", true},
                         {"prompt", "x"},
                         {"stream", stream},
                         {"options", {{"num_predict", 100000}, {"temperature", 2}, {"top_k", 0}}}}
                        .dump());
    for (int i = 0; i < 500 && active() == 0; ++i) std::this_thread::sleep_for(5ms);
    client.reset();
    for (int i = 0; i < 1000 && active() > 0; ++i) std::this_thread::sleep_for(5ms);
    EXPECT_EQ(active(), 0u) << "stream " << stream;
  }
}

TEST_F(ServerTest, APromptThatNobodyWaitsForIsNotMade) {
  const api::Handlers handlers(*models_, *store_, "1");
  const ModelManager::Lease lease = models_->acquire({"tiny"});
  for (const auto& [path, body] :
       {std::pair("/api/chat", R"({"model": "tiny", "messages": [{"role": "user", "content": "x"}]})"),
        std::pair("/v1/chat/completions",
                  R"({"model": "tiny", "messages": [{"role": "user", "content": "x"}]})"),
        std::pair("/api/generate", R"({"model": "tiny", "prompt": "x"})")})
    for (const bool stopped : {false, true}) {
      std::stop_source gone;
      if (stopped) gone.request_stop();
      const api::Handled asked = handlers.handle({"POST", path, body, gone.get_token()});
      ASSERT_TRUE(asked.with_model) << path;
      const api::Handled prepared = asked.with_model(lease);
      EXPECT_EQ(prepared.format == nullptr, stopped) << path << prepared.reply.body;
      EXPECT_EQ(prepared.reply.body.find("stopped") != std::string::npos, stopped) << prepared.reply.body;
    }
}

TEST_F(ServerTest, ADisconnectIsNoticedBehindBytesOfANextRequest) {
  auto client = std::make_unique<Client>(port_);
  client->request("POST", "/api/generate", kEndless);
  client->send("\n");
  for (int i = 0; i < 1000 && active() == 0; ++i) std::this_thread::sleep_for(1ms);
  client.reset();
  for (int i = 0; i < 1000 && active() > 0; ++i) std::this_thread::sleep_for(5ms);
  EXPECT_EQ(active(), 0u);
}

TEST_F(ServerTest, WhoOnlyEndsItsSendingStillGetsItsAnswer) {
  for (const bool stream : {false, true}) {
    Json request = Json::parse(kGenerate);
    request["stream"] = stream;
    request["options"]["num_predict"] = 200;
    Client client(port_);
    client.request("POST", "/api/generate", request.dump());
    client.end_sending();
    const Response r = client.response();
    EXPECT_THAT(r.head, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(r.body, HasSubstr("\"done\":true"));
  }
}

TEST_F(ServerTest, WhoWaitsForALoadHoldsUpNobody) {
  stop();
  std::atomic<bool> held = true;
  std::atomic<int> slow_loads = 0;
  start({}, {}, [&](const std::filesystem::path& path, std::uint32_t, const LoadProgress& progress) {
    const bool slow = path.stem() == "plain";
    slow_loads += slow;
    for (; slow && held; std::this_thread::sleep_for(1ms)) progress(0, 1);
    return std::make_shared<const LoadedModel>(
        prepare_model(path, {.threads = 1, .context = 512, .slots = 4}));
  });
  const std::string slow =
      R"({"model": "plain", "prompt": "x", "stream": false, "options": {"num_predict": 1}})";
  std::vector<std::unique_ptr<Client>> waiting;
  for (int i = 0; i < 40; ++i) {
    waiting.push_back(std::make_unique<Client>(port_));
    waiting.back()->request("POST", "/api/generate", slow);
  }
  for (const char* path : {"/", "/api/version", "/api/tags", "/v1/models"})
    EXPECT_EQ(ask("GET", path).status, 200) << path;
  EXPECT_EQ(ask("POST", "/api/generate", kGenerate).status, 200);  // another model
  held = false;
  for (auto& client : waiting) EXPECT_EQ(client->response().status, 200);
  // The end of the server ends a load, and those who wait for it hear of it.
  held = true;
  models_->unload(
      "plain");  // once nobody holds it: an answer is there a moment before its lease is given back
  for (int i = 0; i < 2000 && models_->loaded().size() > 1; ++i) std::this_thread::sleep_for(5ms);
  Client last(port_);
  last.request("POST", "/api/generate", slow);
  for (int i = 0; i < 2000 && slow_loads < 2; ++i) std::this_thread::sleep_for(5ms);
  stop();
  EXPECT_EQ(last.response().status, 503);
}

TEST_F(ServerTest, ServesManyStreamsAtOnce) {
  constexpr int kStreams = 60;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<Client>(port_));
    clients.back()->request("POST", "/api/generate", kGenerate);
  }
  std::string first;
  for (auto& client : clients) {
    const Response r = client->response();
    ASSERT_EQ(r.status, 200);
    std::string text;
    std::istringstream lines(r.body);
    for (std::string line; std::getline(lines, line);)
      text += Json::parse(line)["response"].get<std::string>();
    if (first.empty()) first = text;
    EXPECT_EQ(text, first);  // the same request, whatever else runs
  }
}

TEST_F(ServerTest, AFullQueueIsSaidAtOnce) {
  stop();
  start({}, {.threads = 1, .context = 512, .slots = 1, .max_queue = 1});
  const std::string endless =
      R"({"model": "tiny", "raw": true, "prompt": "x", "options": {"num_predict": 400, "temperature": 2, "top_k": 0}})";
  std::vector<std::unique_ptr<Client>> clients;
  int refused = 0;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(std::make_unique<Client>(port_));
    clients.back()->request("POST", "/api/generate", endless);
  }
  for (auto& client : clients) {
    const Response r = client->response();
    if (r.status != 503) continue;
    ++refused;
    EXPECT_THAT(r.head, HasSubstr("Retry-After"));
  }
  EXPECT_GT(refused, 0);
}

TEST_F(ServerTest, APortInUseIsOneSentence) {
  try {
    Server second({.port = server_->port()}, *models_, *store_);
    FAIL() << "two servers share a port";
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::io);
    EXPECT_THAT(e.what(), HasSubstr("in use"));
  }
}

TEST_F(ServerTest, ACancelledStreamHasALineInTheLog) {
  stop();
  LogLines log;
  start(log.options());
  auto client = std::make_unique<Client>(port_);
  Json request = Json::parse(kEndless);
  request["stream"] = true;
  client->request("POST", "/api/generate", request.dump());
  client->take_until("response");
  client.reset();
  for (int i = 0; i < 1000 && active() > 0; ++i) std::this_thread::sleep_for(5ms);
  stop();
  const auto lines = log.all();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines[0], HasSubstr(" 499 "));
  EXPECT_THAT(lines[0], HasSubstr("the client has gone"));
}

TEST_F(ServerTest, ANameServesAllItsAddresses) {
  stop();
  start({.host = "localhost"});
  asio::io_context io;
  std::set<std::string> served;
  for (const auto& entry : asio::ip::tcp::resolver(io).resolve("localhost", "0")) {
    const auto address = entry.endpoint().address();
    boost::system::error_code error;
    asio::ip::tcp::acceptor probe(io);
    probe.open(entry.endpoint().protocol(), error);
    if (!error) probe.bind({address, 0}, error);
    if (error) continue;  // named, but not there
    asio::ip::tcp::socket socket(io);
    socket.connect({address, server_->port()}, error);
    EXPECT_FALSE(error) << address;
    served.insert(address.to_string());
  }
  EXPECT_FALSE(served.empty());
}

}  // namespace
}  // namespace steelyard
