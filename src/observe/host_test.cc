#include "observe/host.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>

#include "base/temporary_folder.h"
#include "observe/file_place.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

// A machine as /proc and /sys would show it.
class PlantedHost : public testing::Test {
 protected:
  void write(const std::string& file, const std::string& text) {
    fs::create_directories((root() / file).parent_path());
    std::ofstream(root() / file) << text;
  }
  fs::path root() const { return folder_.path(); }

 private:
  TemporaryFolder folder_{"host"};
};

TEST_F(PlantedHost, CoresMemoryAndLimits) {
  std::string cpuinfo;
  for (int i = 0; i < 8; ++i)
    cpuinfo += "processor\t: " + std::to_string(i) +
               "\nmodel name\t: A processor\nphysical id\t: 0\ncore id\t\t: " + std::to_string(i / 2) +
               "\n\n";
  write("proc/cpuinfo", cpuinfo);
  write(
      "proc/meminfo",
      "MemTotal:       1000 kB\nMemAvailable:    400 kB\nSwapTotal:       300 kB\nSwapFree:        100 kB\n");
  write("proc/loadavg", "3.50 1.00 1.00 1/100 1\n");
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/a/cpu.max", "250000 100000\n");
  write("sys/fs/cgroup/a/memory.max", "204800\n");
  write("sys/devices/system/node/node0/x", "");
  write("sys/devices/system/node/node1/x", "");
  write("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave\n");
  const HostFacts host = read_host(root());
  EXPECT_EQ(host.cpu, "A processor");
  EXPECT_EQ(host.cores, 8u);
  EXPECT_EQ(host.physical, 4u);
  EXPECT_DOUBLE_EQ(host.quota, 2.5);
  EXPECT_EQ(host.numa_nodes, 2u);
  EXPECT_EQ(host.memory, 1000u << 10);
  EXPECT_EQ(host.available, 400u << 10);
  EXPECT_EQ(host.memory_limit, 204800u);
  EXPECT_EQ(host.swap_used, 200u << 10);
  EXPECT_DOUBLE_EQ(host.load, 3.5);
  EXPECT_EQ(host.governor, "powersave");
}

TEST_F(PlantedHost, WhatWasUsedBetweenTwoLooks) {
  const double tick = 1.0 / static_cast<double>(sysconf(_SC_CLK_TCK));
  // Fields behind the name: state … minflt cminflt majflt cmajflt utime stime. A name may hold anything.
  const auto stat = [](int faults, int ticks) {
    return "7 (a) b (c)) S 1 1 1 0 -1 0 10 0 " + std::to_string(faults) + " 0 " + std::to_string(ticks) +
           " 0 0 0 20 0\n";
  };
  write("proc/self/cgroup", "0::/\n");
  write("proc/self/stat", stat(5, 100));
  write("proc/self/status", "VmRSS:\t 50 kB\nVmSwap:\t 0 kB\n");
  write("proc/stat", "cpu  1000 0 0 5000 10 0 0 0\n");
  write("sys/fs/cgroup/cpu.stat", "usage_usec 1\nthrottled_usec 1000000\n");
  HostSample before = sample_host(root());
  write("proc/self/stat", stat(25, 300));
  write("proc/self/status", "VmRSS:\t 50 kB\nVmSwap:\t 8 kB\n");
  write("proc/stat", "cpu  1500 0 0 6000 10 0 0 0\n");
  write("sys/fs/cgroup/cpu.stat", "usage_usec 1\nthrottled_usec 3500000\n");
  HostSample after = sample_host(root());
  before.at = 0, after.at = 2;
  const HostUse use = use_between(before, after);
  EXPECT_DOUBLE_EQ(use.own_cores, 200 * tick / 2);
  EXPECT_DOUBLE_EQ(use.other_cores, 300 * tick / 2);
  EXPECT_EQ(use.major_faults, 20u);
  EXPECT_EQ(use.swapped, 8u << 10);
  EXPECT_DOUBLE_EQ(use.throttled, 2.5);
}

TEST_F(PlantedHost, NothingToRead) {
  const HostFacts host = read_host(root());
  EXPECT_EQ(host.cores, 0u);
  EXPECT_EQ(host.quota, 0);
  EXPECT_EQ(sample_host(root()).resident, 0u);
  EXPECT_TRUE(process_times(root()).empty());
}

TEST(Host, ThisMachine) {
  const HostFacts host = read_host();
  EXPECT_GE(host.cores, 1u);
  EXPECT_GT(host.memory, host.available / 2);
  EXPECT_GT(sample_host().resident, 1u << 16);
  EXPECT_FALSE(process_name(static_cast<std::uint32_t>(getpid())).empty());
}

TEST(FilePlace, OfAFileThatWasJustWritten) {
  const TemporaryFolder folder("file");
  const fs::path file = folder.path() / "f";
  std::ofstream(file) << std::string(1 << 20, 'x');
  const FilePlace place = read_file_place(file);
  EXPECT_EQ(place.bytes, 1u << 20);
  EXPECT_GE(place.cached, 0.0);
  EXPECT_LE(place.cached, 1.0);
  EXPECT_ANY_THROW(read_file_place(folder.path() / "nothing"));
}

TEST(FilePlace, NetworksAreKnown) {
  EXPECT_TRUE(file_system(0x6969).network);
  EXPECT_EQ(file_system(0x6969).name, "nfs");
  EXPECT_FALSE(file_system(0xef53).network);
  EXPECT_EQ(file_system(12345).name, "");
}

}  // namespace
}  // namespace steelyard
