// What an engine's thread still holds when the server has gone.
#include "api/mailbox.h"

#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <optional>
#include <thread>

namespace steelyard::api {
namespace {

TEST(Mailbox, MayBeFilledAndDestroyedOnAnotherThreadAfterTheServer) {
  std::shared_ptr<Mailbox> mailbox;
  {
    asio::io_context io;
    const Signal signal(asio::make_strand(io));
    mailbox = std::make_shared<Mailbox>(signal.waker());
  }
  std::thread engine([box = std::move(mailbox)]() mutable {
    box->put("late");
    box->finish({});
    box.reset();
  });
  engine.join();
}

TEST(Mailbox, ASignalThatGoesWhileItsWakeIsOnItsWayIsLeftAlone) {
  asio::io_context io;
  std::optional<Signal> signal(asio::make_strand(io));
  signal->waker()->wake();
  signal.reset();
  EXPECT_EQ(io.run(), 1u);
}

TEST(Mailbox, WakesWhoWaitsOnAnyThread) {
  asio::io_context io;
  Signal signal(asio::make_strand(io));
  Mailbox mailbox(signal.waker());
  std::future<bool> woken = asio::co_spawn(
      io, [&signal] { return signal.wait(std::chrono::hours(1)); }, asio::use_future);
  std::thread engine([&mailbox] { mailbox.put("news"); });
  io.run();
  engine.join();
  EXPECT_TRUE(woken.get());
  std::string text;
  std::vector<TokenChances> chances;
  Answer answer;
  EXPECT_FALSE(mailbox.take(text, chances, answer));
  EXPECT_EQ(text, "news");
}

}  // namespace
}  // namespace steelyard::api
