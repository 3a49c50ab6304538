#include "plan/fleet.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "base/error.h"

namespace steelyard {
namespace {

using ::testing::HasSubstr;

std::string refusal(std::string_view text) {
  try {
    parse_fleet(text);
  } catch (const Error& e) {
    return e.what();
  }
  return "taken";
}

TEST(Fleet, CardsByName) {
  const PaperFleet f = parse_fleet("2x3090,RTX 4090");
  ASSERT_EQ(f.devices.size(), 3u);
  EXPECT_EQ(f.devices[1].id, "CUDA1");
  EXPECT_EQ(f.devices[1].title, "RTX 3090");
  EXPECT_EQ(f.devices[1].memory, std::uint64_t{24} << 30);
  EXPECT_DOUBLE_EQ(f.devices[2].read_bytes_per_second, 1008e9);
  EXPECT_TRUE(f.devices[0].alike(f.devices[1]));
  EXPECT_FALSE(f.devices[0].alike(f.devices[2]));
  EXPECT_EQ(f.link(0, 2).name, "PCIe 4 x16");
  EXPECT_FALSE(f.link(0, 2).peer);
}

TEST(Fleet, SizesWithRatesLinksAndTheCpu) {
  const PaperFleet f = parse_fleet("2x24GiB@936GB/s@71TFLOP/s+cpu:64GiB@80GB/s, pcie3x8, p2p");
  ASSERT_EQ(f.devices.size(), 3u);
  EXPECT_DOUBLE_EQ(f.devices[0].read_bytes_per_second, 936e9);
  EXPECT_DOUBLE_EQ(f.devices[1].multiplies_per_second, 71e12);
  EXPECT_EQ(f.devices[2].id, "CPU");
  EXPECT_TRUE(f.devices[2].host);
  EXPECT_EQ(f.link(0, 1).name, "PCIe 3 x8 with peer access");
  EXPECT_TRUE(f.link(1, 0).peer);
  EXPECT_FALSE(f.link(0, 2).peer);  // to the CPU everything goes through its memory
  EXPECT_EQ(parse_fleet("cpu:8GiB@80GB/s,4090").devices[0].id, "CUDA0");
}

TEST(Fleet, LinksThatCardsHave) {
  EXPECT_EQ(parse_fleet("2xh200").link(0, 1).name, "NVLink");
  EXPECT_TRUE(parse_fleet("2xh200").link(0, 1).peer);
  EXPECT_EQ(parse_fleet("h200,4090").link(0, 1).name, "PCIe 4 x16");
  EXPECT_EQ(parse_fleet("h200,cpu:1TiB@400GB/s").link(0, 1).name, "PCIe 5 x16");
  EXPECT_EQ(parse_fleet("2xh200,pcie5x16").link(0, 1).name, "PCIe 5 x16");
  EXPECT_DOUBLE_EQ(parse_fleet("2x3090,link:50GB/s").link(0, 1).bytes_per_second, 50e9);
}

TEST(Fleet, RatesOfAllOrOfNone) {
  const PaperFleet f = parse_fleet("12GiB,8GiB");
  EXPECT_FALSE(f.rates_known());
  EXPECT_THAT(f.note, HasSubstr("no speed is predicted"));
  EXPECT_THAT(refusal("12GiB,3090"), HasSubstr("for all or for none"));
  EXPECT_THAT(refusal("12GiB,cpu:64GiB"), HasSubstr("bandwidths"));
}

TEST(Fleet, WhatIsWrongIsNamed) {
  EXPECT_THAT(refusal("2x"), HasSubstr("'2x' is neither a card nor a size"));
  EXPECT_THAT(refusal("3091"), HasSubstr("'3091' is neither a card nor a size"));
  EXPECT_THAT(refusal("3090,,4090"), HasSubstr("is empty"));
  EXPECT_THAT(refusal("3090,"), HasSubstr("is empty"));
  EXPECT_THAT(refusal("24GiB@fast"), HasSubstr("936GB/s"));
  EXPECT_THAT(refusal("24GiB@-1GB/s"), HasSubstr("936GB/s"));
  for (const char* rate :
       {"24GiB@936", "24GiB@0GB/s", "24GiB@1e-300GB/s", "24GiB@1e300GB/s", "24GiB@nanGB/s"})
    EXPECT_THAT(refusal(rate), HasSubstr("936GB/s")) << rate;
  EXPECT_THAT(refusal("nvlink"), HasSubstr("no device"));
  EXPECT_THAT(refusal("3090,pcie9x16"), HasSubstr("no link that is known"));
  EXPECT_THAT(refusal("cpu,3090"), HasSubstr("lacks its memory"));
  EXPECT_THAT(refusal("cpu:8GiB@1GB/s,cpu:8GiB@1GB/s"), HasSubstr("second CPU"));
  EXPECT_THAT(refusal("99x3090"), HasSubstr("more than 16"));
  EXPECT_THAT(refusal("0x3090"), HasSubstr("no device"));
  EXPECT_THAT(refusal(std::string(100'000, 'x')), HasSubstr("neither"));
}

TEST(Fleet, ASizeAloneIsNone) {
  for (const char* size : {"24GiB", "22GB", "900M", "12", "12.5"}) EXPECT_FALSE(is_fleet(size)) << size;
  for (const char* fleet : {"3090", "2x12GiB", "12GiB,12GiB", "h200", "24GiB@936GB/s", "foo"})
    EXPECT_TRUE(is_fleet(fleet)) << fleet;
}

TEST(Fleet, EveryCardCanBeNamed) {
  std::set<std::string_view> names;
  for (const Card& card : cards()) {
    EXPECT_TRUE(names.insert(card.name).second) << card.name;
    EXPECT_EQ(parse_fleet(card.name).devices[0].title, card.title);
    EXPECT_THAT(fleet_grammar(), HasSubstr(card.name));
  }
}

}  // namespace
}  // namespace steelyard
