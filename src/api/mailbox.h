// Between the server's connections and the threads that work for them: text on its way back, and the threads.
#pragma once

#include <boost/asio.hpp>
#include <chrono>
#include <exception>
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

class Signal;

// Rings a Signal from any thread; nothing happens once that is gone. It holds nothing of asio, so it may
// outlive the server: an engine lets go of a request's callbacks after the answer has been sent.
class Waker {
 public:
  void wake();

 private:
  friend class Signal;
  std::mutex mutex_;
  Signal* signal_ = nullptr;  // under the mutex
};

// What a connection's coroutine waits for. Made, used and destroyed on its strand (or with the io_context).
class Signal {
 public:
  explicit Signal(Strand strand) : strand_(strand), timer_(strand) { waker_->signal_ = this; }
  ~Signal() {
    const std::lock_guard lock(waker_->mutex_);
    waker_->signal_ = nullptr;
  }
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;

  std::shared_ptr<Waker> waker() const { return waker_; }
  // True soon after a wake(), false when `patience` is over before.
  asio::awaitable<bool> wait(std::chrono::milliseconds patience) {
    timer_.expires_after(patience);
    while (!signalled_) {
      boost::system::error_code error;
      co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
      if (!error && !signalled_) co_return false;
    }
    signalled_ = false;
    co_return true;
  }

 private:
  friend class Waker;
  // Under the waker's mutex, so this is still there; the strand may find it gone.
  void ring() {
    asio::post(strand_, [waker = waker_] {
      const std::lock_guard lock(waker->mutex_);
      if (!waker->signal_) return;
      waker->signal_->signalled_ = true;
      waker->signal_->timer_.cancel();
    });
  }

  Strand strand_;
  asio::steady_timer timer_;
  bool signalled_ = false;
  const std::shared_ptr<Waker> waker_ = std::make_shared<Waker>();
};

inline void Waker::wake() {
  const std::lock_guard lock(mutex_);
  if (signal_) signal_->ring();
}

// Text on its way from the engine's thread to a connection's strand.
class Mailbox {
 public:
  explicit Mailbox(std::shared_ptr<Waker> waker) : waker_(std::move(waker)) {}

  void put(std::string_view text) {
    {
      const std::lock_guard lock(mutex_);
      text_ += text;
    }
    waker_->wake();
  }
  void put(const TokenChances& chances) {
    const std::lock_guard lock(mutex_);
    chances_.push_back(chances);  // the token's text, or the end, follows and wakes
  }
  void finish(const Answer& answer) {
    {
      const std::lock_guard lock(mutex_);
      answer_ = answer;
      done_ = true;
    }
    waker_->wake();
  }
  // Takes what has gathered; true when the answer has ended and all of it was taken.
  bool take(std::string& text, std::vector<TokenChances>& chances, Answer& answer) {
    const std::lock_guard lock(mutex_);
    text.clear();
    text.swap(text_);
    chances.clear();
    chances.swap(chances_);
    if (done_) answer = answer_;
    return done_;
  }

 private:
  std::shared_ptr<Waker> waker_;
  std::mutex mutex_;
  std::string text_;
  std::vector<TokenChances> chances_;
  Answer answer_;
  bool done_ = false;
};

// run(), whatever a handler throws (memory that the system refuses, say): the others go on.
inline void run_guarded(asio::io_context& io) {
  while (true) {
    try {
      io.run();
      return;
    } catch (const std::exception&) {
    }
  }
}

// Threads for what may block, at least one. (asio's own pool never ends when one of its threads can't be
// started.)
class Workers {
 public:
  explicit Workers(unsigned n) {
    threads_.reserve(n);
    try {
      for (unsigned i = 0; i < n; ++i) threads_.emplace_back([this] { run_guarded(io_); });
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
