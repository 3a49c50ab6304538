#include "api/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <exception>
#include <mutex>
#include <new>
#include <utility>

#include "api/blobs.h"
#include "api/job_lines.h"
#include "base/error.h"
#include "base/units.h"
#include "engine/engine.h"
#include "engine/model_manager.h"
#include "store/store_folder.h"

namespace steelyard::api {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr unsigned kClientClosed = 499;             // in the log: nobody was there to be answered
constexpr std::uint64_t kLargeBody = 1 << 20;       // whose memory is given back to the system
constexpr std::size_t kPiece = 1 << 20;             // of a blob
constexpr milliseconds kLookAtJobs{100};            // for what has come of them
constexpr auto kNeverMind = std::chrono::hours(1);  // a wait that something else ends

WireLimits limits_of(const ServerOptions& o) {
  return {.body_bytes = o.body_limit,
          .header = seconds(o.header_timeout_s),
          .idle = seconds(4 * o.header_timeout_s),
          .body = seconds(10 * o.header_timeout_s),
          .write = seconds(o.write_timeout_s)};
}

// A model on its way from the manager's threads.
struct Arrival {
  explicit Arrival(std::shared_ptr<Waker> w) : waker(std::move(w)) {}
  const std::shared_ptr<Waker> waker;
  std::mutex mutex;
  bool there = false;
  ModelManager::Lease lease;
  std::exception_ptr error;

  void put(ModelManager::Lease l, std::exception_ptr e) {
    {
      const std::lock_guard lock(mutex);
      lease = std::move(l);
      error = std::move(e);
      there = true;
    }
    waker->wake();
  }
  bool taken(ModelManager::Lease& l, std::exception_ptr& e) {
    const std::lock_guard lock(mutex);
    if (there) l = std::move(lease), e = error;
    return there;
  }
};

asio::awaitable<Handled> call(std::shared_ptr<std::function<Handled()>> work) {
  Handled handled = (*work)();
  co_return handled;
}

asio::awaitable<Handled> on(Workers& workers, std::shared_ptr<std::function<Handled()>> work) {
  asio::awaitable<Handled> there = call(work);
  Handled handled = co_await asio::co_spawn(workers.executor(), std::move(there), asio::use_awaitable);
  co_return handled;
}

template <typename Fn>
std::shared_ptr<std::function<Handled()>> job(Fn fn) {
  return std::make_shared<std::function<Handled()>>(std::move(fn));
}

bool went_wrong(const Answer& a) {
  return a.reason == DoneReason::error || a.reason == DoneReason::cancelled;
}

std::string what_went_wrong(const Answer& a) {
  return a.error.empty() ? "the request was cancelled" : a.error;
}

std::string reason_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& e) {
    return e.what();
  }
}

Reply failure_reply(Dialect dialect, const Answer& a) {
  return error_reply(dialect, a.reason == DoneReason::error ? a.error_kind : ErrorKind::cancelled,
                     what_went_wrong(a));
}

// For the log: printable ASCII, and not too much of it.
std::string printable(std::string_view text, std::size_t most) {
  std::string out;
  for (const char c : text) {
    if (out.size() >= most) return out + "...";
    if (c > 0x20 && c < 0x7f)
      out += c;
    else
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return out;
}

// Header names that a browser asks for: echoed only when they are that.
bool is_list_of_names(std::string_view text) {
  return !text.empty() && text.size() <= 2048 && std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == ',' || c == ' ';
  });
}

}  // namespace

struct Session::Exchange {
  Clock::time_point begin = Clock::now();
  std::string method, target, origin, preflight;
  unsigned version = 11;
  bool head = false, keep = true;
  Dialect dialect = Dialect::native;
  // For the log.
  unsigned status = 0;
  std::string model, note;
  bool generated = false, complete = false;
  std::uint64_t prompt_tokens = 0, generated_tokens = 0;

  std::vector<Answer> answers;

  void count(const Answer& answer) {
    answers.push_back(answer);
    prompt_tokens += answer.prompt_tokens;
    generated_tokens += answer.generated_tokens;
  }
};

Session::Session(ServerCore& core, tcp::socket socket, Strand strand)
    : core_(core),
      strand_(strand),
      wire_(std::make_shared<Wire>(std::move(socket), strand, limits_of(core.options))) {
  ++core_.connections;
}

