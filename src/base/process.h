// What the system says about this process. Thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace steelyard {

// Bytes of pages touched and in memory now: private and mapped. 0 where /proc isn't mounted.
std::uint64_t resident_bytes();

// Bytes that this process can still take: what the machine has available, or less where a control group (a
// container's memory limit) or a limit on address space (ulimit -v) leaves less.
std::uint64_t available_bytes();

// The control groups' part of it: the least that a group and its parents leave, file cache counted as free,
// or UINT64_MAX without a limit. `root` is where they are mounted, `self` is the content of
// /proc/self/cgroup; versions 1 and 2.
std::uint64_t control_group_available(const std::filesystem::path& root, std::string_view self);

// The cores' worth of time that control groups leave: the least quota of a group and its parents, or
// infinity.
double control_group_cores(const std::filesystem::path& root, std::string_view self);

// Threads worth computing with: one a core of the affinity mask, no more than a quota lets run all the time
// (a thread that waits for its turn holds up all others), at least one. `why`: when the quota is what binds.
struct CpuShare {
  unsigned threads = 1;
  std::string why;
};
CpuShare share_of_cores(unsigned cores, double quota);
CpuShare cpu_share();

// $HOME, else as the system's user list has it; empty when neither knows.
std::string home_directory();

}  // namespace steelyard
