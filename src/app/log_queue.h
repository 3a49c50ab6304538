// Lines on their way to a file descriptor that may not take them (a full pipe, a terminal that was stopped):
// whoever writes a line never waits. Thread-safe.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace steelyard {

class LogQueue {
 public:
  // Starts a thread. Holds `most` lines; further ones are dropped, and how many is said when lines are taken
  // again.
  explicit LogQueue(int descriptor, std::size_t most = 4096);
  // Waits for what is queued, one second at most.
  ~LogQueue();
  LogQueue(const LogQueue&) = delete;
  LogQueue& operator=(const LogQueue&) = delete;

  // With or without a newline at its end.
  void write(std::string line);

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace steelyard