Session::~Session() { --core_.connections; }

asio::awaitable<void> Session::run() {
  try {
    bool again = true;
    while (again && !core_.stopping) again = co_await one_request();
  } catch (const std::exception&) {
    // A broken connection: the peer knows, nobody else has to.
  }
  if (choices_) choices_->cancel();
  co_await wire_->close(false);
}

void Session::close_if_idle() {
  asio::post(strand_, [self = shared_from_this()] {
    if (self->wire_->idle()) self->wire_->cancel_idle();
  });
}

void Session::cancel() {
  asio::post(strand_, [self = shared_from_this()] {
    if (self->choices_) self->choices_->cancel();
    self->ticket_.cancel();
    self->stop_.request_stop();
  });
}

void Session::peer_gone() {
  gone_ = true;
  if (choices_) choices_->cancel();
  ticket_.cancel();
  stop_.request_stop();
}

asio::awaitable<bool> Session::one_request() {
  gone_ = false;
  stop_ = {};
  WireRequest request;
  BodyBudget::Share share(core_.bodies);
  ReadResult result = co_await wire_->read(request, share, is_blob_upload);
  const bool in_pieces = result.kind == ReadResult::Kind::upload;
  if (result.kind == ReadResult::Kind::closed) co_return false;
  if (result.kind == ReadResult::Kind::refused) {
    share.release();
    co_await refuse(result);
    co_return false;
  }
  Exchange x;
  x.method = std::string(request.method_string());
  x.target = std::string(request.target());
  x.origin = std::string(request[http::field::origin]);
  x.version = request.version();
  x.head = request.method() == http::verb::head;
  x.keep = request.keep_alive() && !in_pieces;  // what isn't read can't be told from a next request
  x.dialect = dialect_of(x.target);
  const std::string host(request[http::field::host]);
  const bool large = request.body().size() >= kLargeBody;
  const std::string why = refusal(core_.access, host, x.origin);
  const KeyRefusal keyless =
      key_refusal(core_.access, core_.handlers.need(x.method, x.target),
                  presented_key(request[http::field::authorization], request["x-api-key"]));
  std::exception_ptr broken;
  try {
    if (!why.empty()) {
      x.origin.clear();
      const Reply forbidden = error_reply(x.dialect, 403u, why);
      co_await write(x, forbidden);
    } else if (request.method() == http::verb::options) {
      x.preflight = preflight(request);
      const Reply options{.status = 204, .allow = "GET, HEAD, POST, DELETE, OPTIONS"};
      co_await write(x, options);
    } else if (keyless.status != 0) {
      const Reply forbidden = error_reply(x.dialect, keyless.status, keyless.why);
      co_await write(x, forbidden);
    } else if (in_pieces) {
      co_await upload(x);
    } else {
      HttpRequest plain{x.method, x.target, std::move(request.body()), stop_.get_token()};
      co_await answer(x, std::move(plain), share);
    }
  } catch (const std::exception&) {
    broken = std::current_exception();
  }
  wire_->unwatch();
  choices_.reset();  // what still runs is cancelled
  ticket_ = {};
  if (broken || !x.complete) x.status = kClientClosed;
  core_.handlers.metrics().count(core_.handlers.route_path(x.method, x.target), x.status, x.answers);
  log(x);
  if (large) core_.trim_later();
  if (in_pieces && !broken) co_await wire_->close(true);
  co_return x.keep&& x.status != kClientClosed;
}

// A request that can't be read: said where there is somebody to hear it, then the connection ends.
asio::awaitable<void> Session::refuse(ReadResult result) {
  Exchange x;
  x.method = "-";
  x.target = "-";
  x.keep = false;
  const Reply reply = error_reply(Dialect::native, result.status, result.why);
  co_await write(x, reply);
  log(x);
  co_await wire_->close(true);
}

