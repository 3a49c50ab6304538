// A fixed team of threads for short parallel regions with barriers inside.
//
// `run(fn)` calls fn(thread, n_threads) once on every thread (the caller is thread 0) and returns when all
// have returned. Between regions the workers poll for some hundred microseconds, then sleep. One region at a
// time; calls from different threads must be serialised by the owner. Nothing is allocated per run. `fn` must
// not throw.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <type_traits>
#include <vector>

namespace steelyard {

class ThreadPool {
 public:
  // `threads` counts the caller; 0 means one per available core. Throws Error(no_memory) when the system
  // refuses a thread.
  explicit ThreadPool(unsigned threads = 0);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  unsigned size() const { return size_; }

  // Cores this process may run on (its affinity mask), at least 1.
  static unsigned available_cores();

  template <typename Fn>
  void run(Fn&& fn) {
    using Body = std::remove_reference_t<Fn>;
    run_erased([](void* context, unsigned thread, unsigned n) { (*static_cast<Body*>(context))(thread, n); },
               const_cast<void*>(static_cast<const void*>(&fn)));
  }

  // Inside a region: returns when all threads have called it. What a thread wrote before is seen by all
  // after. Spins, then yields, then sleeps, so that an oversubscribed machine still makes progress.
  void barrier();

 private:
  using Entry = void (*)(void* context, unsigned thread, unsigned n_threads);
  void run_erased(Entry entry, void* context);
  void worker(unsigned thread);
  void end_workers();

  unsigned size_ = 1;
  Entry entry_ = nullptr;
  void* context_ = nullptr;
  alignas(64) std::atomic<std::uint32_t> region_{0};   // a new value starts a region
  alignas(64) std::atomic<std::uint32_t> arrived_{0};  // of the current barrier
  alignas(64) std::atomic<std::uint32_t> phase_{0};    // completed barriers
  std::atomic<bool> stop_{false};
  std::vector<std::thread> workers_;
};

}  // namespace steelyard
