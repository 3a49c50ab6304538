#include "api/server.h"

#include <algorithm>
#include <atomic>
#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <mutex>
#include <thread>
#include <vector>

#include "api/access.h"
#include "api/handlers.h"
#include "api/mailbox.h"
#include "base/error.h"
#include "engine/engine.h"

namespace steelyard {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;
using namespace api;

constexpr unsigned kWorkers = 16;  // threads that wait for loading models and render prompts
constexpr auto kGrace = std::chrono::seconds(5);

}  // namespace

struct Server::Impl {
  class Session;

  ServerOptions options;
  Handlers handlers;
  asio::io_context io;
  Workers workers{kWorkers};
  tcp::acceptor acceptor{io};
  std::atomic<bool> stopping{false};
  std::mutex mutex;
  std::vector<std::weak_ptr<Session>> sessions;
  std::atomic<std::uint32_t> connections{0};

  Impl(ServerOptions o, ModelManager& models, const ModelStore& store)
      : options(std::move(o)), handlers(models, store) {}

  void listen();
  asio::awaitable<void> accept();
  void add(const std::shared_ptr<Session>& session);
  void close_idle();
  void cancel_all();
};

// One connection: requests one after the other, everything on its strand.
class Server::Impl::Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Impl& server, tcp::socket socket, Strand strand)
      : server_(server), strand_(strand), stream_(std::move(socket)) {
    ++server_.connections;
  }
  ~Session() { --server_.connections; }

  asio::awaitable<void> run() {
    try {
      while (!server_.stopping && co_await one_request()) {
      }
    } catch (const std::exception&) {
      // A broken connection: the peer knows, nobody else has to.
    }
    generation_.cancel();
    boost::system::error_code ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_both, ignored);
    stream_.socket().close(ignored);
  }
  // From any thread.
  void close_if_idle() {
    asio::post(strand_, [self = shared_from_this()] {
      if (!self->busy_) self->stream_.cancel();
    });
  }
  void cancel() {
    asio::post(strand_, [self = shared_from_this()] { self->generation_.cancel(); });
  }

 private:
  using Parser = http::request_parser<http::string_body>;

  asio::awaitable<bool> one_request() {
    Parser parser;
    parser.body_limit(server_.options.body_limit);
    parser.header_limit(64 << 10);
    busy_ = false;
    stream_.expires_after(std::chrono::seconds(server_.options.header_timeout_s * (first_ ? 1 : 4)));
    boost::system::error_code error;
    co_await http::async_read_header(stream_, buffer_, parser,
                                     asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      busy_ = true;
      first_ = false;
      stream_.expires_after(std::chrono::seconds(server_.options.write_timeout_s));
      if (beast::iequals(parser.get()[http::field::expect], "100-continue")) {
        http::response<http::empty_body> go{http::status::continue_, 11};
        co_await http::async_write(stream_, go, asio::use_awaitable);
      }
      co_await http::async_read(stream_, buffer_, parser, asio::redirect_error(asio::use_awaitable, error));
    }
    // Named, since gcc 12 destroys some temporaries of a co_await expression twice.
    if (error) {
      const bool again = co_await refuse_broken(error);
      co_return again;
    }
    http::request<http::string_body> request = parser.release();
    const bool again = co_await answer(std::move(request));
    co_return again;
  }

  // A request that can't be read: said where there is somebody to hear it, then the connection ends.
  asio::awaitable<bool> refuse_broken(boost::system::error_code error) {
    unsigned status = 400;
    if (error == http::error::body_limit)
      status = 413;
    else if (error == http::error::header_limit)
      status = 431;
    else if (error.category() != boost::system::error_code(http::error::bad_method).category())
      co_return false;
    else if (error == http::error::end_of_stream || error == http::error::partial_message)
      co_return false;
    const std::string message = status == 413   ? fmt::format("the request body is larger than {} MiB",
                                                              server_.options.body_limit >> 20)
                                : status == 431 ? "the request's header is too large"
                                                : "this is no valid HTTP request";
    const Reply reply = error_reply(Dialect::native, status, message);
    co_await write(reply, http::verb::get, 11, false);
    co_return false;
  }

  asio::awaitable<bool> answer(http::request<http::string_body> request) {
    const auto begin = std::chrono::steady_clock::now();
    origin_ = std::string(request[http::field::origin]);
    const std::string target(request.target());
    const bool keep = request.keep_alive();
    const unsigned version = request.version();
    const http::verb method = request.method();
    const AccessRules rules{server_.options.host, server_.options.allowed_hosts,
                            server_.options.allowed_origins};
    unsigned status = 0;
    std::string ignored;
    if (const std::string why = refusal(rules, std::string(request[http::field::host]), origin_);
        !why.empty()) {
      origin_.clear();
      const Reply forbidden = error_reply(dialect_of(target), 403u, why);
      status = co_await write(forbidden, method, version, keep);
    } else if (method == http::verb::options) {
      const Reply options{.status = 204, .allow = "GET, HEAD, POST, OPTIONS"};
      status = co_await write(options, method, version, keep);
    } else {
      HttpRequest plain{std::string(request.method_string()), target, std::move(request.body())};
      Handled handled = co_await on_worker(std::move(plain));
      ignored = std::move(handled.note);
      if (handled.format)
        status = co_await generate(std::move(handled), method, version, keep);
      else
        status = co_await write(handled.reply, method, version, keep);
    }
    if (server_.options.log)
      server_.options.log(fmt::format(
          "{} {} {} {:.0f} ms{}{}", std::string_view(http::to_string(method)), target, status,
          std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count(),
          ignored.empty() ? "" : "; ", ignored));
    co_return keep&& status != 0;
  }

  asio::awaitable<Handled> on_worker(HttpRequest request) {
    stream_.expires_never();
    asio::awaitable<Handled> work = handle(server_.handlers, std::move(request));
    Handled handled =
        co_await asio::co_spawn(server_.workers.executor(), std::move(work), asio::use_awaitable);
    co_return handled;
  }
  static asio::awaitable<Handled> handle(const Handlers& handlers, HttpRequest request) {
    Handled handled = handlers.handle(request);
    co_return handled;
  }

  template <typename Message>
  void dress(Message& message, unsigned status, bool keep) const {
    message.result(status);
    message.set(http::field::server, "steelyard");
    if (!origin_.empty()) {
      message.set(http::field::access_control_allow_origin, origin_);
      message.set(http::field::access_control_allow_headers, "Content-Type, Authorization");
      message.set(http::field::vary, "Origin");
    }
    message.keep_alive(keep && !server_.stopping);
  }

  asio::awaitable<unsigned> write(const Reply& reply, http::verb method, unsigned version, bool keep) {
    http::response<http::string_body> message{http::status::ok, version};
    dress(message, reply.status, keep);
    message.set(http::field::content_type, reply.content_type);
    if (!reply.allow.empty()) message.set(http::field::allow, reply.allow);
    if (reply.retry_after) message.set(http::field::retry_after, "1");
    message.body() = reply.body;
    message.prepare_payload();
    stream_.expires_after(std::chrono::seconds(server_.options.write_timeout_s));
    if (method == http::verb::head) {
      http::response_serializer<http::string_body> serializer(message);
      co_await http::async_write_header(stream_, serializer, asio::use_awaitable);
    } else {
      co_await http::async_write(stream_, message, asio::use_awaitable);
    }
    co_return reply.status;
  }

  asio::awaitable<unsigned> generate(Handled handled, http::verb method, unsigned version, bool keep) {
    auto mailbox = std::make_shared<Mailbox>(strand_);
    handled.request.on_text = [mailbox](std::string_view text) { mailbox->put(text); };
    handled.request.on_done = [mailbox](const Answer& answer) { mailbox->finish(answer); };
    Reply refusal;
    try {
      generation_ = handled.model->engine().submit(std::move(handled.request));
    } catch (const Error& e) {
      refusal = error_reply(handled.format->dialect(), e.kind(), e.what());
    }
    if (!generation_) {
      const unsigned refused = co_await write(refusal, method, version, keep);
      co_return refused;
    }
    watch_for_disconnect();
    unsigned status = 0;
    if (handled.stream)
      status = co_await stream_answer(*handled.format, *mailbox, version, keep);
    else
      status = co_await whole_answer(*handled.format, *mailbox, method, version, keep);
    generation_ = {};
    co_return status;
  }

  // While an answer is made nothing is read: a socket that becomes readable without bytes is closed.
  void watch_for_disconnect() {
    stream_.socket().async_wait(
        tcp::socket::wait_read, [self = shared_from_this()](boost::system::error_code error) {
          if (error || !self->generation_) return;
          char byte;
          boost::system::error_code peek;
          self->stream_.socket().non_blocking(true, peek);
          const std::size_t n =
              self->stream_.socket().receive(asio::buffer(&byte, 1), tcp::socket::message_peek, peek);
          if (peek != asio::error::would_block && n == 0) self->generation_.cancel();
        });
  }

  static Reply failed(Dialect dialect, const Answer& answer) {
    return answer.reason == DoneReason::error
               ? error_reply(dialect, answer.error_kind, answer.error)
               : error_reply(dialect, ErrorKind::cancelled, "the request was cancelled");
  }
  static bool failed(const Answer& a) {
    return a.reason == DoneReason::error || a.reason == DoneReason::cancelled;
  }

  asio::awaitable<unsigned> whole_answer(AnswerFormat& format, Mailbox& mailbox, http::verb method,
                                         unsigned version, bool keep) {
    std::string text, part;
    Answer answer;
    stream_.expires_never();
    for (bool done = false; !done;) {
      done = mailbox.take(part, answer);
      text += part;
      if (!done) co_await mailbox.wait();
    }
    stream_.socket().cancel();  // the watch
    const Reply reply =
        failed(answer) ? failed(format.dialect(), answer) : format.whole(text, answer, generation_.tokens());
    const unsigned status = co_await write(reply, method, version, keep);
    co_return status;
  }

  asio::awaitable<unsigned> stream_answer(AnswerFormat& format, Mailbox& mailbox, unsigned version,
                                          bool keep) {
    std::string part;
    Answer answer;
    // An error before the first text is a plain status.
    stream_.expires_never();
    bool done = mailbox.take(part, answer);
    while (!done && part.empty()) {
      co_await mailbox.wait();
      done = mailbox.take(part, answer);
    }
    if (done && failed(answer) && part.empty()) {
      stream_.socket().cancel();
      const Reply reply = failed(format.dialect(), answer);
      const unsigned status = co_await write(reply, http::verb::post, version, keep);
      co_return status;
    }
    co_await start_stream(format, version, keep);
    std::string frames = format.opening();
    for (;;) {
      if (!part.empty()) frames += format.piece(part);
      if (done)
        frames += failed(answer)
                      ? format.failure(answer.error.empty() ? "the request was cancelled" : answer.error)
                      : format.closing(answer, generation_.tokens());
      co_await write_frames(frames, version);
      frames.clear();
      if (done) break;
      stream_.expires_never();
      co_await mailbox.wait();
      done = mailbox.take(part, answer);
    }
    stream_.socket().cancel();
    if (version >= 11) {
      stream_.expires_after(std::chrono::seconds(server_.options.write_timeout_s));
      co_await asio::async_write(stream_, http::make_chunk_last(), asio::use_awaitable);
    }
    co_return version >= 11 ? 200u : 0u;  // HTTP/1.0 has no chunks: the end of the connection is the end
  }

  asio::awaitable<void> start_stream(AnswerFormat& format, unsigned version, bool keep) {
    http::response<http::empty_body> message{http::status::ok, version};
    dress(message, 200, keep && version >= 11);
    message.set(http::field::content_type, format.stream_type());
    message.set(http::field::cache_control, "no-cache");
    if (version >= 11) message.chunked(true);
    http::response_serializer<http::empty_body> serializer(message);
    stream_.expires_after(std::chrono::seconds(server_.options.write_timeout_s));
    co_await http::async_write_header(stream_, serializer, asio::use_awaitable);
  }
  asio::awaitable<void> write_frames(const std::string& frames, unsigned version) {
    if (frames.empty()) co_return;
    stream_.expires_after(std::chrono::seconds(server_.options.write_timeout_s));
    if (version >= 11)
      co_await asio::async_write(stream_, http::make_chunk(asio::buffer(frames)), asio::use_awaitable);
    else
      co_await asio::async_write(stream_, asio::buffer(frames), asio::use_awaitable);
  }

  Impl& server_;
  Strand strand_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  std::string origin_;
  Generation generation_;
  bool first_ = true;
  bool busy_ = false;  // strand only
};

