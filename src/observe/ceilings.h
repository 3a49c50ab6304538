// Ceilings kept in the user's cache, and how near a step came to them.
#pragma once

#include <filesystem>
#include <optional>

#include "device/ceilings.h"
#include "device/device.h"
#include "program/cost.h"
#include "program/program.h"

namespace steelyard {

// Measures now: about a second, best while nothing else uses the device. Throws Error.
Ceilings measure_ceilings(Device& device);

// ${XDG_CACHE_HOME:-~/.cache}/steelyard/ceilings-<device>[-<threads>].json; characters of the device's name
// that file names don't like become '-'. Throws Error(io) when there is no home directory.
std::filesystem::path ceilings_path(const DeviceInfo& device);

// nullopt when there is no file; Error(bad_input) naming the file when it isn't what save_ceilings wrote.
std::optional<Ceilings> load_ceilings(const std::filesystem::path& path);
// Makes the directory; writes beside and renames, so that a reader never sees half a file. Throws Error(io).
void save_ceilings(const Ceilings& ceilings, const std::filesystem::path& path);

// What bounds a step from below: its bytes at the read rate, and its products at the rate of each weight's
// type. Seconds; 0 where the ceilings don't know. Attention's own products count at the best rate known.
struct StepLimit {
  double read_seconds = 0;
  double multiply_seconds = 0;
  double seconds() const { return read_seconds > multiply_seconds ? read_seconds : multiply_seconds; }
};

// Walks the program's ops (microseconds); allocates nothing.
StepLimit step_limit(const Program& program, const StepShape& shape, const Ceilings& ceilings);

// limit ÷ seconds: 1 is as fast as the machine was measured to be; 0 when the ceilings are unknown.
double achieved_over_limit(const Program& program, const StepShape& shape, double seconds,
                           const Ceilings& ceilings);

}  // namespace steelyard
