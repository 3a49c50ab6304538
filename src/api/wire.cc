#include "api/wire.h"

#include <fmt/format.h>
#include <poll.h>

#include <algorithm>
#include <utility>

namespace steelyard::api {
namespace {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

constexpr auto kFirstLook = 20ms;
constexpr auto kStrayLook = 100ms;  // while bytes of a next request hide whether the peer has gone
constexpr auto kLongestPause = 300000ms;
constexpr auto kLinger = 5s;

bool is_parse_error(const boost::system::error_code& error) {
  return error.category() == boost::system::error_code(http::error::bad_method).category();
}

// Why a request couldn't be read; nobody is told of a connection that merely ended.
ReadResult refusal_of(const boost::system::error_code& error, std::uint64_t body_limit) {
  using Kind = ReadResult::Kind;
  if (error == http::error::body_limit)
    return {Kind::refused, 413, fmt::format("the request body is larger than {} MiB", body_limit >> 20)};
  if (error == http::error::header_limit) return {Kind::refused, 431, "the request's header is too large"};
  if (!is_parse_error(error) || error == http::error::end_of_stream || error == http::error::partial_message)
    return {};
  return {Kind::refused, 400, "this is no valid HTTP request"};
}

}  // namespace

HeaderFault header_fault(const http::request_header<>& header) {
  const auto hosts = header.count(http::field::host);
  if (hosts > 1) return {400, "the request has more than one Host"};
  if (hosts == 0 && header.version() >= 11) return {400, "the request has no Host"};
  if (const auto n = header.count(http::field::transfer_encoding); n > 0) {
    if (header.count(http::field::content_length) > 0)
      return {400, "the request has both a Content-Length and a Transfer-Encoding"};
    if (n > 1 || header.version() < 11 || !beast::iequals(header[http::field::transfer_encoding], "chunked"))
      return {501, "the only Transfer-Encoding that is understood is chunked"};
  }
  const auto coding = header[http::field::content_encoding];
  if (!coding.empty() && !beast::iequals(coding, "identity"))
    return {415, "compressed request bodies aren't understood: send it without Content-Encoding"};
  return {};
}

asio::awaitable<ReadResult> Wire::read(WireRequest& request, BodyBudget::Share& share, InPieces in_pieces) {
  upload_.reset();
  Parser parser;
  parser.body_limit(boost::none);  // until it is known what it is for
  parser.header_limit(64 << 10);
  idle_ = true;
  stream_.expires_after(first_ ? limits_.header : limits_.idle);
  boost::system::error_code error;
  co_await http::async_read_header(stream_, buffer_, parser,
                                   asio::redirect_error(asio::use_awaitable, error));
  idle_ = first_ = false;
  if (error) co_return refusal_of(error, limits_.body_bytes);
  HeaderFault fault = header_fault(parser.get());
  if (fault.status) co_return ReadResult{ReadResult::Kind::refused, fault.status, std::move(fault.why)};
  waits_ = beast::iequals(parser.get()[http::field::expect], "100-continue");
  if (in_pieces(parser.get().method_string(), parser.get().target())) {
    request = WireRequest(parser.get().base());
    upload_.emplace(std::move(parser));
    co_return ReadResult{ReadResult::Kind::upload, 0, ""};
  }
  if (parser.content_length().value_or(0) > limits_.body_bytes)
    co_return refusal_of(http::error::body_limit, limits_.body_bytes);
  parser.body_limit(limits_.body_bytes);
  co_await tell_to_go_on();
  ReadResult result = co_await read_body(parser, share);
  if (result.kind == ReadResult::Kind::request) request = parser.release();
  stream_.expires_never();
  co_return result;
}

asio::awaitable<void> Wire::tell_to_go_on() {
  if (!std::exchange(waits_, false)) co_return;
  http::response<http::empty_body> go{http::status::continue_, 11};
  co_await http::async_write(stream_, go, asio::use_awaitable);
}

std::optional<std::uint64_t> Wire::upload_bytes() const {
  const auto length = upload_->content_length();
  return length ? std::optional<std::uint64_t>(*length) : std::nullopt;
}

asio::awaitable<std::size_t> Wire::read_piece(std::span<char> piece) {
  co_await tell_to_go_on();
  auto& body = upload_->get().body();
  body.data = piece.data();
  body.size = piece.size();
  body.more = true;
  while (body.size > 0 && !upload_->is_done()) {
    stream_.expires_after(limits_.header);
    boost::system::error_code error;
    co_await http::async_read_some(stream_, buffer_, *upload_,
                                   asio::redirect_error(asio::use_awaitable, error));
    if (error == http::error::need_buffer) break;
    if (error) throw boost::system::system_error(error);
  }
  stream_.expires_never();
  co_return piece.size() - body.size;
}

// Piece by piece, so that what all connections hold is counted as it comes.
asio::awaitable<ReadResult> Wire::read_body(Parser& parser, BodyBudget::Share& share) {
  const auto deadline = Clock::now() + limits_.body;
  while (!parser.is_done()) {
    stream_.expires_after(limits_.header);
    boost::system::error_code error;
    co_await http::async_read_some(stream_, buffer_, parser,
                                   asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return refusal_of(error, limits_.body_bytes);
    if (!share.grow(parser.get().body().size()))
      co_return ReadResult{ReadResult::Kind::refused, 503,
                           "too many large requests are being received: try again later"};
    if (Clock::now() > deadline && !parser.is_done())
      co_return ReadResult{ReadResult::Kind::refused, 408, "the request body took too long to arrive"};
  }
  co_return ReadResult{ReadResult::Kind::request, 0, ""};
}

asio::awaitable<void> Wire::write_all(std::string_view bytes) {
  const Phase phase = std::exchange(phase_, Phase::nothing_may_be_sent);
  stream_.expires_after(limits_.write);
  co_await asio::async_write(stream_, asio::buffer(bytes.data(), bytes.size()), asio::use_awaitable);
  stream_.expires_never();
  phase_ = phase;
}

asio::awaitable<void> Wire::send(const std::string& response) {
  phase_ = Phase::nothing_may_be_sent;
  const std::string_view rest = std::string_view(response).substr(std::exchange(early_sent_, 0));
  co_await write_all(rest);
}

asio::awaitable<void> Wire::begin_stream(const std::string& head, bool chunked) {
  chunked_ = chunked;
  co_await send(head);
  if (chunked) phase_ = Phase::in_stream;
}

asio::awaitable<void> Wire::send_frames(const std::string& frames) {
  if (frames.empty()) co_return;
  const std::string bytes = chunked_ ? fmt::format("{:x}\r\n{}\r\n", frames.size(), frames) : frames;
  co_await write_all(bytes);
}

asio::awaitable<void> Wire::end_stream() {
  const std::string last = chunked_ ? "0\r\n\r\n" : "";
  co_await write_all(last);
  phase_ = Phase::nothing_may_be_sent;
}

void Wire::watch(unsigned version, std::function<void()> gone) {
  gone_ = std::move(gone);
  early_ = version >= 11 ? "HTTP/1.1 " : "HTTP/1.0 ";
  early_sent_ = 0;
  phase_ = Phase::before_answer;
  boost::system::error_code ignored;
  stream_.socket().non_blocking(true, ignored);
  stream_.socket().async_wait(tcp::socket::wait_read,
                              [self = shared_from_this(), watch = ++watch_](auto error) {
                                if (!error && self->gone_ && self->watch_ == watch) self->look(kFirstLook);
                              });
}

void Wire::unwatch() {
  if (!std::exchange(gone_, nullptr)) return;
  watch_timer_.cancel();
  boost::system::error_code ignored;
  stream_.socket().cancel(ignored);
}

void Wire::look_later(std::chrono::milliseconds pause) {
  watch_timer_.expires_after(pause);
  watch_timer_.async_wait([self = shared_from_this(), watch = watch_, pause](auto error) {
    if (!error && self->gone_ && self->watch_ == watch)
      self->look(std::min<std::chrono::milliseconds>(4 * pause, kLongestPause));
  });
}

// Something happened on the socket, or might have.
void Wire::look(std::chrono::milliseconds pause) {
  pollfd socket{stream_.socket().native_handle(), POLLRDHUP, 0};
  poll(&socket, 1, 0);
  if (socket.revents & (POLLERR | POLLHUP | POLLNVAL)) return std::exchange(gone_, nullptr)();
  if (!(socket.revents & POLLRDHUP)) return look_later(kStrayLook);
  if (!probe()) return std::exchange(gone_, nullptr)();
  look_later(pause);
}

// To a peer that sends no more: a byte that the answer has in any case. False: it can't be sent.
bool Wire::probe() {
  char byte = '0';  // of the next chunk's size
  if (phase_ == Phase::nothing_may_be_sent) return true;
  if (phase_ == Phase::before_answer) {
    if (early_sent_ == early_.size()) return true;
    byte = early_[early_sent_];
  }
  boost::system::error_code error;
  const std::size_t n = stream_.socket().write_some(asio::buffer(&byte, 1), error);
  if (phase_ == Phase::before_answer) early_sent_ += n;
  return !error || error == asio::error::would_block;
}

asio::awaitable<void> Wire::close(bool linger) {
  boost::system::error_code error;
  stream_.socket().shutdown(linger ? tcp::socket::shutdown_send : tcp::socket::shutdown_both, error);
  char waste[16 << 10];
  const auto deadline = Clock::now() + kLinger;
  while (linger && !error && Clock::now() < deadline) {
    stream_.expires_after(1s);
    co_await stream_.async_read_some(asio::buffer(waste), asio::redirect_error(asio::use_awaitable, error));
  }
  stream_.socket().close(error);
}

}  // namespace steelyard::api
