// The server over a loopback socket, with a real engine on a tiny random model.
#include "api/server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio.hpp>
#include <filesystem>
#include <mutex>
#include <nlohmann/json.hpp>
#include <set>
#include <stop_token>
#include <thread>

#include "api/handlers.h"
#include "base/error.h"
#include "device/device.h"
#include "engine/loaded_model.h"
#include "engine/model_manager.h"
#include "store/synth.h"

namespace steelyard {
namespace {

namespace asio = boost::asio;
using ::testing::HasSubstr;
using ::testing::StartsWith;
using Json = nlohmann::json;
using namespace std::chrono_literals;

struct Response {
  int status = 0;
  std::string head, body;  // the body without its chunks' frames
};

// A client of one connection.
class Client {
 public:
  explicit Client(std::uint16_t port) : socket_(io_) {
    socket_.connect({asio::ip::make_address("127.0.0.1"), port});
  }
  void send(const std::string& text) { asio::write(socket_, asio::buffer(text)); }
  void request(const std::string& method, const std::string& path, const std::string& body = "",
               const std::string& headers = "Host: localhost\r\n") {
    send(method + " " + path + " HTTP/1.1\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
         "\r\n\r\n" + body);
  }
  Response response(bool head_only = false) {
    Response r;
    r.head = take_until("\r\n\r\n");
    r.status = std::stoi(r.head.substr(9, 3));
    if (head_only) return r;
    if (r.head.find("Transfer-Encoding: chunked") != std::string::npos) {
      for (;;) {
        const std::size_t n = std::stoul(take_until("\r\n"), nullptr, 16);
        r.body += take(n + 2).substr(0, n);
        if (n == 0) return r;
      }
    }
    const auto at = r.head.find("Content-Length: ");
    return at == std::string::npos ? r : (r.body = take(std::stoul(r.head.substr(at + 16))), r);
  }
  void end_sending() { socket_.shutdown(asio::ip::tcp::socket::shutdown_send); }
  bool closed() {
    char byte;
    boost::system::error_code error;
    return socket_.read_some(asio::buffer(&byte, 1), error) == 0 && error;
  }
  std::string take_until(const std::string& end) {
    const std::size_t n = asio::read_until(socket_, asio::dynamic_buffer(data_), end);
    return cut(n);
  }
  std::string take(std::size_t n) {
    if (data_.size() < n)
      asio::read(socket_, asio::dynamic_buffer(data_), asio::transfer_exactly(n - data_.size()));
    return cut(n);
  }

 private:
  std::string cut(std::size_t n) {
    std::string out = data_.substr(0, n);
    data_.erase(0, n);
    return out;
  }
  asio::io_context io_;
  asio::ip::tcp::socket socket_;
  std::string data_;
};

class ServerTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    directory_ =
        std::filesystem::temp_directory_path() / ("steelyard_server_test." + std::to_string(getpid()));
    std::filesystem::create_directories(directory_);
    write_synthetic_model({.shape = "tiny-llama", .type = "Q8_0", .vocabulary = true},
                          directory_ / "tiny.gguf");
    write_synthetic_model({.shape = "tiny-llama", .type = "Q8_0", .vocabulary = true, .chat_template = false},
                          directory_ / "plain.gguf");
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(directory_); }

  void start(ServerOptions options = {},
             ModelOptions model_options = {.threads = 1, .context = 512, .slots = 4},
             ModelManager::Load load = {}) {
    store_ = std::make_unique<ModelStore>(std::vector{directory_});
    models_ =
        std::make_unique<ModelManager>([this](std::string_view name) { return store_->find(name).path; },
                                       model_options, ModelEvents{}, kDefaultKeepAlive, std::move(load));
    options.port = 0;
    server_ = std::make_unique<Server>(options, *models_, *store_);
    thread_ = std::thread([this] { server_->run(); });
  }
  void SetUp() override { start(); }
  void TearDown() override { stop(); }
  void stop() {
    if (!server_) return;
    server_->stop();
    thread_.join();
    server_.reset();
    models_.reset();
  }
  Response ask(const std::string& method, const std::string& path, const std::string& body = "") {
    Client client(server_->port());
    client.request(method, path, body);
    return client.response(method == "HEAD");
  }
  std::uint32_t active() {
    std::uint32_t n = 0;
    for (const auto& entry : models_->loaded())
      n += entry.model->engine().stats().active + entry.model->engine().stats().waiting;
    return n;
  }

  static inline std::filesystem::path directory_;
  std::unique_ptr<ModelStore> store_;
  std::unique_ptr<ModelManager> models_;
  std::unique_ptr<Server> server_;
  std::thread thread_;
};

