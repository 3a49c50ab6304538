#include "app/log_queue.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>

namespace steelyard {

struct LogQueue::State {
  int descriptor;
  std::size_t most;
  std::mutex mutex;
  std::condition_variable changed;
  std::deque<std::string> lines;
  std::uint64_t dropped = 0;
  bool stopping = false, done = false;

  // In pieces that a pipe which is ready takes without blocking. False: it is broken, or the end came first.
  bool put(std::string_view text) {
    constexpr std::size_t kPiece = 4096;  // PIPE_BUF
    while (!text.empty()) {
      pollfd ready{descriptor, POLLOUT, 0};
      const int n = poll(&ready, 1, 100);
      if (n == 0 || (n < 0 && errno == EINTR)) {
        const std::lock_guard lock(mutex);
        if (stopping) return false;
        continue;
      }
      const ssize_t written = ::write(descriptor, text.data(), std::min(text.size(), kPiece));
      if (written < 0 && (errno == EINTR || errno == EAGAIN)) continue;
      if (written < 0) return false;
      text.remove_prefix(static_cast<std::size_t>(written));
    }
    return true;
  }

  void run() {
    std::unique_lock lock(mutex);
    while (true) {
      changed.wait(lock, [&] { return stopping || !lines.empty() || dropped > 0; });
      if (lines.empty() && dropped == 0) break;
      std::string text;
      for (; !lines.empty() && text.size() < 4096; lines.pop_front()) text += lines.front();
      if (lines.empty() && dropped > 0)
        text +=
            fmt::format("{} lines of the log were dropped: nobody took them\n", std::exchange(dropped, 0));
      lock.unlock();
      const bool good = put(text);
      lock.lock();
      if (!good && stopping) break;
    }
    done = true;
    changed.notify_all();
  }
};

LogQueue::LogQueue(int descriptor, std::size_t most) : state_(std::make_shared<State>()) {
  state_->descriptor = descriptor;
  state_->most = most;
  // Detached, since a write that blocks after all can't be ended; it holds the state.
  std::thread([state = state_] { state->run(); }).detach();
}

LogQueue::~LogQueue() {
  std::unique_lock lock(state_->mutex);
  state_->stopping = true;
  state_->changed.notify_all();
  state_->changed.wait_for(lock, std::chrono::seconds(1), [&] { return state_->done; });
}

void LogQueue::write(std::string line) {
  if (!line.ends_with('\n')) line += '\n';
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->lines.size() >= state_->most) {
      ++state_->dropped;
      return;
    }
    state_->lines.push_back(std::move(line));
  }
  state_->changed.notify_all();
}

}  // namespace steelyard
