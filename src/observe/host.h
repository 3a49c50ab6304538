// What Linux says of the machine and of this process: cores, memory, swap, quotas, and what both have used.
// Read from /proc and /sys, or from a folder that has their shape. Thread-safe.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace steelyard {

struct HostFacts {
  std::string cpu;
  unsigned cores = 0;     // that the machine has, as its scheduler counts
  unsigned physical = 0;  // of those, not two threads of one core; 0: unknown
  unsigned usable = 0;    // by this process' affinity mask
  double quota = 0;       // cores' worth of time that control groups leave; 0: no limit
  unsigned numa_nodes = 1;
  std::uint64_t memory = 0, available = 0;  // bytes
  std::uint64_t memory_limit = 0;           // what control groups allow in all; 0: no limit
  std::uint64_t swap = 0, swap_used = 0;
  double load = 0;       // average of a minute
  std::string governor;  // of the first core's clock: "powersave"; empty: unknown
};
HostFacts read_host(const std::filesystem::path& root = "/");

// Counters that only grow, but for the sizes.
struct HostSample {
  double at = 0;                            // seconds of the steady clock
  double cpu_seconds = 0;                   // of this process, all threads
  double machine_busy = 0;                  // seconds of all cores, in anything
  double throttled = 0;                     // seconds that a quota kept this control group's threads waiting
  std::uint64_t major_faults = 0;           // pages of this process that came from a disk
  std::uint64_t resident = 0, swapped = 0;  // bytes
};
HostSample sample_host(const std::filesystem::path& root = "/");

// Between two samples.
struct HostUse {
  double seconds = 0;
  double own_cores = 0, other_cores = 0;  // busy on average, in this process and in all others
  double throttled = 0;                   // seconds
  std::uint64_t major_faults = 0;
  std::uint64_t swapped = 0;  // of this process, at the end
};
HostUse use_between(const HostSample& before, const HostSample& after);

struct ProcessTime {
  std::uint32_t pid = 0;
  std::string name;
  double cpu_seconds = 0;
};
// Of all processes that may be looked at, but this one.
std::vector<ProcessTime> process_times(const std::filesystem::path& root = "/");

// "python3"; empty: it has gone, or may not be looked at.
std::string process_name(std::uint32_t pid, const std::filesystem::path& root = "/");

}  // namespace steelyard
