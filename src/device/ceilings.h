// What a device was measured to be able to do at best (Device::measure_rates): the facts that speeds are held
// against and that placing a model weighs. Plain data.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/dtype.h"

namespace steelyard {

// A rate of 0 is unknown.
struct Ceilings {
  std::string device;         // its name, "AMD EPYC 9B45"
  std::uint32_t threads = 0;  // CPU: the figures hold for this many
  double read_bytes_per_second = 0;
  // Operations a second (a multiply-add is two) of a weight type's own kernel on many rows.
  std::map<DType, double> multiply_per_second;
  // GPU: between host and device; and from one kernel of a graph to the next.
  double to_device_bytes_per_second = 0, from_device_bytes_per_second = 0;
  double launch_seconds = 0;
  std::string measured_at;  // RFC 3339, UTC
};

}  // namespace steelyard
