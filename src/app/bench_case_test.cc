#include "app/bench_case.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace steelyard {
namespace {

using Kind = BenchCase::Kind;

TEST(BenchCase, ParsesEveryForm) {
  EXPECT_EQ(parse_bench_case("pp512"), (BenchCase{Kind::prompt, 512, 0, 1}));
  EXPECT_EQ(parse_bench_case("tg128@2048"), (BenchCase{Kind::generate, 128, 2048, 1}));
  EXPECT_EQ(parse_bench_case(" tg64@4096 x8 "), (BenchCase{Kind::generate, 64, 4096, 8}));
  EXPECT_EQ(parse_bench_cases("pp1,tg2x3"),
            (std::vector<BenchCase>{{Kind::prompt, 1, 0, 1}, {Kind::generate, 2, 0, 3}}));
}

TEST(BenchCase, NamesReadBack) {
  for (const bool gpu : {false, true})
    for (const BenchCase& c : default_bench_cases(gpu)) EXPECT_EQ(parse_bench_case(c.name()), c) << c.name();
  EXPECT_EQ(parse_bench_case("tg128x8").name(), "tg128x8");
  EXPECT_EQ(parse_bench_case("tg128@2048").name(), "tg128@2048");
}

TEST(BenchCase, RefusesWhatIsNoTest) {
  for (const char* bad :
       {"", "pp", "512", "pp0", "tg128x0", "tg128@0", "pp-5", "pp99999999", "tg128x8x8", "pp512,"})
    EXPECT_THROW(parse_bench_cases(bad), Error) << bad;
}

}  // namespace
}  // namespace steelyard
