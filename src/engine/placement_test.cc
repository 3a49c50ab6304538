#include "engine/placement.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <string>

#include "base/error.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr DeviceName kCpu{DeviceName::Kind::cpu};
constexpr DeviceName gpu(std::uint32_t index) { return {DeviceName::Kind::cuda, index}; }

std::string error_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return {};
}
std::vector<DeviceStage> given(const char* text, std::uint32_t layers) {
  return stages_given(parse_placement(text), layers);
}

TEST(LayerPlacement, IsReadAsWritten) {
  EXPECT_EQ(parse_placement("auto").kind, PlacementWish::Kind::automatic);
  EXPECT_EQ(parse_placement("single").kind, PlacementWish::Kind::single);
  EXPECT_EQ(parse_placement("stages").kind, PlacementWish::Kind::stages);
  EXPECT_EQ(parse_placement("ranks").kind, PlacementWish::Kind::ranks);
  EXPECT_THAT(
      given("cpu:0-9,cuda0:10-31,cuda1:32-", 64),
      ElementsAre(DeviceStage{kCpu, {0, 10}}, DeviceStage{gpu(0), {10, 32}}, DeviceStage{gpu(1), {32, 64}}));
  // People count the output layer as one more.
  EXPECT_THAT(given("cuda0:0-31,cuda1:32-64", 64),
              ElementsAre(DeviceStage{gpu(0), {0, 32}}, DeviceStage{gpu(1), {32, 64}}));
  // Ranks have the same layers.
  EXPECT_THAT(given("cuda0+cuda1", 64),
              ElementsAre(DeviceStage{gpu(0), {0, 64}}, DeviceStage{gpu(1), {0, 64}}));
  EXPECT_THAT(
      given("cpu:0-9,cuda0+cuda1:10-", 64),
      ElementsAre(DeviceStage{kCpu, {0, 10}}, DeviceStage{gpu(0), {10, 64}}, DeviceStage{gpu(1), {10, 64}}));
}

TEST(LayerPlacement, SaysWhatIsWrong) {
  EXPECT_THAT(error_of([] { parse_placement("cuda0"); }), HasSubstr("'cuda0' is no placement"));
  EXPECT_THAT(error_of([] { parse_placement("rocm0:0-3"); }), HasSubstr("no device"));
  EXPECT_THAT(error_of([] { parse_placement("auto:0-3"); }), HasSubstr("names its devices"));
  EXPECT_THAT(error_of([] { parse_placement("cpu:0-3,cpu:4-"); }), HasSubstr("cpu twice"));
  EXPECT_THAT(error_of([] { parse_placement("cuda0+cuda0"); }), HasSubstr("cuda0 twice"));
  EXPECT_THAT(error_of([] { parse_placement("cuda0+"); }), HasSubstr("no device"));
  EXPECT_THAT(error_of([] { given("cuda0+cuda1:0-1,cpu:1-", 4); }), HasSubstr("don't go on"));
  EXPECT_THAT(error_of([] { given("cpu:all", 4); }), HasSubstr("no range of layers"));
  EXPECT_THAT(error_of([] { given("cpu:0-1,cuda0:3-", 4); }),
              HasSubstr("3- don't go on from layer 2 of 0 to 3"));
  EXPECT_THAT(error_of([] { given("cpu:0-1", 4); }), HasSubstr("ends before layer 2"));
  EXPECT_THAT(error_of([] { given("cpu:0-9", 4); }), HasSubstr("0 to 3"));
  EXPECT_THAT(error_of([] { given("cpu:0-99999999999", 4); }), HasSubstr("no range"));
}

// Devices that hold so many layers each.
std::vector<DeviceStage> by_room(std::vector<std::uint32_t> rooms, std::uint32_t layers) {
  std::vector<DeviceName> names;
  for (std::uint32_t i = 0; i + 1 < rooms.size(); ++i) names.push_back(gpu(i));
  names.push_back(kCpu);
  return stages_by_room(names, layers, [&](std::size_t device, const LayerRange& l) {
    return l.end - l.first <= rooms[device];
  });
}

TEST(LayerPlacement, FollowsTheRoomOfTheDevices) {
  // GPUs that hold it all share it; the CPU has nothing.
  EXPECT_THAT(by_room({24, 24, 99}, 32),
              ElementsAre(DeviceStage{gpu(0), {0, 16}}, DeviceStage{gpu(1), {16, 32}}));
  EXPECT_THAT(by_room({30, 10, 99}, 32),
              ElementsAre(DeviceStage{gpu(0), {0, 24}}, DeviceStage{gpu(1), {24, 32}}));
  // What they don't hold is the CPU's, and comes first.
  EXPECT_THAT(
      by_room({10, 12, 99}, 32),
      ElementsAre(DeviceStage{kCpu, {0, 10}}, DeviceStage{gpu(0), {10, 20}}, DeviceStage{gpu(1), {20, 32}}));
  EXPECT_THAT(by_room({0, 12, 99}, 32),
              ElementsAre(DeviceStage{kCpu, {0, 20}}, DeviceStage{gpu(1), {20, 32}}));
  EXPECT_THAT(by_room({10, 12, 9}, 32), IsEmpty());
  EXPECT_THAT(by_room({40, 99}, 32), ElementsAre(DeviceStage{gpu(0), {0, 32}}));
}

// Whatever the rooms: the layers in order, none over its room.
TEST(LayerPlacement, NeverGivesADeviceMoreThanItHolds) {
  for (std::uint32_t a = 0; a <= 9; ++a)
    for (std::uint32_t b = 0; b <= 9; ++b)
      for (std::uint32_t c = 0; c <= 9; ++c) {
        const std::vector<std::uint32_t> rooms = {a, b, c};
        const auto stages = by_room(rooms, 8);
        EXPECT_EQ(stages.empty(), a + b + c < 8);
        std::uint32_t next = 0;
        for (const DeviceStage& s : stages) {
          EXPECT_EQ(s.layers.first, next);
          const std::size_t device = s.device == kCpu ? 2 : s.device.index;
          EXPECT_LE(s.layers.end - s.layers.first, rooms[device]) << a << " " << b << " " << c;
          next = s.layers.end;
        }
        if (!stages.empty()) {
          EXPECT_EQ(next, 8u);
        }
      }
}

}  // namespace
}  // namespace steelyard
