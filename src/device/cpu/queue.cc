#include "device/cpu/queue.h"

#include <system_error>

#include "base/error.h"

namespace steelyard::cpu {

Queue::Queue(unsigned threads) : team_(threads) {
  try {
    leader_ = std::thread([this] { work(); });
  } catch (const std::system_error& e) {
    throw_error(ErrorKind::no_memory, "the system refused a thread ({}); allow more memory and processes",
                e.code().message());
  }
}

Queue::~Queue() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  pushed_more_.notify_one();
  leader_.join();
}

Queue::Ticket Queue::push(const Job& job) {
  Ticket ticket;
  {
    std::unique_lock lock(mutex_);
    ran_more_.wait(lock, [&] { return pushed_ - ran_ < kCapacity; });
    jobs_[pushed_ % kCapacity] = job;
    ticket = ++pushed_;
  }
  pushed_more_.notify_one();
  return ticket;
}

void Queue::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  ran_more_.wait(lock, [&] { return ran_ >= ticket; });
}

void Queue::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    pushed_more_.wait(lock, [&] { return stopping_ || ran_ < pushed_; });
    if (ran_ == pushed_) return;
    const Job job = jobs_[ran_ % kCapacity];
    lock.unlock();
    job.run(team_, job);
    lock.lock();
    ++ran_;
    lock.unlock();  // who wakes up needs it
    ran_more_.notify_all();
    lock.lock();
  }
}

}  // namespace steelyard::cpu
