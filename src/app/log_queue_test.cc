#include "app/log_queue.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

struct Pipe {
  int ends[2];
  Pipe() { EXPECT_EQ(pipe(ends), 0); }
  ~Pipe() { close(ends[0]), close(ends[1]); }
  std::string read_until(const std::string& end) {
    std::string text;
    char buffer[65536];
    while (text.find(end) == std::string::npos) {
      const ssize_t n = read(ends[0], buffer, sizeof buffer);
      if (n <= 0) break;
      text.append(buffer, static_cast<std::size_t>(n));
    }
    return text;
  }
};

TEST(LogQueue, WritesLinesInOrder) {
  Pipe pipe;
  {
    LogQueue log(pipe.ends[1]);
    log.write("one");
    log.write("two\n");
    log.write(std::string(10000, 'x'));
  }
  EXPECT_EQ(pipe.read_until("x\n"), "one\ntwo\n" + std::string(10000, 'x') + "\n");
}

TEST(LogQueue, NobodyWaitsForAReaderAndWhatIsDroppedIsCounted) {
  Pipe pipe;
  LogQueue log(pipe.ends[1], 10);
  for (int i = 0; i < 5000; ++i) log.write(std::string(1000, 'a'));
  const std::string text = pipe.read_until("dropped");
  EXPECT_THAT(text, StartsWith("aaa"));
  EXPECT_THAT(text, HasSubstr(" lines of the log were dropped"));
}

TEST(LogQueue, EndsThoughNobodyReads) {
  Pipe pipe;
  LogQueue log(pipe.ends[1]);
  for (int i = 0; i < 1000; ++i) log.write(std::string(1000, 'a'));
}

}  // namespace
}  // namespace steelyard
