// The bytes of one connection: requests are read within limits, responses written, and it is noticed when the
// peer has gone while its answer is made. Everything on the connection's strand.
#pragma once

#include <boost/asio.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "api/body_budget.h"
#include "api/mailbox.h"

namespace steelyard::api {

namespace beast = boost::beast;
namespace http = beast::http;
using tcp = asio::ip::tcp;

struct WireLimits {
  std::uint64_t body_bytes;
  std::chrono::milliseconds header;  // to receive a request's header, and between two pieces of a body
  std::chrono::milliseconds idle;    // between requests
  std::chrono::milliseconds body;    // for a whole body
  std::chrono::milliseconds write;   // a reader that takes nothing for so long is dropped
};

using WireRequest = http::request<http::string_body>;

// What became of reading a request.
struct ReadResult {
  // upload: a request whose body is still to come, in pieces
  enum class Kind : std::uint8_t { request, upload, closed, refused } kind = Kind::closed;
  unsigned status = 0;  // of a refused one, with the sentence; the connection must end then
  std::string why;
};

class Wire : public std::enable_shared_from_this<Wire> {
 public:
  Wire(tcp::socket socket, Strand strand, WireLimits limits)
      : limits_(limits), stream_(std::move(socket)), watch_timer_(strand) {}

  // The next request; `share` holds its body's part of the budget. `in_pieces` says of which requests (by
  // method and target) the body is left for read_piece().
  using InPieces = bool (*)(std::string_view method, std::string_view target);
  asio::awaitable<ReadResult> read(WireRequest& request, BodyBudget::Share& share, InPieces in_pieces);
  // Fills the piece as far as the body goes; 0: it has ended. Throws when the connection breaks.
  asio::awaitable<std::size_t> read_piece(std::span<char> piece);
  std::optional<std::uint64_t> upload_bytes() const;  // where the request says it
  // True while no request is being received or answered.
  bool idle() const { return idle_; }
  void cancel_idle() { stream_.cancel(); }

  // A whole response, header included; throws when the connection is broken.
  asio::awaitable<void> send(const std::string& response);
  // A stream's frames: each call's as one chunk, or as they are in HTTP/1.0.
  asio::awaitable<void> begin_stream(const std::string& head, bool chunked);
  asio::awaitable<void> send_frames(const std::string& frames);
  asio::awaitable<void> end_stream();

  // From now on until unwatch(): `gone` is called when the peer has closed the connection. A peer that has
  // only ended its sending still gets its answer: what tells the two apart is whether it refuses the answer's
  // first bytes, so some are sent early, one at a time.
  void watch(unsigned version, std::function<void()> gone);
  void unwatch();

  // Ends the connection. `linger`: after a refusal what still arrives is read and thrown away for a moment,
  // or the peer might never see the refusal.
  asio::awaitable<void> close(bool linger);

 private:
  using Parser = http::request_parser<http::string_body>;
  enum class Phase : std::uint8_t { before_answer, in_stream, nothing_may_be_sent };

  asio::awaitable<void> tell_to_go_on();
  asio::awaitable<ReadResult> read_body(Parser& parser, BodyBudget::Share& share);
  asio::awaitable<void> write_all(std::string_view bytes);
  void look(std::chrono::milliseconds pause);
  void look_later(std::chrono::milliseconds pause);
  bool probe();

  WireLimits limits_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
  bool first_ = true, idle_ = true;
  std::optional<http::request_parser<http::buffer_body>> upload_;
  bool waits_ = false;  // the peer, until it is told to go on (Expect: 100-continue)

  // The watch.
  asio::steady_timer watch_timer_;
  std::function<void()> gone_;
  std::uint64_t watch_ = 0;  // counts watches, so that a late handler knows that it is
  std::string early_;        // what an answer begins with in any case
  std::size_t early_sent_ = 0;
  Phase phase_ = Phase::nothing_may_be_sent;
  bool chunked_ = false;
};

// Status and sentence for a header that isn't taken, or status 0: transfer codings but chunked, more or less
// than one Host, coded bodies.
struct HeaderFault {
  unsigned status = 0;
  std::string why;
};
HeaderFault header_fault(const http::request_header<>& header);

}  // namespace steelyard::api
