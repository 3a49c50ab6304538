#include "app/progress.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "app/terminal.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

const std::string kName = "loading SmolLM2-135M-Instruct.Q4_1.gguf";

TEST(ProgressLine, FitsAnyWidth) {
  for (std::uint32_t columns = 1; columns < 200; ++columns)
    for (const auto unit : {Progress::Unit::bytes, Progress::Unit::tokens})
      for (const std::string& name : {kName, std::string("模型模型模型模型模型模型模型"), std::string("x")})
        EXPECT_LE(columns_of(progress_line(name, 50'000'000, 96'000'000, 2.4e9, unit, columns)), columns)
            << columns;
}

TEST(ProgressLine, ShowsAllThereIsRoomFor) {
  const auto line = [](std::uint32_t columns) {
    return progress_line(kName, 48 << 20, 96 << 20, 1e9, Progress::Unit::bytes, columns);
  };
  EXPECT_THAT(
      line(130),
      HasSubstr(kName + " [############............]  50 %  48.0 MiB of 96.0 MiB  1.00 GB/s  0:00 left"));
  EXPECT_THAT(line(79), HasSubstr("50 %  48.0 MiB of 96.0 MiB  1.00 GB/s  0:00 left"));
  EXPECT_THAT(line(79), HasSubstr("loading SmolLM2"));
  EXPECT_THAT(line(39), HasSubstr("loading"));
  EXPECT_THAT(line(39), HasSubstr("50 %"));
  EXPECT_THAT(line(39), Not(HasSubstr("GB/s")));
  EXPECT_THAT(line(6), HasSubstr("50 %"));
}

TEST(ProgressLine, CountsTokens) {
  EXPECT_THAT(progress_line("reading the prompt", 1500, 6000, 500, Progress::Unit::tokens, 100),
              HasSubstr("25 %  1500 of 6000 tokens  500.0 tokens/s  0:09 left"));
}

}  // namespace
}  // namespace steelyard
