// What a device was measured to be able to do at best (Device::measure_rates): the facts that speeds are held
// against and that placing a model weighs. Plain data.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "base/dtype.h"

namespace steelyard {

// A rate of 0 is unknown. A probe can only err downwards: what else the machine does makes it slower.
struct Ceilings {
  std::string device;                // its name, "AMD EPYC 9B45"
  std::uint32_t threads = 0;         // CPU: the figures hold for this many
  std::string conditions;            // all that they hold under: kernels, cores, version of the probe
  double read_bytes_per_second = 0;  // of its memory
  // CPU: of a buffer of so many bytes, read again and again: below the memory's rate where caches don't hold
  // it.
  std::map<std::uint64_t, double> cached_reads;
  // Operations a second (a multiply-add is two) of a weight type's own kernel on many rows.
  std::map<DType, double> multiply_per_second;
  // GPU: between host and device; and from one kernel of a graph to the next.
  double to_device_bytes_per_second = 0, from_device_bytes_per_second = 0;
  double launch_seconds = 0;
  std::string measured_at;  // RFC 3339, UTC
  double load = 0;          // the machine's load average before measuring
  double spread = 0;        // of the repeated reads: (slowest - fastest) / fastest, in seconds
  std::string raised_at;    // when a run was faster than the limit, which was raised to it; empty: never
};

}  // namespace steelyard
