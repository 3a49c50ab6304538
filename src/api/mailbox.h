// Between the server's connections and the threads that work for them: text on its way back, and the threads.
#pragma once

#include <boost/asio.hpp>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "engine/engine.h"

namespace steelyard::api {

namespace asio = boost::asio;
using Strand = asio::strand<asio::io_context::executor_type>;

// Text on its way from the engine's thread to a connection's strand.
class Mailbox : public std::enable_shared_from_this<Mailbox> {
 public:
  explicit Mailbox(Strand strand) : strand_(strand), signal_(strand) {
    signal_.expires_at(signal_.expiry().max());
  }

  void put(std::string_view text) {
    {
      std::lock_guard lock(mutex_);
      text_ += text;
    }
    wake();
  }
  void finish(const Answer& answer) {
    {
      std::lock_guard lock(mutex_);
      answer_ = answer;
      done_ = true;
    }
    wake();
  }
  // Takes what has gathered; true when the answer has ended and all of it was taken.
  bool take(std::string& text, Answer& answer) {
    std::lock_guard lock(mutex_);
    text.clear();
    text.swap(text_);
    if (done_) answer = answer_;
    return done_;
  }
  // On the strand: returns soon after something was put.
  asio::awaitable<void> wait() {
    while (!std::exchange(signalled_, false)) {
      boost::system::error_code ignored;
      co_await signal_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    }
  }

 private:
  void wake() {
    asio::post(strand_, [self = shared_from_this()] {
      self->signalled_ = true;
      self->signal_.cancel();
    });
  }

  Strand strand_;
  asio::steady_timer signal_;  // never expires; cancelled to wake the waiter
  bool signalled_ = false;     // strand only
  std::mutex mutex_;
  std::string text_;
  Answer answer_;
  bool done_ = false;
};

// Threads for what may block, at least one. (asio's own pool never ends when one of its threads can't be
// started.)
class Workers {
 public:
  explicit Workers(unsigned n) {
    threads_.reserve(n);
    try {
      for (unsigned i = 0; i < n; ++i) threads_.emplace_back([this] { io_.run(); });
    } catch (const std::exception&) {
      if (threads_.empty()) throw;
    }
  }
  ~Workers() { join(); }
  asio::io_context::executor_type executor() { return io_.get_executor(); }
  // Returns when everything that was begun is done.
  void join() {
    guard_.reset();
    for (auto& thread : threads_)
      if (thread.joinable()) thread.join();
  }

 private:
  asio::io_context io_;
  asio::executor_work_guard<asio::io_context::executor_type> guard_{io_.get_executor()};
  std::vector<std::thread> threads_;
};

}  // namespace steelyard::api
