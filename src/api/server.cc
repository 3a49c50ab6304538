#include "api/server.h"

#include <fmt/format.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif

#include <algorithm>
#include <boost/asio.hpp>
#include <mutex>
#include <thread>
#include <vector>

#include "api/core.h"
#include "api/session.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace steelyard {

using namespace api;

namespace {

constexpr auto kGrace = std::chrono::seconds(5);

unsigned worker_count() { return std::clamp(ThreadPool::available_cores(), 2u, 8u); }

}  // namespace

namespace api {

ServerCore::ServerCore(ServerOptions o, ModelManager& m, const ModelStore& store)
    : options(std::move(o)),
      models(m),
      handlers(m, store, options.version, options.log),
      bodies(options.bodies_limit),
      quick(1),
      workers(worker_count()) {
  handlers.metrics().watch(options.telemetry);
}

void ServerCore::trim_later() {
#ifdef __GLIBC__
  if (trimming_.exchange(true)) return;
  const auto timer = std::make_shared<asio::steady_timer>(io, std::chrono::seconds(1));
  timer->async_wait([this, timer](auto) {
    trimming_ = false;
    asio::post(workers.executor(), [] { malloc_trim(0); });
  });
#endif
}

}  // namespace api

struct Server::Impl {
  ServerCore core;
  std::vector<tcp::acceptor> acceptors;
  std::mutex mutex;
  std::vector<std::weak_ptr<Session>> sessions;

  Impl(ServerOptions o, ModelManager& models, const ModelStore& store) : core(std::move(o), models, store) {}

  void listen();
  boost::system::error_code listen_on(tcp::endpoint endpoint);
  asio::awaitable<void> accept(tcp::acceptor& acceptor);
  void take(tcp::socket socket, Strand strand);
  template <typename Fn>
  void for_all(Fn fn);
};

boost::system::error_code Server::Impl::listen_on(tcp::endpoint endpoint) {
  tcp::acceptor acceptor(core.io);
  boost::system::error_code error;
  if (!acceptors.empty()) endpoint.port(acceptors.front().local_endpoint().port());
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  // "::" takes IPv4 too, as everywhere.
  if (!error && endpoint.address().is_v6())
    acceptor.set_option(asio::ip::v6_only(!endpoint.address().is_unspecified()), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) acceptors.push_back(std::move(acceptor));
  return error;
}

// All addresses of a name ("localhost" is ::1 and 127.0.0.1): those that can't be had don't matter as long as
// one can, but a port that somebody else has does.
void Server::Impl::listen() {
  const ServerOptions& options = core.options;
  boost::system::error_code error, last;
  tcp::resolver resolver(core.io);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error || found.empty())
    throw_error(ErrorKind::io, "'{}' is no address this machine knows ({})", options.host, error.message());
  std::vector<tcp::endpoint> endpoints;
  for (const auto& entry : found)
    if (std::ranges::find(endpoints, entry.endpoint()) == endpoints.end())
      endpoints.push_back(entry.endpoint());
  // IPv4 first: its address is what is told.
  std::ranges::stable_sort(endpoints, {}, [](const tcp::endpoint& e) { return e.address().is_v6(); });
  for (const tcp::endpoint& endpoint : endpoints) {
    error = listen_on(endpoint);
    if (error) last = error;
    if (error == asio::error::address_in_use)
      throw_error(ErrorKind::io, "port {} on {} is in use: stop the other server or choose another --port",
                  options.port, options.host);
  }
  if (acceptors.empty())
    throw_error(ErrorKind::io, "can't listen on {}:{}: {}", options.host, options.port, last.message());
  const bool loopback = std::ranges::all_of(
      acceptors, [](const tcp::acceptor& a) { return a.local_endpoint().address().is_loopback(); });
  core.access = make_access_rules(loopback, options.allowed_hosts, options.allowed_origins, options.keys);
}

template <typename Fn>
void Server::Impl::for_all(Fn fn) {
  const std::lock_guard lock(mutex);
  for (auto& weak : sessions)
    if (const auto session = weak.lock()) fn(*session);
}

void Server::Impl::take(tcp::socket socket, Strand strand) {
  boost::system::error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);
  const auto session = std::make_shared<Session>(core, std::move(socket), strand);
  {
    const std::lock_guard lock(mutex);
    std::erase_if(sessions, [](const auto& s) { return s.expired(); });
    sessions.push_back(session);
  }
  asio::co_spawn(
      strand, [session]() -> asio::awaitable<void> { co_await session->run(); }, asio::detached);
}

asio::awaitable<void> Server::Impl::accept(tcp::acceptor& acceptor) {
  while (!core.stopping) {
    bool pause = false;
    try {
      const Strand strand = asio::make_strand(core.io);
      boost::system::error_code error;
      tcp::socket socket =
          co_await acceptor.async_accept(strand, asio::redirect_error(asio::use_awaitable, error));
      if (core.stopping) break;
      pause = static_cast<bool>(error);  // out of file descriptors, say
      if (!error && core.connections < core.options.max_connections) take(std::move(socket), strand);
    } catch (const std::exception&) {  // out of memory
      pause = true;
    }
    if (!pause) continue;
    asio::steady_timer timer(core.io, std::chrono::milliseconds(50));
    boost::system::error_code ignored;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

Server::Server(ServerOptions options, ModelManager& models, const ModelStore& store)
    : impl_(std::make_unique<Impl>(std::move(options), models, store)) {
  impl_->listen();
}

Server::~Server() { stop(); }

std::uint16_t Server::port() const { return impl_->acceptors.front().local_endpoint().port(); }

bool Server::loopback() const { return impl_->core.access.loopback; }

std::string Server::address() const {
  const auto endpoint = impl_->acceptors.front().local_endpoint();
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", host, endpoint.port())
                                    : fmt::format("{}:{}", host, endpoint.port());
}

void Server::run() {
  ServerCore& core = impl_->core;
  for (auto& acceptor : impl_->acceptors) asio::co_spawn(core.io, impl_->accept(acceptor), asio::detached);
  auto guard = asio::make_work_guard(core.io);
  std::vector<std::thread> threads;
  try {
    for (unsigned i = 0; i < std::max(1u, core.options.threads); ++i)
      threads.emplace_back([&core] { run_guarded(core.io); });
  } catch (const std::system_error&) {
    if (threads.empty()) throw;  // with fewer it serves too
  }
  core.stopping.wait(false);
  const auto wait_until_quiet = [&core](auto deadline) {
    while (core.connections > 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  impl_->for_all([](Session& s) { s.close_if_idle(); });
  wait_until_quiet(std::chrono::steady_clock::now() + kGrace);
  impl_->for_all([](Session& s) { s.cancel(); });
  wait_until_quiet(std::chrono::steady_clock::now() + kGrace);
  guard.reset();
  core.io.stop();
  for (auto& thread : threads) thread.join();
  core.quick.join();
  core.workers.join();
}

void Server::stop() {
  if (impl_->core.stopping.exchange(true)) return;
  impl_->core.stopping.notify_all();
  asio::post(impl_->core.io, [this] {
    boost::system::error_code ignored;
    for (auto& acceptor : impl_->acceptors) acceptor.close(ignored);
  });
}

}  // namespace steelyard
