// Long work on a store, on threads of its own, that any number of clients follow.
#pragma once

#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "store/pull.h"

namespace steelyard {

// Thread-safe, and held by whoever needs it: it knows neither who works nor who follows.
class StoreJob {
 public:
  struct Step {
    StepProgress progress;
    double bytes_per_second = 0;  // since its first byte here
  };
  struct News {
    std::vector<Step> steps;  // of a blob only the latest
    bool ended = false;
    std::exception_ptr error;
  };
  // What has come since the last call with this cursor, which begins at 0.
  News news(std::uint64_t& cursor) const;

  // A follower: when the last one has gone, the work is asked to stop.
  class Follower {
   public:
    ~Follower();
    const StoreJob& job() const { return *job_; }
    Follower(const Follower&) = delete;
    Follower& operator=(const Follower&) = delete;

   private:
    friend class StoreJobs;
    explicit Follower(std::shared_ptr<StoreJob> job) : job_(std::move(job)) {}  // that was joined
    const std::shared_ptr<StoreJob> job_;
  };

 private:
  friend class StoreJobs;
  void report(const StepProgress& progress);
  void end(std::exception_ptr error);
  bool join();  // false: it is too late

  struct Entry {
    Step step;
    std::uint64_t version;
    std::chrono::steady_clock::time_point begin;
    std::uint64_t first;
  };
  mutable std::mutex mutex_;
  std::vector<Entry> entries_;
  std::uint64_t version_ = 0;
  unsigned followers_ = 0;
  bool ended_ = false, left_ = false;  // left_: by the last follower
  std::exception_ptr error_;
  std::stop_source stop_;
};

// The jobs of one server. Its end asks them to stop and waits for them. Thread-safe.
class StoreJobs {
 public:
  using Work = std::function<void(const OnStep& on_step, const std::stop_token& stop)>;
  StoreJobs() = default;
  ~StoreJobs();
  StoreJobs(const StoreJobs&) = delete;
  StoreJobs& operator=(const StoreJobs&) = delete;

  // Begins it, or joins the one of this name that runs. An empty name is nobody else's. Throws Error(busy)
  // when too many run.
  std::shared_ptr<StoreJob::Follower> begin(const std::string& name, Work work);

 private:
  struct Running {
    std::string name;
    std::shared_ptr<StoreJob> job;
    std::jthread thread;
  };
  void reap();

  std::mutex mutex_;
  std::vector<Running> running_;
};

}  // namespace steelyard
