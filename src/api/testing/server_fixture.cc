#include "api/testing/server_fixture.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <stdexcept>

#include "engine/engine.h"
#include "store/synth.h"

namespace steelyard {

Client::Client(std::uint16_t port) : socket_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0) return;
  ::close(socket_);
  throw std::runtime_error("the server can't be reached");
}

Client::~Client() { ::close(socket_); }

void Client::send(const std::string& text) {
  for (std::size_t at = 0; at < text.size();) {
    const ssize_t n = ::send(socket_, text.data() + at, text.size() - at, MSG_NOSIGNAL);
    if (n <= 0) throw std::runtime_error("the server has closed the connection");
    at += static_cast<std::size_t>(n);
  }
}

void Client::request(const std::string& method, const std::string& path, const std::string& body,
                     const std::string& headers) {
  send(method + " " + path + " HTTP/1.1\r\n" + headers + "Content-Length: " + std::to_string(body.size()) +
       "\r\n\r\n" + body);
}

Response Client::response(bool head_only) {
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
  if (at != std::string::npos) r.body = take(std::stoul(r.head.substr(at + 16)));
  return r;
}

void Client::end_sending() { ::shutdown(socket_, SHUT_WR); }

bool Client::closed() {
  char byte;
  return ::recv(socket_, &byte, 1, 0) <= 0;
}

std::string Client::take_until(const std::string& end) {
  std::size_t at;
  while ((at = data_.find(end)) == std::string::npos)
    if (!receive()) throw std::runtime_error("the connection ended before '" + end + "'");
  return cut(at + end.size());
}

std::string Client::take(std::size_t n) {
  while (data_.size() < n)
    if (!receive()) throw std::runtime_error("the connection ended too soon");
  return cut(n);
}

bool Client::receive() {
  char piece[16384];
  const ssize_t n = ::recv(socket_, piece, sizeof piece, 0);
  if (n > 0) data_.append(piece, static_cast<std::size_t>(n));
  return n > 0;
}

std::string Client::cut(std::size_t n) {
  std::string out = data_.substr(0, n);
  data_.erase(0, n);
  return out;
}

ServerOptions LogLines::options() const {
  ServerOptions options;
  options.log = [to = lines_](const std::string& line) {
    const std::lock_guard lock(to->mutex);
    to->lines.push_back(line);
  };
  return options;
}

std::vector<std::string> LogLines::all() const {
  const std::lock_guard lock(lines_->mutex);
  return lines_->lines;
}

void ServerTest::SetUpTestSuite() {
  directory_ = std::filesystem::temp_directory_path() / ("steelyard_server_test." + std::to_string(getpid()));
  std::filesystem::create_directories(directory_);
  write_synthetic_model({.shape = "tiny-llama", .type = "Q8_0", .vocabulary = true},
                        directory_ / "tiny.gguf");
  write_synthetic_model({.shape = "tiny-llama", .type = "Q8_0", .vocabulary = true, .chat_template = false},
                        directory_ / "plain.gguf");
}

void ServerTest::TearDownTestSuite() { std::filesystem::remove_all(directory_); }

void ServerTest::start(ServerOptions options, ModelOptions model_options, ModelManager::Load load) {
  store_ = std::make_unique<ModelStore>(std::vector{directory_});
  models_ = std::make_unique<ModelManager>([this](std::string_view name) { return store_->find(name).path; },
                                           model_options, ModelEvents{}, kDefaultKeepAlive, std::move(load));
  options.port = 0;
  server_ = std::make_unique<Server>(options, *models_, *store_);
  port_ = server_->port();
  thread_ = std::thread([this] { server_->run(); });
}

void ServerTest::stop() {
  if (!server_) return;
  server_->stop();
  thread_.join();
  server_.reset();
  models_.reset();
}

Response ServerTest::ask(const std::string& method, const std::string& path, const std::string& body) {
  Client client(port_);
  client.request(method, path, body);
  return client.response(method == "HEAD");
}

std::uint32_t ServerTest::active() {
  std::uint32_t n = 0;
  for (const auto& entry : models_->loaded()) {
    const EngineStats stats = entry.model->engine().stats();
    n += stats.active + stats.waiting;
  }
  return n;
}

}  // namespace steelyard
