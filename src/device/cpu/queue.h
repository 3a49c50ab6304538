// A device's one queue: what executables and loads put into it runs in order, whichever model it belongs to,
// on the device's team. The team is led by a thread of the queue's own or by a caller who waits for results;
// one at a time, so the team has as many threads as were asked for. Thread-safe.
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
  // When a job is begun. `at_once`: by the queue's thread, beside its caller. `when_waited_for`: by the
  // caller itself. That is faster where the team has every core: a caller beside it has to wait for one of
  // theirs, for as long as the system lets a thread run (milliseconds: a small model's whole step), and all
  // others wait at the next barrier for the one that gave way.
  enum class Begin : std::uint8_t { at_once, when_waited_for };

  explicit Queue(unsigned threads);
  // Runs what is left.
  ~Queue();
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;

  unsigned threads() const { return team_.size(); }
  // What suits this machine: whether the team leaves a core to its callers.
  Begin best_begin() const { return best_begin_; }
  // Returns at once, but while a few hundred jobs wait already.
  Ticket push(const Job& job, Begin begin = Begin::at_once);
  // Until the job, and so every one before it, has run; what they wrote is seen.
  void wait(Ticket ticket);
  // fn(thread, n_threads) on the whole team, after everything that was pushed before. fn must not throw.
  template <typename Fn>
  void run(Fn&& fn) {
    wait(push({[](ThreadPool& team, const Job& job) {
                 team.run(*static_cast<std::remove_reference_t<Fn>*>(job.owner));
               },
               &fn},
              Begin::when_waited_for));
  }

 private:
  static constexpr std::size_t kCapacity = 256;
  void work();
  void lead_or_wait(std::unique_lock<std::mutex>& lock, Ticket until);

  ThreadPool team_;
  const Begin best_begin_;
  std::mutex mutex_;
  std::condition_variable wanted_more_, ran_more_;
  Job jobs_[kCapacity] = {};
  Ticket pushed_ = 0, ran_ = 0;
  Ticket wanted_ = 0;     // the last to be begun at once
  bool leading_ = false;  // somebody runs jobs
  bool stopping_ = false;
  std::thread leader_;
};

}  // namespace steelyard::cpu