asio::awaitable<void> Session::answer(Exchange& x, HttpRequest request, BodyBudget::Share& share) {
  const Lane lane = core_.handlers.lane(x.method, x.target);
  if (lane == Lane::work) {
    wire_->watch(x.version, [self = shared_from_this()] { self->peer_gone(); });
    std::exception_ptr error;
    try {
      co_await work(x, std::move(request), share);
    } catch (const std::bad_alloc&) {
      error = std::current_exception();
    }
    if (error && x.status == 0) {
      const Reply reply = reply_for(x.dialect, error);
      co_await write(x, reply);
    }
    co_return;
  }
  const auto plain = std::make_shared<HttpRequest>(std::move(request));
  Handled handled;
  if (lane == Lane::quick) {
    const auto handle = job([this, plain] { return core_.handlers.handle(*plain); });
    Handled answered = co_await on(core_.quick, handle);
    handled = std::move(answered);  // named, since gcc 12 destroys some temporaries of a co_await twice
  } else {
    handled = core_.handlers.handle(*plain);
  }
  co_await write(x, handled.reply);
}

// Reads the request, gets the model, makes the prompt, runs it.
asio::awaitable<void> Session::work(Exchange& x, HttpRequest request, BodyBudget::Share& share) {
  const auto plain = std::make_shared<HttpRequest>(std::move(request));
  const auto read = job([this, plain] {
    Handled h = core_.handlers.handle(*plain);
    plain->body = std::string();
    return h;
  });
  Handled handled = co_await on(core_.workers, read);
  share.release();
  x.model = handled.model_name;
  x.note = handled.note;
  if (handled.wish && !gone_) co_await get_model(x, handled);
  if (gone_) co_return;
  if (handled.job)
    co_await follow(x, std::move(handled.job), handled.stream);
  else if (handled.format)
    co_await generate(x, handled);
  else
    co_await write(x, handled.reply);
  // The last to hold a model destroys it, which takes a while: not here.
  if (handled.model) asio::post(core_.workers.executor(), [model = std::move(handled.model)] {});
}

// A blob, written by workers as it comes. The connection ends with it.
asio::awaitable<void> Session::upload(Exchange& x) {
  struct Blob {
    std::unique_ptr<BlobWriter> writer;
    std::string digest;
    std::vector<char> piece = std::vector<char>(kPiece);
  };
  const auto blob = std::make_shared<Blob>();
  const auto guarded = [dialect = x.dialect](auto work) {
    return job([dialect, work]() mutable {
      Handled h;
      try {
        h.reply = work();
      } catch (const std::exception&) {
        h.reply = reply_for(dialect, std::current_exception());
      }
      return h;
    });
  };
  const auto begin = guarded([this, blob, target = x.target, bytes = wire_->upload_bytes()] {
    return begin_blob(core_.handlers.store(), target, bytes, blob->writer, blob->digest);
  });
  Handled handled = co_await on(core_.workers, begin);
  while (blob->writer && handled.reply.status == 200) {
    const std::size_t n = co_await wire_->read_piece(blob->piece);
    const auto write_piece = guarded([blob, n] {
      if (n == 0) {
        blob->writer->finish(blob->digest);
        return Reply{.status = 201, .body = ""};
      }
      blob->writer->write(std::as_bytes(std::span(blob->piece)).first(n));
      return Reply{};
    });
    Handled written = co_await on(core_.workers, write_piece);
    handled = std::move(written);
  }
  handled.reply.body = handled.reply.status < 300 ? "" : handled.reply.body;
  co_await write(x, handled.reply);
}

// Waits without a thread, then lets a worker go on with the model.
asio::awaitable<void> Session::get_model(Exchange& x, Handled& handled) {
  Signal signal(strand_);
  const auto arrival = std::make_shared<Arrival>(signal.waker());
  const auto wish = std::make_shared<ModelWish>(std::move(*handled.wish));
  const auto ticket = std::make_shared<ModelManager::Ticket>();
  const auto ask = job([this, arrival, wish, ticket] {
    *ticket = core_.models.acquire(std::move(*wish),
                                   [arrival](ModelManager::Lease lease, std::exception_ptr error) {
                                     arrival->put(std::move(lease), std::move(error));
                                   });
    return Handled();
  });
  Handled nothing = co_await on(core_.workers, ask);
  ticket_ = *ticket;
  if (gone_ || core_.stopping) ticket_.cancel();
  ModelManager::Lease lease;
  std::exception_ptr error;
  while (!arrival->taken(lease, error)) co_await signal.wait(kNeverMind);
  ticket_ = {};
  if (error || gone_) {
    if (error) handled.reply = reply_for(x.dialect, error);
    co_return;
  }
  const auto then =
      std::make_shared<std::function<Handled(const ModelManager::Lease&)>>(std::move(handled.with_model));
  const auto prepare = job([then, &lease] { return (*then)(lease); });
  Handled prepared = co_await on(core_.workers, prepare);
  handled = std::move(prepared);
  if (lease.model) asio::post(core_.workers.executor(), [model = std::move(lease.model)] {});
}

