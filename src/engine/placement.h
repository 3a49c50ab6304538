// Which device has which layers of a model: as a person says it, or as the memory allows. Neighbours with the
// same layers are tensor ranks: each has its piece of every one of them.
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
// allows. `ranks`: every layer over all GPUs. `automatic`: on one where it fits, else in stages.
struct PlacementWish {
  enum class Kind : std::uint8_t { automatic, single, stages, ranks, given };
  struct Given {
    DeviceName device;
    std::string layers;          // as written: "0-31"; "0-": all
    bool with_previous = false;  // a rank beside the one before: joined to it by '+'
  };
  Kind kind = Kind::automatic;
  std::vector<Given> given;
};

// "auto", "single", "stages", "ranks", or devices with their layers: "cpu:0-9,cuda0:10-31,cuda1:32-"; devices
// joined by '+' share them: "cuda0+cuda1", "cuda0+cuda1:0-39,cpu:40-". Throws Error(bad_input).
PlacementWish parse_placement(std::string_view text);

// The given layers of a model that has n. The last range may be open, or count the output layer as one more,
// as people do. Throws Error(bad_input) when they aren't 0 to n - 1 in order, but for ranks, which have the
// same.
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
