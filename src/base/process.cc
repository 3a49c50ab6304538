#include "base/process.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>

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

}  // namespace

std::uint64_t control_group_available(const fs::path& root, std::string_view self) {
  std::uint64_t least = kUnlimited;
  while (!self.empty()) {  // lines "4:cpu,memory:/path"; version 2 names no controller
    const std::string_view line = self.substr(0, self.find('\n'));
    self.remove_prefix(std::min(self.size(), line.size() + 1));
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string_view::npos || second == std::string_view::npos) continue;
    const std::string controllers = "," + std::string(line.substr(first + 1, second - first - 1)) + ",";
    const bool version2 = controllers == ",,";
    if (!version2 && controllers.find(",memory,") == std::string::npos) continue;
    const fs::path base = version2 ? root : root / "memory";
    for (fs::path at = fs::path(line.substr(second + 1)).relative_path();; at = at.parent_path()) {
      least = std::min(least, group_available(base / at, version2 ? kVersion2 : kVersion1));
      if (at.empty()) break;
    }
  }
  return least;
}

std::uint64_t resident_bytes() { return process_pages().resident * page_bytes(); }

std::uint64_t available_bytes() {
  std::ifstream in("/proc/self/cgroup");
  const std::string groups((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  return std::min(
      {machine_available(), address_space_available(), control_group_available("/sys/fs/cgroup", groups)});
}

}  // namespace steelyard
