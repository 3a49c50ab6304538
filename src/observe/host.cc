#include "observe/host.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/process.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

double tick_seconds() {
  static const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  return ticks > 0 ? 1 / ticks : 0.01;
}

std::string text_of(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

std::string first_line(const fs::path& file) {
  std::string line;
  std::ifstream in(file);
  std::getline(in, line);
  return line;
}

// The number after "KEY:" in lines "KEY:   12 kB"; 0 where there is none.
std::uint64_t kib(std::string_view text, std::string_view key) {
  const std::size_t at = text.find(key);
  if (at == text.npos) return 0;
  return std::strtoull(std::string(text.substr(at + key.size(), 40)).c_str(), nullptr, 10) * 1024;
}

// /proc/cpuinfo's name, threads, and cores (pairs of package and core).
void read_cpuinfo(const fs::path& file, HostFacts& facts) {
  std::ifstream in(file);
  std::set<std::pair<std::string, std::string>> cores;
  std::string package;
  for (std::string line; std::getline(in, line);) {
    const std::size_t colon = line.find(':');
    if (colon == line.npos) continue;
    const std::string key = line.substr(0, line.find_last_not_of(" \t", colon - 1) + 1);
    const std::string value = colon + 2 < line.size() ? line.substr(colon + 2) : std::string();
    if (key == "processor") ++facts.cores;
    if (key == "model name" && facts.cpu.empty()) facts.cpu = value;
    if (key == "physical id") package = value;
    if (key == "core id") cores.emplace(package, value);
  }
  facts.physical = static_cast<unsigned>(cores.size());
}

unsigned count_nodes(const fs::path& folder) {
  std::error_code error;
  unsigned nodes = 0;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename();
    if (name.size() > 4 && name.starts_with("node") && name[4] >= '0' && name[4] <= '9') ++nodes;
  }
  return std::max(1u, nodes);
}

// Folders of the process's control groups, itself first.
std::vector<fs::path> groups_of(const fs::path& root) {
  std::vector<fs::path> folders;
  std::istringstream lines(text_of(root / "proc/self/cgroup"));
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with("0::")) continue;
    for (fs::path at = fs::path(line.substr(3)).relative_path();; at = at.parent_path()) {
      folders.push_back(root / "sys/fs/cgroup" / at);
      if (at.empty()) break;
    }
  }
  return folders;
}

std::uint64_t group_memory_limit(const fs::path& root) {
  std::uint64_t least = 0;
  for (const fs::path& group : groups_of(root)) {
    std::uint64_t limit = 0;
    if (std::ifstream(group / "memory.max") >> limit && (!least || limit < least)) least = limit;
  }
  return least;
}

double group_throttled(const fs::path& root) {
  for (const fs::path& group : groups_of(root)) {
    std::ifstream in(group / "cpu.stat");
    std::uint64_t value = 0;
    for (std::string key; in >> key >> value;)
      if (key == "throttled_usec") return static_cast<double>(value) * 1e-6;
  }
  return 0;
}

// The fields of a stat file behind the name, which may hold anything: the state is the first.
std::vector<std::string> stat_fields(std::string_view text) {
  const std::size_t end = text.rfind(')');
  std::istringstream in{std::string(end == text.npos ? std::string_view() : text.substr(end + 1))};
  return {std::istream_iterator<std::string>(in), std::istream_iterator<std::string>()};
}

double cpu_seconds_of(const std::vector<std::string>& fields) {
  if (fields.size() < 13) return 0;
  return tick_seconds() *
         (std::strtod(fields[11].c_str(), nullptr) + std::strtod(fields[12].c_str(), nullptr));
}

// All but idle and waiting for disks.
double machine_busy(const fs::path& root) {
  std::istringstream in(first_line(root / "proc/stat"));
  std::string name;
  in >> name;
  double sum = 0, value = 0;
  for (int field = 0; field < 8 && in >> value; ++field)
    if (field != 3 && field != 4) sum += value;
  return sum * tick_seconds();
}

}  // namespace

HostFacts read_host(const fs::path& root) {
  HostFacts facts;
  read_cpuinfo(root / "proc/cpuinfo", facts);
  const std::string memory = text_of(root / "proc/meminfo");
  facts.memory = kib(memory, "MemTotal:");
  facts.available = kib(memory, "MemAvailable:");
  facts.swap = kib(memory, "SwapTotal:");
  facts.swap_used = facts.swap - std::min(facts.swap, kib(memory, "SwapFree:"));
  facts.numa_nodes = count_nodes(root / "sys/devices/system/node");
  facts.governor = first_line(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  std::ifstream(root / "proc/loadavg") >> facts.load;
  const double quota = control_group_cores(root / "sys/fs/cgroup", text_of(root / "proc/self/cgroup"));
  facts.quota = std::isfinite(quota) ? quota : 0;
  facts.memory_limit = group_memory_limit(root);
  if (facts.memory && facts.memory_limit >= facts.memory) facts.memory_limit = 0;
  cpu_set_t set;
  CPU_ZERO(&set);
  facts.usable = sched_getaffinity(0, sizeof set, &set) == 0 ? static_cast<unsigned>(CPU_COUNT(&set)) : 0;
  return facts;
}

HostSample sample_host(const fs::path& root) {
  HostSample s;
  s.at = std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  const auto fields = stat_fields(text_of(root / "proc/self/stat"));
  s.cpu_seconds = cpu_seconds_of(fields);
  if (fields.size() > 9) s.major_faults = std::strtoull(fields[9].c_str(), nullptr, 10);
  const std::string status = text_of(root / "proc/self/status");
  s.resident = kib(status, "VmRSS:");
  s.swapped = kib(status, "VmSwap:");
  s.machine_busy = machine_busy(root);
  s.throttled = group_throttled(root);
  return s;
}

HostUse use_between(const HostSample& before, const HostSample& after) {
  HostUse use;
  use.seconds = after.at - before.at;
  use.major_faults = after.major_faults - std::min(after.major_faults, before.major_faults);
  use.throttled = std::max(0.0, after.throttled - before.throttled);
  use.swapped = after.swapped;
  if (use.seconds <= 0) return use;
  use.own_cores = std::max(0.0, after.cpu_seconds - before.cpu_seconds) / use.seconds;
  const double all = std::max(0.0, after.machine_busy - before.machine_busy) / use.seconds;
  use.other_cores = std::max(0.0, all - use.own_cores);
  return use;
}

std::string process_name(std::uint32_t pid, const fs::path& root) {
  return first_line(root / "proc" / std::to_string(pid) / "comm");
}

std::vector<ProcessTime> process_times(const fs::path& root) {
  std::vector<ProcessTime> list;
  std::error_code error;
  for (fs::directory_iterator it(root / "proc", error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename();
    std::uint32_t pid = 0;
    const auto [last, bad] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (bad != std::errc() || last != name.data() + name.size()) continue;
    if (pid == static_cast<std::uint32_t>(getpid())) continue;
    const double seconds = cpu_seconds_of(stat_fields(text_of(it->path() / "stat")));
    if (seconds > 0) list.push_back({pid, process_name(pid, root), seconds});
  }
  return list;
}

}  // namespace steelyard