asio::awaitable<void> Session::generate(Exchange& x, Handled& handled) {
  Reply refusal;
  try {
    const auto choices = std::make_shared<Choices>(strand_, handled.model, std::move(handled.requests),
                                                   handled.alike, handled.at_once);
    choices->begin();
    choices_ = choices;
  } catch (const std::exception&) {
    refusal = reply_for(x.dialect, std::current_exception());
  }
  if (!choices_) {
    co_await write(x, refusal);
    co_return;
  }
  x.generated = true;
  if (handled.stream)
    co_await stream_answer(x, *handled.format, *choices_);
  else
    co_await whole_answer(x, *handled.format, *choices_);
}

// Looks at the work now and then: its threads know nothing of connections.
asio::awaitable<void> Session::follow(Exchange& x, std::shared_ptr<StoreJob::Follower> follower,
                                      bool stream) {
  asio::steady_timer timer(strand_);
  std::uint64_t cursor = 0;
  StoreJob::News news;
  if (stream) co_await begin_stream(x, "application/x-ndjson");
  for (milliseconds pause(5); !gone_; pause = std::min(2 * pause, kLookAtJobs)) {
    news = follower->job().news(cursor);
    const bool stopping = !news.ended && stop_.stop_requested();
    if (stopping) {
      news.ended = true;
      news.error = std::make_exception_ptr(Error(ErrorKind::cancelled, "the server is stopping"));
    }
    std::string frames;
    for (const StoreJob::Step& step : news.steps) frames += job_line(step);
    if (news.ended && news.error) frames += job_failure_line(reason_of(news.error));
    if (stream) co_await wire_->send_frames(frames);
    if (news.ended) break;
    timer.expires_after(pause);
    boost::system::error_code ignored;
    co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  if (gone_) co_return;
  if (stream) {
    co_await wire_->end_stream();
    x.complete = true;
    co_return;
  }
  const Reply reply =
      news.error ? reply_for(x.dialect, news.error) : Reply{.body = R"({"status":"success"})"};
  co_await write(x, reply);
}

asio::awaitable<void> Session::whole_answer(Exchange& x, AnswerFormat& format, Choices& choices) {
  std::vector<Choices::News> news;
  Reply reply;
  for (bool done = false; !done;) {
    try {
      done = choices.take(news);
    } catch (const std::exception&) {  // the queue is full, say
      reply = reply_for(format.dialect(), std::current_exception());
      break;
    }
    for (const Choices::News& n : news) {
      Choice& choice = choices.all()[n.choice];
      choice.text += n.text;
      choice.chances.insert(choice.chances.end(), n.chances.begin(), n.chances.end());
      if (n.ended) x.count(choice.answer);
      if (n.ended && went_wrong(choice.answer) && reply.status == 200)
        reply = failure_reply(format.dialect(), choice.answer);
    }
    if (reply.status != 200) break;
    if (!done) co_await choices.wait(core_.options.stream_comment);
  }
  if (gone_) co_return;
  if (reply.status == 200) reply = format.whole(choices.all());
  choices.cancel();
  co_await write(x, reply);
}

// The frames of what has come, and of the end.
std::string Session::frames_of(AnswerFormat& format, Choices& choices, Exchange& x, bool& done) {
  std::vector<Choices::News> news;
  std::string frames;
  try {
    done = choices.take(news);
  } catch (const std::exception&) {  // the queue is full, say
    done = true;
    return format.failure(reason_of(std::current_exception()));
  }
  for (const Choices::News& n : news) {
    if (!n.text.empty() || !n.chances.empty())
      frames += format.piece({.choice = n.choice, .text = n.text, .chances = n.chances});
    if (!n.ended) continue;
    const Choice& choice = choices.all()[n.choice];
    x.count(choice.answer);
    if (went_wrong(choice.answer)) {
      done = true;
      return frames + format.failure(what_went_wrong(choice.answer));
    }
    frames += format.ended(n.choice, choice);
  }
  return done ? frames + format.closing(choices.all()) : frames;
}

// The header goes out at once: a client that waits for it need not know how long a prompt takes to read.
asio::awaitable<void> Session::stream_answer(Exchange& x, AnswerFormat& format, Choices& choices) {
  co_await begin_stream(x, format.stream_type());
  std::string frames = format.opening();
  for (bool done = false; !done && !gone_;) {
    frames += frames_of(format, choices, x, done);
    co_await wire_->send_frames(frames);
    frames.clear();
    if (done) break;
    const bool news = co_await choices.wait(core_.options.stream_comment);
    if (!news) frames = format.idle();
  }
  choices.cancel();
  if (gone_) co_return;
  co_await wire_->end_stream();
  x.complete = true;
}

asio::awaitable<void> Session::begin_stream(Exchange& x, std::string_view content_type) {
  const bool chunked = x.version >= 11;
  if (!chunked) x.keep = false;  // HTTP/1.0 has no chunks: the end of the connection is the end
  const std::string head_text = head(
      x, 200, content_type,
      chunked ? "Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n" : "Cache-Control: no-cache\r\n");
  x.status = 200;
  co_await wire_->begin_stream(head_text, chunked);
}

// The status line and header of a response.
std::string Session::head(const Exchange& x, unsigned status, std::string_view content_type,
                          const std::string& more) const {
  std::string text =
      fmt::format("HTTP/1.{} {} {}\r\nServer: steelyard\r\nConnection: {}\r\n", x.version >= 11 ? 1 : 0,
                  status, std::string_view(http::obsolete_reason(http::int_to_status(status))),
                  x.keep && !core_.stopping ? "keep-alive" : "close");
  if (!content_type.empty()) text += fmt::format("Content-Type: {}\r\n", content_type);
  if (!x.origin.empty()) text += fmt::format("Access-Control-Allow-Origin: {}\r\nVary: Origin\r\n", x.origin);
  return text + x.preflight + more + "\r\n";
}

std::string Session::preflight(const WireRequest& request) const {
  if (request[http::field::origin].empty()) return {};
  const std::string wanted(request[http::field::access_control_request_headers]);
  return fmt::format(
      "Access-Control-Allow-Methods: GET, HEAD, POST, DELETE, OPTIONS\r\nAccess-Control-Allow-Headers: {}\r\n"
      "Access-Control-Max-Age: 600\r\n",
      is_list_of_names(wanted) ? wanted : "Content-Type, Authorization");
}

asio::awaitable<void> Session::write(Exchange& x, const Reply& reply) {
  x.status = reply.status;
  std::string more;
  if (!reply.allow.empty()) more += fmt::format("Allow: {}\r\n", reply.allow);
  if (reply.retry_after) more += "Retry-After: 1\r\n";
  if (reply.no_retry) more += "X-Should-Retry: false\r\n";
  if (reply.wants_key) more += "WWW-Authenticate: Bearer\r\n";
  if (reply.status != 204) more += fmt::format("Content-Length: {}\r\n", reply.body.size());
  std::string text = head(x, reply.status, reply.status == 204 ? "" : reply.content_type, more);
  if (!x.head) text += reply.body;
  co_await wire_->send(text);
  x.complete = true;
}

// "2026-01-31T12:34:56Z POST /api/chat 200 1234 ms smollm2 43+116 tokens; ignored options: "num_gpu""
void Session::log(const Exchange& x) const {
  if (!core_.options.log) return;
  std::string line =
      fmt::format("{} {} {} {} {} ms", rfc3339(std::chrono::system_clock::now()).substr(0, 19) + "Z",
                  printable(x.method, 20), printable(x.target, 200), x.status,
                  std::chrono::duration_cast<milliseconds>(Clock::now() - x.begin).count());
  if (!x.model.empty()) line += " " + printable(x.model, 100);
  if (x.generated) line += fmt::format(" {}+{} tokens", x.prompt_tokens, x.generated_tokens);
  if (x.status == kClientClosed) line += " cancelled: the client has gone";
  if (!x.note.empty()) line += "; " + x.note;
  core_.options.log(line);
}

}  // namespace steelyard::api
