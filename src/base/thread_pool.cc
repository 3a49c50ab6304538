#include "base/thread_pool.h"

#include <algorithm>
#include <system_error>

#include "base/error.h"
#include "base/process.h"

namespace steelyard {
namespace {

// A few microseconds of spinning cover most waits of a step. Then yields: where two of the team share a core
// (another program has the rest), the one that is waited for must get it at once; on an idle core a yield is
// a cheap poll. After some hundred microseconds a thread sleeps.
constexpr int kSpins = 300;
constexpr int kYields = 1000;

inline void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::atomic_signal_fence(std::memory_order_seq_cst);
#endif
}

// Returns when `word` differs from `old`.
void wait_change(std::atomic<std::uint32_t>& word, std::uint32_t old) {
  for (int i = 0; i < kSpins; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    pause();
  }
  for (int i = 0; i < kYields; ++i) {
    if (word.load(std::memory_order_acquire) != old) return;
    std::this_thread::yield();
  }
  while (word.load(std::memory_order_acquire) == old) word.wait(old, std::memory_order_acquire);
}

}  // namespace

unsigned ThreadPool::available_cores() { return cpu_share().threads; }

ThreadPool::ThreadPool(unsigned threads) : size_(threads == 0 ? available_cores() : threads) {
  workers_.reserve(size_ - 1);
  try {
    for (unsigned i = 1; i < size_; ++i) workers_.emplace_back([this, i] { worker(i); });
  } catch (const std::system_error& e) {
    end_workers();
    throw_error(
        ErrorKind::no_memory,
        "the system refused thread {} of {} ({}); take fewer threads, or allow more memory and processes",
        workers_.size() + 2, size_, e.code().message());
  }
}

ThreadPool::~ThreadPool() { end_workers(); }

void ThreadPool::end_workers() {
  stop_.store(true, std::memory_order_relaxed);
  region_.fetch_add(1, std::memory_order_release);
  region_.notify_all();
  for (auto& thread : workers_) thread.join();
}

void ThreadPool::run_erased(Entry entry, void* context) {
  if (size_ > 1) {
    entry_ = entry;
    context_ = context;
    region_.fetch_add(1, std::memory_order_release);
    region_.notify_all();
  }
  entry(context, 0, size_);
  barrier();
}

void ThreadPool::worker(unsigned thread) {
  std::uint32_t seen = 0;
  for (;;) {
    wait_change(region_, seen);
    ++seen;
    if (stop_.load(std::memory_order_relaxed)) return;
    entry_(context_, thread, size_);
    barrier();
  }
}

void ThreadPool::barrier() {
  if (size_ == 1) return;
  const std::uint32_t phase = phase_.load(std::memory_order_relaxed);
  if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
    arrived_.store(0, std::memory_order_relaxed);
    phase_.fetch_add(1, std::memory_order_release);
    phase_.notify_all();
  } else {
    wait_change(phase_, phase);
  }
}

}  // namespace steelyard
