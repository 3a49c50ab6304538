// Ceilings kept in the user's cache, and how near a step came to them. What is kept only grows: a probe errs
// downwards, and a run that beats a limit has measured a higher one.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>

#include "device/ceilings.h"
#include "device/device.h"
#include "program/cost.h"
#include "program/program.h"

namespace steelyard {

// Measures now: about a second, best while nothing else uses the device. Throws Error.
Ceilings measure_ceilings(Device& device);

// Everything that changes the figures: kernels, threads, the cores that the process may use, the probe's
// version.
std::string ceilings_conditions(const DeviceInfo& device);

// ${XDG_CACHE_HOME:-~/.cache}/steelyard/ceilings-<device>[-<threads>]-<digest of the conditions>.json;
// characters of the device's name that file names don't like become '-'. Throws Error(io) when there is no
// home directory.
std::filesystem::path ceilings_path(const DeviceInfo& device);

// nullopt when there is no file; Error(bad_input) naming the file when it isn't what save_ceilings wrote.
std::optional<Ceilings> load_ceilings(const std::filesystem::path& path);
// Makes the directory; a reader never sees half a file. Throws Error(io).
void save_ceilings(const Ceilings& ceilings, const std::filesystem::path& path);

// The best of each figure; times and load of the later measurement, `now`.
Ceilings best_of(const Ceilings& before, const Ceilings& now);

// Of the whole machine, as its load average counts.
unsigned machine_cores();
// Whether something else seems to have used the machine while it was measured: its load average before (more
// than half of `cores`), or repeats that differ by more than a half.
bool measured_while_busy(const Ceilings& ceilings, unsigned cores);
// "measured 3 h ago, while the machine was busy (load 2.1)": for people.
std::string measured_text(const Ceilings& ceilings, unsigned cores);

// What bounds a step from below: its bytes at the read rate, and its products at the rate of each weight's
// type. Seconds; 0 where the ceilings don't know. Attention's own products count at the best rate known.
// Bytes that a cache could hold from step to step are read at that buffer size's rate.
struct StepLimit {
  double read_seconds = 0;
  double multiply_seconds = 0;
  double seconds() const { return read_seconds > multiply_seconds ? read_seconds : multiply_seconds; }
};

// Walks the program's ops (microseconds); allocates nothing.
StepLimit step_limit(const Program& program, const StepShape& shape, const Ceilings& ceilings);

// Of a model in parts, in the order of its units; those of a stage (rank 0 first) work at the same time.
struct LimitPart {
  const Program* program;
  const Ceilings* ceilings;
};
// Seconds at the limit: of one step through all stages, and of the slowest stage, which is what steps in turn
// take each. Both 0 where a device's rates aren't known. Nothing for sums and hops: a limit is what no run
// can beat. Allocates nothing.
struct StageLimits {
  double all = 0, longest = 0;
};
StageLimits stage_limits(std::span<const LimitPart> parts, const StepShape& shape);

// Raises what a run has beaten: it took 1 ÷ `factor` (more than 1) of the time that `limit` says. Each
// rate that is too low for that grows to what the run reached.
void raise_ceilings(Ceilings& ceilings, const StepLimit& limit, double factor);

// limit ÷ seconds: 1 is as fast as the machine was measured to be; 0 when the ceilings are unknown.
double achieved_over_limit(const Program& program, const StepShape& shape, double seconds,
                           const Ceilings& ceilings);

}  // namespace steelyard
