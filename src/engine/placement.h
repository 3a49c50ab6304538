// Which device has which layers of a model: as a person says it, or as the memory allows.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "device/devices.h"

namespace steelyard {

struct LayerRange {
  std::uint32_t first = 0, end = 0;
  bool operator==(const LayerRange&) const = default;
};
struct DeviceStage {
  DeviceName device;
  LayerRange layers;
  bool operator==(const DeviceStage&) const = default;
};

// What --placement says. `single`: all of it on one device. `stages`: layers over several, as their memory
// allows. `automatic`: on one where it fits, else in stages.
struct PlacementWish {
  enum class Kind : std::uint8_t { automatic, single, stages, given };
  Kind kind = Kind::automatic;
  std::vector<std::pair<DeviceName, std::string>> given;  // devices with their layers as written: "0-31"
};

// "auto", "single", "stages", or devices with their layers: "cpu:0-9,cuda0:10-31,cuda1:32-". Throws
// Error(bad_input).
PlacementWish parse_placement(std::string_view text);

// The given layers of a model that has n. The last range may be open, or count the output layer as one more,
// as people do. Throws Error(bad_input) when they aren't 0 to n - 1 in order.
std::vector<DeviceStage> stages_given(const PlacementWish& wish, std::uint32_t n_layers);

// Whether a device has room for these layers. Asked for few ranges; never has more room for more layers.
using HasRoom = std::function<bool(std::size_t device, const LayerRange& layers)>;
// n layers over `devices`, the fastest first; all of them are used as far as they hold at least one layer.
// Where the devices but the last hold everything together, the last has none, and each of the others its
// share of what it could hold; else they are filled, and the last has the first layers: the output layer lies
// with fast memory. Empty: not even that fits.
std::vector<DeviceStage> stages_by_room(const std::vector<DeviceName>& devices, std::uint32_t n_layers,
                                        const HasRoom& has_room);

}  // namespace steelyard
