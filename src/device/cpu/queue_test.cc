#include "device/cpu/queue.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <set>
#include <thread>
#include <vector>

namespace steelyard::cpu {
namespace {

struct Log {
  std::vector<std::int32_t> seen;
  static void add(ThreadPool&, const Queue::Job& job) {
    static_cast<Log*>(job.owner)->seen.push_back(job.values[0]);
  }
};

TEST(Queue, RunsJobsInOrderAndWaitsForOne) {
  Queue queue(2);
  Log log;
  Queue::Ticket last = 0;
  for (std::int32_t i = 0; i < 1000; ++i) {  // more than it holds: push() waits for room
    last = queue.push({Log::add, &log, {i}});
    if (i % 100 == 7) {
      queue.wait(last);
      ASSERT_EQ(log.seen.size(), static_cast<std::size_t>(i) + 1);
    }
  }
  queue.wait(last);
  ASSERT_EQ(log.seen.size(), 1000u);
  for (std::int32_t i = 0; i < 1000; ++i) EXPECT_EQ(log.seen[i], i);
  queue.wait(0);
}

TEST(Queue, TheTeamHasAsManyThreadsAsWereAskedFor) {
  for (const unsigned threads : {1u, 3u}) {
    Queue queue(threads);
    std::vector<std::thread::id> ids(threads);
    queue.run([&](unsigned thread, unsigned n) {
      EXPECT_EQ(n, threads);
      ids[thread] = std::this_thread::get_id();
    });
    EXPECT_EQ(std::set(ids.begin(), ids.end()).size(), threads);
    EXPECT_EQ(ids[0], std::this_thread::get_id());  // the caller leads
  }
}

// Who waits runs what nobody began, and all before it; what is to begin at once needs nobody.
TEST(Queue, JobsBeginWhenTheyAreWantedTo) {
  using Begin = Queue::Begin;
  Queue queue(2);
  std::atomic<int> ran{0};
  const auto count = [](ThreadPool&, const Queue::Job& job) { ++*static_cast<std::atomic<int>*>(job.owner); };
  const Queue::Ticket first = queue.push({count, &ran}, Begin::when_waited_for);
  queue.push({count, &ran}, Begin::when_waited_for);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT_EQ(ran, 0);
  queue.wait(first);
  EXPECT_EQ(ran, 1);
  queue.push({count, &ran}, Begin::at_once);
  while (ran < 3) std::this_thread::yield();
  for (int i = 0; i < 1000; ++i) queue.push({count, &ran}, Begin::when_waited_for);  // makes its own room
  EXPECT_GT(ran, 3);
}

TEST(Queue, ServesSeveralCallersAndEndsWithWhatIsLeft) {
  Log log;
  std::vector<int> team(3);
  {
    Queue queue(3);
    std::vector<std::thread> callers;
    for (std::int32_t c = 0; c < 4; ++c)
      callers.emplace_back([&, c] {
        for (int i = 0; i < 300; ++i)
          queue.push({Log::add, &log, {c}}, i % 2 ? Queue::Begin::at_once : Queue::Begin::when_waited_for);
        queue.run([&](unsigned thread, unsigned) { ++team[thread]; });
        for (int i = 0; i < 20; ++i) queue.push({Log::add, &log, {c}});
      });
    for (auto& caller : callers) caller.join();
  }
  EXPECT_EQ(log.seen.size(), 4u * 320u);
  EXPECT_EQ(team, std::vector<int>(3, 4));
}

}  // namespace
}  // namespace steelyard::cpu