const std::string kGenerate =
    R"({"model": "tiny", "raw": true, "prompt": "hello there", "options": {"num_predict": 6, "seed": 5}})";

TEST_F(ServerTest, AnswersTheHeartbeat) {
  EXPECT_EQ(ask("GET", "/").body, "Ollama is running");
  EXPECT_EQ(ask("HEAD", "/").status, 200);
  EXPECT_TRUE(Json::parse(ask("GET", "/api/version").body).contains("version"));
}

TEST_F(ServerTest, ListsTheStore) {
  const Json tags = Json::parse(ask("GET", "/api/tags").body);
  ASSERT_EQ(tags["models"].size(), 2u);
  EXPECT_EQ(tags["models"][0]["name"], "plain");
  EXPECT_EQ(tags["models"][1]["name"], "tiny");
  EXPECT_EQ(tags["models"][1]["details"]["family"], "llama");
  EXPECT_THAT(tags["models"][1]["digest"].get<std::string>(), ::testing::MatchesRegex("[0-9a-f]{64}"));
  EXPECT_EQ(Json::parse(ask("GET", "/v1/models").body)["data"][1]["id"], "tiny");
  EXPECT_EQ(Json::parse(ask("GET", "/v1/models/tiny").body)["id"], "tiny");
  EXPECT_EQ(ask("GET", "/v1/models/other").status, 404);
}

TEST_F(ServerTest, StreamsLinesThatAddUpToTheWholeAnswer) {
  const Response stream = ask("POST", "/api/generate", kGenerate);
  ASSERT_EQ(stream.status, 200);
  EXPECT_THAT(stream.head, HasSubstr("application/x-ndjson"));
  std::string text;
  Json last;
  std::istringstream lines(stream.body);
  for (std::string line; std::getline(lines, line);) {
    last = Json::parse(line);
    text += last["response"].get<std::string>();
  }
  EXPECT_EQ(last["done"], true);
  EXPECT_EQ(last["eval_count"], 6);
  EXPECT_EQ(last["done_reason"], "length");
  EXPECT_GT(last["total_duration"], 0);
  Json request = Json::parse(kGenerate);
  request["stream"] = false;
  const Json whole = Json::parse(ask("POST", "/api/generate", request.dump()).body);
  EXPECT_EQ(whole["response"], text);  // same seed, same text
  EXPECT_EQ(whole["prompt_eval_count"], last["prompt_eval_count"]);
  EXPECT_TRUE(whole["steelyard"].contains("cached_tokens"));
  request["options"]["num_predict"] = 1;
  EXPECT_GT(Json::parse(ask("POST", "/api/generate", request.dump()).body)["eval_duration"], 0);
}

TEST_F(ServerTest, LoadsAndUnloadsOnEmptyPrompts) {
  EXPECT_EQ(Json::parse(ask("POST", "/api/generate", R"({"model": "tiny"})").body)["done_reason"], "load");
  EXPECT_EQ(models_->loaded().size(), 1u);
  EXPECT_EQ(
      Json::parse(ask("POST", "/api/chat", R"({"model": "tiny", "keep_alive": 0})").body)["done_reason"],
      "unload");
  EXPECT_EQ(models_->loaded().size(), 0u);
}

TEST_F(ServerTest, TellsErrorsInEachDialect) {
  EXPECT_EQ(ask("GET", "/nowhere").status, 404);
  EXPECT_EQ(ask("POST", "/api/generate", "{").status, 400);
  EXPECT_EQ(ask("POST", "/api/generate", R"({"model": "nobody", "prompt": "x"})").status, 404);
  const Response wrong_method = ask("DELETE", "/api/generate");
  EXPECT_EQ(wrong_method.status, 405);
  EXPECT_THAT(wrong_method.head, HasSubstr("Allow: POST"));
  const std::string chat = R"({"model": "plain", "messages": [{"role": "user", "content": "x"}]})";
  const Response no_template = ask("POST", "/v1/chat/completions", chat);
  EXPECT_EQ(no_template.status, 400);
  EXPECT_THAT(Json::parse(no_template.body)["error"]["message"].get<std::string>(),
              HasSubstr("chat template"));
  const Response native = ask("POST", "/api/chat", chat);
  EXPECT_EQ(native.status, 400);
  EXPECT_THAT(Json::parse(native.body)["error"].get<std::string>(), HasSubstr("chat template"));
  const Response too_long =
      ask("POST", "/api/generate",
          Json{{"model", "tiny"}, {"raw", true}, {"prompt", std::string(5000, 'x')}}.dump());
  EXPECT_EQ(too_long.status, 400);
  EXPECT_THAT(Json::parse(too_long.body)["error"].get<std::string>(), HasSubstr("512"));
}

