// A device's one queue: a thread that runs what executables and loads put into it, in order, whichever model
// they belong to. It leads the device's team, so the team has as many threads as were asked for, and whoever
// waits for results sleeps. Thread-safe.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>

#include "base/thread_pool.h"

namespace steelyard::cpu {

class Queue {
 public:
  // Plain data: nothing is allocated for it. `run` must not throw, nor wait for the queue.
  struct Job {
    void (*run)(ThreadPool& team, const Job& job);
    void* owner;
    std::int32_t values[3] = {};  // the owner's
  };
  using Ticket = std::uint64_t;  // ascending by order of execution; 0 is done from the start

  explicit Queue(unsigned threads);
  // Runs what is left.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  unsigned threads() const { return team_.size(); }
  // Returns at once, but while a few hundred jobs wait already.
  Ticket push(const Job& job);
  // Until the job, and so every one before it, has run; what they wrote is seen.
  void wait(Ticket ticket);
  // fn(thread, n_threads) on the whole team, after everything that was pushed before. fn must not throw.
  template <typename Fn>
  void run(Fn&& fn) {
    wait(push({[](ThreadPool& team, const Job& job) {
                 team.run(*static_cast<std::remove_reference_t<Fn>*>(job.owner));
               },
               &fn}));
  }

 private:
  static constexpr std::size_t kCapacity = 256;
  void work();

  ThreadPool team_;
  std::mutex mutex_;
  std::condition_variable pushed_more_, ran_more_;
  Job jobs_[kCapacity] = {};
  Ticket pushed_ = 0, ran_ = 0;
  bool stopping_ = false;
  std::thread leader_;
};

}  // namespace steelyard::cpu
