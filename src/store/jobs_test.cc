#include "store/jobs.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <semaphore>
#include <string>
#include <thread>

#include "base/error.h"

namespace steelyard {
namespace {

// Waits for it, with a bound against a hang.
StoreJob::News wait_for_end(const StoreJob& job, std::uint64_t& cursor) {
  StoreJob::News all;
  for (int i = 0; i < 6000 && !all.ended; ++i) {
    StoreJob::News news = job.news(cursor);
    for (auto& step : news.steps) all.steps.push_back(step);
    all.ended = news.ended;
    all.error = news.error;
    if (!all.ended) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_TRUE(all.ended);
  return all;
}

TEST(StoreJobs, OneNameIsOneJob) {
  StoreJobs jobs;
  std::atomic<int> runs{0};
  std::counting_semaphore<4> go(0);
  const auto work = [&](const OnStep& on_step, const std::stop_token&) {
    ++runs;
    on_step({"begun", "", 0, 0});
    go.acquire();
    on_step({"success", "", 0, 0});
  };
  const auto a = jobs.begin("pull x", work), b = jobs.begin("pull x", work), c = jobs.begin("pull y", work);
  EXPECT_EQ(&a->job(), &b->job());
  EXPECT_NE(&a->job(), &c->job());
  go.release(2);
  std::uint64_t first = 0, second = 0;
  EXPECT_EQ(wait_for_end(a->job(), first).steps.size(), 2u);
  EXPECT_EQ(wait_for_end(b->job(), second).steps.back().progress.status, "success");  // both hear all of it
  wait_for_end(c->job(), first = 0);
  EXPECT_EQ(runs, 2);
  go.release(1);
  const auto again = jobs.begin("pull x", work);  // the first has ended
  EXPECT_NE(&again->job(), &a->job());
  wait_for_end(again->job(), first = 0);
}

TEST(StoreJobs, OfABlobTheLatestCounts) {
  StoreJobs jobs;
  const auto job = jobs.begin("", [](const OnStep& on_step, const std::stop_token&) {
    for (std::uint64_t done = 0; done <= 1000; ++done) on_step({"pulling a", "sha256:a", 1000, done});
    on_step({"pulling b", "sha256:b", 5, 0});
  });
  std::uint64_t cursor = 0;
  std::this_thread::sleep_for(std::chrono::milliseconds(1));
  const StoreJob::News end = wait_for_end(job->job(), cursor);
  EXPECT_LT(end.steps.size(), 1000u);
  EXPECT_EQ(end.steps.back().progress.digest, "sha256:b");
  std::uint64_t late = 0;
  const StoreJob::News all = job->job().news(late);
  ASSERT_EQ(all.steps.size(), 2u);
  EXPECT_EQ(all.steps[0].progress.done, 1000u);
}

TEST(StoreJobs, StopsWhenNobodyFollowsOrTheServerEnds) {
  const auto until_stopped = [](const OnStep&, const std::stop_token& stop) {
    while (!stop.stop_requested()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    throw Error(ErrorKind::cancelled, "stopped");
  };
  std::shared_ptr<StoreJob::Follower> outlives;
  {
    StoreJobs jobs;
    auto one = jobs.begin("x", until_stopped), two = jobs.begin("x", until_stopped);
    one.reset();
    std::uint64_t cursor = 0;
    EXPECT_FALSE(two->job().news(cursor).ended);
    two.reset();
    const auto anew =
        jobs.begin("x", [](const OnStep&, const std::stop_token&) {});  // not the one that stops
    EXPECT_FALSE(wait_for_end(anew->job(), cursor).error);
    outlives = jobs.begin("y", until_stopped);
  }
  std::uint64_t cursor = 0;
  EXPECT_TRUE(outlives->job().news(cursor).ended);
  EXPECT_TRUE(outlives->job().news(cursor).error);
}

}  // namespace
}  // namespace steelyard