TEST_F(ServerTest, RefusesForeignHostsAndOrigins) {
  Client host(server_->port());
  host.request("GET", "/api/tags", "", "Host: evil.com\r\n");
  EXPECT_EQ(host.response().status, 403);
  Client origin(server_->port());
  origin.request("GET", "/api/tags", "", "Host: localhost\r\nOrigin: https://evil.com\r\n");
  EXPECT_EQ(origin.response().status, 403);
  Client own(server_->port());
  own.request("OPTIONS", "/api/chat", "", "Host: localhost\r\nOrigin: http://localhost:3000\r\n");
  EXPECT_THAT(own.response().head, HasSubstr("Access-Control-Allow-Origin: http://localhost:3000"));
}

TEST_F(ServerTest, APreflightEchoesTheHeadersOfAnAdmittedOrigin) {
  Client client(server_->port());
  client.request("OPTIONS", "/v1/chat/completions", "",
                 "Host: localhost\r\nOrigin: http://localhost:5173\r\nAccess-Control-Request-Method: POST\r\n"
                 "Access-Control-Request-Headers: content-type,x-stainless-timeout\r\n");
  const std::string head = client.response(true).head;
  EXPECT_THAT(head, HasSubstr(" 204 "));
  EXPECT_THAT(head, HasSubstr("Access-Control-Allow-Headers: content-type,x-stainless-timeout"));
  EXPECT_THAT(head, HasSubstr("Access-Control-Allow-Methods: GET, HEAD, POST"));
  Client foreign(server_->port());
  foreign.request("OPTIONS", "/api/chat", "", "Host: localhost\r\nOrigin: https://evil.com\r\n");
  EXPECT_EQ(foreign.response().status, 403);
}

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
    Client client(server_->port());
    client.send(text);
    EXPECT_EQ(client.response().status, status) << text;
    EXPECT_TRUE(client.closed()) << text;
  }
}

TEST_F(ServerTest, SaysWhatIsNotBuiltYetAndWhatToDoInstead) {
  const Response ps = ask("GET", "/api/ps");
  EXPECT_EQ(ps.status, 404);
  EXPECT_THAT(ps.body, HasSubstr("isn't built yet"));
  EXPECT_THAT(ask("POST", "/v1/responses", "{}").body, HasSubstr("/v1/chat/completions"));
  EXPECT_THAT(ask("HEAD", "/api/blobs/sha256-00").head, HasSubstr("404"));
  EXPECT_EQ(ask("GET", "/api/tags/").status, 200);
  EXPECT_EQ(ask("GET", "/v1/models/tiny/").status, 200);
}

