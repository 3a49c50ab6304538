#include "base/process.h"

#include <fmt/format.h>
#include <pwd.h>
#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <thread>

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kUnlimited = std::numeric_limits<std::uint64_t>::max();

struct Pages {
  unsigned long long total = 0, resident = 0;
};

Pages process_pages() {
  std::FILE* f = std::fopen("/proc/self/statm", "r");
  if (!f) return {};
  Pages pages;
  const int n = std::fscanf(f, "%llu %llu", &pages.total, &pages.resident);
  std::fclose(f);
  return n == 2 ? pages : Pages{};
}

std::uint64_t page_bytes() { return static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE)); }

std::uint64_t less(std::uint64_t a, std::uint64_t b) { return a > b ? a - b : 0; }

// Without /proc nobody knows; an allocation that fails then says so.
std::uint64_t machine_available() {
  std::ifstream in("/proc/meminfo");
  for (std::string key, rest; in >> key && std::getline(in, rest);)
    if (key == "MemAvailable:") return std::strtoull(rest.c_str(), nullptr, 10) * 1024;
  return kUnlimited;
}

std::uint64_t address_space_available() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return kUnlimited;
  return less(limit.rlim_cur, process_pages().total * page_bytes());
}

// "max", and a file that isn't there, are no limit.
std::uint64_t number_in(const fs::path& file) {
  std::ifstream in(file);
  std::uint64_t value = 0;
  return in >> value ? value : kUnlimited;
}

struct GroupFiles {
  const char *limit, *used, *active, *inactive;
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_active_file",
                                  "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "active_file", "inactive_file"};

std::uint64_t group_available(const fs::path& group, const GroupFiles& files) {
  const std::uint64_t limit = number_in(group / files.limit);
  if (limit == kUnlimited) return kUnlimited;
  std::uint64_t cache = 0, value = 0;
  std::ifstream in(group / "memory.stat");
  for (std::string key; in >> key >> value;)
    if (key == files.active || key == files.inactive) cache += value;
  return less(limit, less(number_in(group / files.used), cache));
}

// fn(folder, version 2?) for the process's groups of a controller and their parents.
template <typename Fn>
void for_each_group(const fs::path& root, std::string_view self, std::string_view controller, Fn&& fn) {
  while (!self.empty()) {  // lines "4:cpu,memory:/path"; version 2 names no controller
    const std::string_view line = self.substr(0, self.find('\n'));
    self.remove_prefix(std::min(self.size(), line.size() + 1));
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string names(line.substr(first + 1, second - first - 1));
    const bool version2 = names.empty();
    if (!version2 && fmt::format(",{},", names).find(fmt::format(",{},", controller)) == std::string::npos)
      continue;
    for (fs::path at = fs::path(line.substr(second + 1)).relative_path();; at = at.parent_path()) {
      if (version2) {
        fn(root / at, true);
        fn(root / "unified" / at, true);  // beside version 1
      } else {
        fn(root / controller / at, false);
        fn(root / names / at, false);  // "cpu,cpuacct"
      }
      if (at.empty()) break;
    }
  }
}

// "150000 100000", "max 100000"; -1 in version 1 is no limit.
double quota_of(const fs::path& group, bool version2) {
  std::string quota, period;
  if (version2) {
    std::ifstream(group / "cpu.max") >> quota >> period;
  } else {
    std::ifstream(group / "cpu.cfs_quota_us") >> quota;
    std::ifstream(group / "cpu.cfs_period_us") >> period;
  }
  const double q = std::strtod(quota.c_str(), nullptr), p = std::strtod(period.c_str(), nullptr);
  return q > 0 && p > 0 ? q / p : std::numeric_limits<double>::infinity();
}

std::string own_groups() {
  std::ifstream in("/proc/self/cgroup");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

std::uint64_t control_group_available(const fs::path& root, std::string_view self) {
  std::uint64_t least = kUnlimited;
  for_each_group(root, self, "memory", [&](const fs::path& group, bool version2) {
    least = std::min(least, group_available(group, version2 ? kVersion2 : kVersion1));
  });
  return least;
}

double control_group_cores(const fs::path& root, std::string_view self) {
  double least = std::numeric_limits<double>::infinity();
  for_each_group(root, self, "cpu", [&](const fs::path& group, bool version2) {
    least = std::min(least, quota_of(group, version2));
  });
  return least;
}

CpuShare share_of_cores(unsigned cores, double quota) {
  if (!(quota < cores)) return {std::max(1u, cores), ""};
  const unsigned threads = std::max(1u, static_cast<unsigned>(quota));
  return {threads, fmt::format("CPU quota {:.4g} of {} cores", quota, cores)};
}

CpuShare cpu_share() {
  cpu_set_t set;
  CPU_ZERO(&set);
  const unsigned cores = sched_getaffinity(0, sizeof(set), &set) == 0
                             ? static_cast<unsigned>(std::max(1, CPU_COUNT(&set)))
                             : std::max(1u, std::thread::hardware_concurrency());
  return share_of_cores(cores, control_group_cores("/sys/fs/cgroup", own_groups()));
}

std::string home_directory() {
  if (const char* home = std::getenv("HOME"); home && *home) return home;
  passwd entry{};
  passwd* found = nullptr;
  char buffer[16384];
  if (getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &found) != 0 || !found || !found->pw_dir)
    return {};
  return found->pw_dir;
}

std::uint64_t resident_bytes() { return process_pages().resident * page_bytes(); }

std::uint64_t available_bytes() {
  return std::min({machine_available(), address_space_available(),
                   control_group_available("/sys/fs/cgroup", own_groups())});
}

}  // namespace steelyard
