#include "device/cpu/queue.h"

#include <system_error>

#include "base/error.h"
#include "base/process.h"

namespace steelyard::cpu {

Queue::Queue(unsigned threads)
    : team_(threads),
      best_begin_(team_.size() < cpu_share().threads ? Begin::at_once : Begin::when_waited_for) {
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
  wanted_more_.notify_one();
  leader_.join();
}

Queue::Ticket Queue::push(const Job& job, Begin begin) {
  std::unique_lock lock(mutex_);
  while (pushed_ - ran_ == kCapacity) lead_or_wait(lock, ran_ + 1);
  jobs_[pushed_ % kCapacity] = job;
  const Ticket ticket = ++pushed_;
  if (begin == Begin::when_waited_for) return ticket;
  wanted_ = ticket;
  lock.unlock();
  wanted_more_.notify_one();
  return ticket;
}

void Queue::wait(Ticket ticket) {
  std::unique_lock lock(mutex_);
  while (ran_ < ticket) lead_or_wait(lock, ticket);
}

// Runs jobs until `until` has run, or waits a while for who does so already: the caller looks again.
void Queue::lead_or_wait(std::unique_lock<std::mutex>& lock, Ticket until) {
  if (leading_) return ran_more_.wait(lock);
  leading_ = true;
  while (ran_ < until) {
    const Job job = jobs_[ran_ % kCapacity];
    lock.unlock();
    job.run(team_, job);
    lock.lock();
    ++ran_;
    ran_more_.notify_all();
  }
  leading_ = false;
  ran_more_.notify_all();
}

void Queue::work() {
  std::unique_lock lock(mutex_);
  while (true) {
    wanted_more_.wait(lock, [&] { return stopping_ || ran_ < wanted_; });
    const Ticket until = stopping_ ? pushed_ : wanted_;
    while (ran_ < until) lead_or_wait(lock, until);
    if (stopping_ && ran_ == pushed_) return;
  }
}

}  // namespace steelyard::cpu