TEST_F(ServerTest, ErrorsCarryTheCodesThatClientsLookFor) {
  const std::string messages =
      R"("messages": [{"role": "user", "content": ")" + std::string(3000, 'x') + R"("}])";
  const Json full =
      Json::parse(ask("POST", "/v1/chat/completions", R"({"model": "tiny", )" + messages + "}").body);
  EXPECT_EQ(full["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(full["error"]["type"], "invalid_request_error");
  const Response unknown = ask("POST", "/v1/chat/completions", R"({"model": "nobody", )" + messages + "}");
  EXPECT_EQ(Json::parse(unknown.body)["error"]["code"], "model_not_found");
  EXPECT_THAT(unknown.body, ::testing::Not(HasSubstr(directory_.string())));
}

TEST_F(ServerTest, ALargerContextIsHadOrRefusedNeverCut) {
  Json request = Json::parse(kGenerate);
  request["stream"] = false;
  request["prompt"] = std::string(700, 'x');
  EXPECT_EQ(ask("POST", "/api/generate", request.dump()).status, 400);
  request["options"]["num_ctx"] = 1024;
  const Response grown = ask("POST", "/api/generate", request.dump());
  EXPECT_EQ(grown.status, 200) << grown.body;
  const auto before = models_->loaded().at(0).model;
  request["options"]["num_ctx"] = 600;  // a limit of this request alone
  EXPECT_EQ(ask("POST", "/api/generate", request.dump()).status, 400);
  request["prompt"] = "x";
  EXPECT_EQ(ask("POST", "/api/generate", request.dump()).status, 200);
  EXPECT_EQ(models_->loaded().at(0).model, before);
  request["options"]["num_ctx"] = 1000000000;
  const Response refused = ask("POST", "/api/generate", request.dump());
  EXPECT_EQ(refused.status, 400);
  EXPECT_THAT(refused.body, HasSubstr("1000000000"));
  EXPECT_EQ(models_->loaded().at(0).model, before);
}

TEST_F(ServerTest, TheHeaderOfAStreamComesBeforeItsTextAndCommentsFollow) {
  stop();
  start({.stream_comment = 1ms});
  Client client(server_->port());
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
  Client first(server_->port()), second(server_->port());
  first.send(head + std::string(900000, ' '));
  std::this_thread::sleep_for(100ms);
  second.send(head + std::string(900000, ' '));
  const Response refused = second.response();
  EXPECT_EQ(refused.status, 503);
  EXPECT_THAT(refused.head, HasSubstr("Retry-After"));
  EXPECT_EQ(ask("POST", "/api/generate", kGenerate).status, 200);  // small bodies have room
  EXPECT_TRUE(first.closed());                                     // the rest never came
  EXPECT_EQ(ask("POST", "/api/chat", "{" + std::string(900000, ' ')).status,
            400);  // and its part is free again
}

TEST_F(ServerTest, SurvivesNonsenseOnTheWire) {
  Client garbage(server_->port());
  garbage.send("this is no HTTP at all\r\n\r\n");
  EXPECT_EQ(garbage.response().status, 400);
  EXPECT_TRUE(garbage.closed());
  Client huge(server_->port());
  huge.send("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999999\r\n\r\n");
  EXPECT_EQ(huge.response().status, 413);
  Client header(server_->port());
  header.send("GET / HTTP/1.1\r\nX: " + std::string(100000, 'x'));
  EXPECT_EQ(header.response().status, 431);
  EXPECT_EQ(ask("GET", "/").status, 200);
}

TEST_F(ServerTest, KeepsConnectionsForTheNextRequest) {
  Client client(server_->port());
  for (int i = 0; i < 3; ++i) {
    client.request("POST", "/api/generate", kGenerate);
    EXPECT_EQ(client.response().status, 200);
  }
}

TEST_F(ServerTest, ADisconnectCancelsTheAnswer) {
  for (const bool stream : {true, false}) {
    auto client = std::make_unique<Client>(server_->port());
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

const char* const kEndless =
    R"({"model": "tiny", "raw": true, "prompt": "x", "stream": false,
        "options": {"num_predict": 100000, "num_ctx": 1000, "temperature": 2, "top_k": 0}})";

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
  auto client = std::make_unique<Client>(server_->port());
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
    Client client(server_->port());
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
    waiting.push_back(std::make_unique<Client>(server_->port()));
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
  Client last(server_->port());
  last.request("POST", "/api/generate", slow);
  for (int i = 0; i < 2000 && slow_loads < 2; ++i) std::this_thread::sleep_for(5ms);
  stop();
  EXPECT_EQ(last.response().status, 503);
}

TEST_F(ServerTest, ServesManyStreamsAtOnce) {
  constexpr int kStreams = 60;
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < kStreams; ++i) {
    clients.push_back(std::make_unique<Client>(server_->port()));
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
    clients.push_back(std::make_unique<Client>(server_->port()));
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
  std::mutex mutex;
  std::vector<std::string> lines;
  ServerOptions options;
  options.log = [&](const std::string& line) {
    const std::lock_guard lock(mutex);
    lines.push_back(line);
  };
  start(options);
  auto client = std::make_unique<Client>(server_->port());
  Json request = Json::parse(kEndless);
  request["stream"] = true;
  client->request("POST", "/api/generate", request.dump());
  client->take_until("response");
  client.reset();
  for (int i = 0; i < 1000 && active() > 0; ++i) std::this_thread::sleep_for(5ms);
  stop();
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

TEST_F(ServerTest, LogsTheOptionsThatItIgnores) {
  stop();
  std::mutex mutex;
  std::vector<std::string> lines;
  ServerOptions options;
  options.log = [&](const std::string& line) {
    const std::lock_guard lock(mutex);
    lines.push_back(line);
  };
  start(options);
  Client client(server_->port());
  client.request("POST", "/api/generate",
                 R"({"model": "tiny", "prompt": "a", "stream": false,
                     "options": {"num_predict": 1, "num_gpu": 1, "a\nb": 2}})");
  EXPECT_EQ(client.response().status, 200);
  stop();
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_THAT(lines[0], ::testing::ContainsRegex(
                            "^20..-..-..T..:..:..Z POST /api/generate 200 [0-9]+ ms tiny [0-9]+.1 tokens;"));
  EXPECT_THAT(lines[0], HasSubstr(R"(; ignored options: "num_gpu", "a\nb")"));
}

}  // namespace
}  // namespace steelyard