void Server::Impl::listen() {
  boost::system::error_code error;
  tcp::resolver resolver(io);
  const auto found =
      resolver.resolve(options.host, std::to_string(options.port), tcp::resolver::passive, error);
  if (error || found.empty())
    throw_error(ErrorKind::io, "'{}' is no address this machine knows ({})", options.host, error.message());
  const tcp::endpoint endpoint = found.begin()->endpoint();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error == asio::error::address_in_use)
    throw_error(ErrorKind::io, "port {} on {} is in use: stop the other server or choose another --port",
                options.port, options.host);
  if (error)
    throw_error(ErrorKind::io, "can't listen on {}:{}: {}", options.host, options.port, error.message());
}

void Server::Impl::add(const std::shared_ptr<Session>& session) {
  std::lock_guard lock(mutex);
  std::erase_if(sessions, [](const auto& s) { return s.expired(); });
  sessions.push_back(session);
}

void Server::Impl::close_idle() {
  std::lock_guard lock(mutex);
  for (auto& weak : sessions)
    if (const auto session = weak.lock()) session->close_if_idle();
}

void Server::Impl::cancel_all() {
  std::lock_guard lock(mutex);
  for (auto& weak : sessions)
    if (const auto session = weak.lock()) session->cancel();
}

asio::awaitable<void> Server::Impl::accept() {
  while (!stopping) {
    const Strand strand = asio::make_strand(io);
    boost::system::error_code error;
    tcp::socket socket =
        co_await acceptor.async_accept(strand, asio::redirect_error(asio::use_awaitable, error));
    if (stopping) break;
    if (error) {  // out of file descriptors, say: try again soon
      asio::steady_timer pause(co_await asio::this_coro::executor, std::chrono::milliseconds(50));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    if (connections >= options.max_connections) continue;  // closes it
    socket.set_option(tcp::no_delay(true), error);
    const auto session = std::make_shared<Session>(*this, std::move(socket), strand);
    add(session);
    asio::co_spawn(
        strand, [session]() -> asio::awaitable<void> { co_await session->run(); }, asio::detached);
  }
}

Server::Server(ServerOptions options, ModelManager& models, const ModelStore& store)
    : impl_(std::make_unique<Impl>(std::move(options), models, store)) {
  impl_->listen();
}

Server::~Server() { stop(); }

std::uint16_t Server::port() const { return impl_->acceptor.local_endpoint().port(); }

std::string Server::address() const {
  const auto endpoint = impl_->acceptor.local_endpoint();
  const std::string host = endpoint.address().to_string();
  return endpoint.address().is_v6() ? fmt::format("[{}]:{}", host, endpoint.port())
                                    : fmt::format("{}:{}", host, endpoint.port());
}

void Server::run() {
  asio::co_spawn(impl_->io, impl_->accept(), asio::detached);
  auto guard = asio::make_work_guard(impl_->io);
  std::vector<std::thread> threads;
  try {
    for (unsigned i = 0; i < std::max(1u, impl_->options.threads); ++i)
      threads.emplace_back([this] { impl_->io.run(); });
  } catch (const std::system_error&) {
    if (threads.empty()) throw;  // with fewer it serves too
  }
  impl_->stopping.wait(false);
  const auto wait_until_quiet = [this](auto deadline) {
    while (impl_->connections > 0 && std::chrono::steady_clock::now() < deadline)
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
  };
  impl_->close_idle();
  wait_until_quiet(std::chrono::steady_clock::now() + kGrace);
  impl_->cancel_all();
  wait_until_quiet(std::chrono::steady_clock::now() + kGrace);
  guard.reset();
  impl_->io.stop();
  for (auto& thread : threads) thread.join();
  impl_->workers.join();
}

void Server::stop() {
  if (impl_->stopping.exchange(true)) return;
  impl_->stopping.notify_all();
  asio::post(impl_->io, [this] {
    boost::system::error_code ignored;
    impl_->acceptor.close(ignored);
  });
}

}  // namespace steelyard
