// The devices of this machine as placing weighs them (plan/fleet.h): memory that is free now, and rates.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "device/device.h"
#include "plan/fleet.h"

namespace steelyard {

struct FleetDevice {
  std::shared_ptr<Device> device;
  std::uint64_t room;  // bytes for a plan's total(), what the driver took included
};

// GPUs: nominal rates, as the driver tells them, or measured ones where it doesn't. The CPU: rates as
// measured and kept (observe/ceilings.h); never measured, a usual machine's, and the fleet's note says so.
// Every link goes through page-locked host memory, at the slower of both devices' measured copies. Reads
// files of the user's cache; measures nothing.
PaperFleet live_fleet(std::span<const FleetDevice> devices);

}  // namespace steelyard
