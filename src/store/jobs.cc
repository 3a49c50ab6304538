#include "store/jobs.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace steelyard {
namespace {

constexpr std::size_t kMost = 16;  // at once

}  // namespace

StoreJob::News StoreJob::news(std::uint64_t& cursor) const {
  const std::lock_guard lock(mutex_);
  News news{{}, ended_, error_};
  for (const Entry& e : entries_)
    if (e.version > cursor) news.steps.push_back(e.step);
  cursor = version_;
  return news;
}

void StoreJob::report(const StepProgress& progress) {
  const auto now = std::chrono::steady_clock::now();
  const std::lock_guard lock(mutex_);
  const auto same = std::ranges::find_if(entries_, [&](const Entry& e) {
    return !progress.digest.empty() && e.step.progress.digest == progress.digest;
  });
  ++version_;
  if (same == entries_.end()) {
    entries_.push_back({{progress, 0}, version_, now, progress.done});
    return;
  }
  same->step.progress = progress;
  same->version = version_;
  const double seconds = std::chrono::duration<double>(now - same->begin).count();
  if (seconds > 0 && progress.done > same->first)
    same->step.bytes_per_second = static_cast<double>(progress.done - same->first) / seconds;
}

void StoreJob::end(std::exception_ptr error) {
  const std::lock_guard lock(mutex_);
  error_ = std::move(error);
  ended_ = true;
}

bool StoreJob::join() {
  const std::lock_guard lock(mutex_);
  if (ended_ || left_) return false;
  ++followers_;
  return true;
}

StoreJob::Follower::~Follower() {
  {
    const std::lock_guard lock(job_->mutex_);
    if (--job_->followers_ > 0) return;
    job_->left_ = true;
  }
  job_->stop_.request_stop();
}

StoreJobs::~StoreJobs() {
  const std::lock_guard lock(mutex_);
  for (Running& r : running_) r.job->stop_.request_stop();
  running_.clear();  // each waits for its thread
}

void StoreJobs::reap() {
  std::erase_if(running_, [](const Running& r) {
    const std::lock_guard lock(r.job->mutex_);
    return r.job->ended_;
  });
}

std::shared_ptr<StoreJob::Follower> StoreJobs::begin(const std::string& name, Work work) {
  using Follower = StoreJob::Follower;
  const std::lock_guard lock(mutex_);
  reap();
  for (const Running& r : running_)
    if (!name.empty() && r.name == name && r.job->join())
      return std::shared_ptr<Follower>(new Follower(r.job));
  if (running_.size() >= kMost)
    throw_error(ErrorKind::busy, "{} models are being pulled or made already: try again later", kMost);
  auto job = std::make_shared<StoreJob>();
  job->join();
  running_.push_back({name, job, std::jthread([job, work = std::move(work)] {
                        std::exception_ptr error;
                        try {
                          work([&](const StepProgress& step) { job->report(step); }, job->stop_.get_token());
                        } catch (...) {
                          error = std::current_exception();
                        }
                        job->end(std::move(error));
                      })});
  return std::shared_ptr<Follower>(new Follower(std::move(job)));
}

}  // namespace steelyard
