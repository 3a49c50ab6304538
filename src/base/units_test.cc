#include "base/units.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace steelyard {
namespace {

constexpr std::uint64_t kMiB = 1 << 20, kGiB = 1 << 30;

TEST(Units, SizesAreRoundedTheWayTheyAreMeant) {
  EXPECT_EQ(size_text(9'999), "9999 B");
  EXPECT_EQ(size_text(10'240), "10.0 KiB");
  EXPECT_EQ(size_text(94 * kMiB + kMiB / 8), "94.1 MiB");
  EXPECT_EQ(size_text(kMiB - 1), "1.0 MiB");
  EXPECT_EQ(size_text(kGiB - 1), "1.00 GiB");
  EXPECT_EQ(size_text(19 * kGiB), "19.00 GiB");
  EXPECT_EQ(size_text(900 * kMiB + 1, Rounding::up), "900.1 MiB");
  EXPECT_EQ(size_text(900 * kMiB - 1, Rounding::down), "899.9 MiB");
  EXPECT_EQ(size_text(2 * kGiB - 1, Rounding::down), "1.99 GiB");
}

TEST(Units, SizesAreReadAsTheirUnitsSay) {
  EXPECT_EQ(parse_size("900M"), 900 * kMiB);
  EXPECT_EQ(parse_size("1.5g"), 3 * kGiB / 2);
  EXPECT_EQ(parse_size("24GiB"), 24 * kGiB);
  EXPECT_EQ(parse_size("24 gib"), 24 * kGiB);
  EXPECT_EQ(parse_size("22GB"), 22'000'000'000u);
  EXPECT_EQ(parse_size("500kb"), 500'000u);
  EXPECT_EQ(parse_size("4096B"), 4096u);
}

TEST(Units, ANumberWithoutAUnitIsNoSize) {
  const auto error_of = [](std::string_view text) -> std::string {
    try {
      parse_size(text);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_THAT(error_of("12"), ::testing::HasSubstr("write 12G for GiB"));
  for (const char* text : {"", "G", "x", "12X", "12Gi", "-3G", "0M", "nanG", "1e30T", "12GiB,12GiB", "12G "})
    EXPECT_THAT(error_of(text), ::testing::HasSubstr("is no size")) << text;
}

TEST(Units, CountsHaveThreeDigits) {
  EXPECT_EQ(count_text(999), "999");
  EXPECT_EQ(count_text(7'000), "7K");
  EXPECT_EQ(count_text(134'515'008), "135M");
  EXPECT_EQ(count_text(999'600'000), "1B");
  EXPECT_EQ(count_text(1'236'000'000), "1.24B");
  EXPECT_EQ(count_text(8'030'261'248), "8.03B");
  EXPECT_EQ(count_text(1'200'000'000'000), "1.2T");
}

TEST(Units, TimesThereAndBack) {
  using namespace std::chrono_literals;
  const auto day = std::chrono::system_clock::from_time_t(1'772'366'400);
  EXPECT_EQ(rfc3339(day), "2026-03-01T12:00:00Z");
  EXPECT_EQ(rfc3339(day + 250ms), "2026-03-01T12:00:00.25Z");
  EXPECT_EQ(rfc3339(day + 7ns), "2026-03-01T12:00:00.000000007Z");
  for (const auto& time : {day, day + 250ms, day + 1us}) EXPECT_EQ(parse_rfc3339(rfc3339(time)), time);
  for (const char* text : {"", "2026-03-01", "2026-03-01T12:00:00", "2026-03-01T12:00:00+01:00", "x"})
    EXPECT_FALSE(parse_rfc3339(text)) << text;
}

TEST(Units, SpansAreRough) {
  using namespace std::chrono_literals;
  EXPECT_EQ(span_text(12s), "12 s");
  EXPECT_EQ(span_text(5min), "5 min");
  EXPECT_EQ(span_text(3h), "3 h");
  EXPECT_EQ(span_text(41 * 24h), "41 days");
}

}  // namespace
}  // namespace steelyard
