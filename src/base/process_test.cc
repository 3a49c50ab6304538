#include "base/process.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kNone = UINT64_MAX;

TEST(Process, AvailableIsLessThanTheMachineHas) {
  const auto machine =
      static_cast<std::uint64_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  EXPECT_GT(available_bytes(), 0u);
  EXPECT_LT(available_bytes(), machine);
  EXPECT_GT(resident_bytes(), 100'000u);
}

TEST(Process, ALimitOnAddressSpaceCounts) {
  unsigned long long pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_AS, &before), 0);
  rlimit tight = before;
  tight.rlim_cur = pages * static_cast<unsigned long long>(sysconf(_SC_PAGESIZE)) + (64 << 20);
  ASSERT_EQ(setrlimit(RLIMIT_AS, &tight), 0);
  const std::uint64_t available = available_bytes();
  ASSERT_EQ(setrlimit(RLIMIT_AS, &before), 0);
  EXPECT_LE(available, 64u << 20);
  EXPECT_GT(available_bytes(), available);
}

class ControlGroups : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ = fs::temp_directory_path() / ("steelyard_process_test." + std::to_string(getpid()));
  }
  void TearDown() override { fs::remove_all(root_); }
  void write(const fs::path& file, const std::string& text) {
    fs::create_directories((root_ / file).parent_path());
    std::ofstream(root_ / file) << text;
  }
  fs::path root_;
};

TEST_F(ControlGroups, Version2) {
  const std::string self = "0::/shop/till\n";
  EXPECT_EQ(control_group_available(root_, self), kNone);
  write("shop/till/memory.max", "max\n");
  write("shop/till/memory.current", "700\n");
  EXPECT_EQ(control_group_available(root_, self), kNone);
  // The parent's limit binds. Its file cache can be dropped.
  write("shop/memory.max", "1000\n");
  write("shop/memory.current", "900\n");
  write("shop/memory.stat", "anon 500\nactive_file 150\ninactive_file 250\nslab 3\n");
  EXPECT_EQ(control_group_available(root_, self), 500u);
  write("shop/till/memory.max", "720\n");
  EXPECT_EQ(control_group_available(root_, self), 20u);
  write("shop/till/memory.current", "800\n");
  EXPECT_EQ(control_group_available(root_, self), 0u);
}

TEST_F(ControlGroups, Version1) {
  const std::string self = "5:devices:/x\n4:cpu,memory:/job\n0::/\n";
  EXPECT_EQ(control_group_available(root_, self), kNone);
  write("memory/job/memory.limit_in_bytes", "4000\n");
  write("memory/job/memory.usage_in_bytes", "3000\n");
  write("memory/job/memory.stat", "active_file 7\ntotal_active_file 100\ntotal_inactive_file 400\n");
  EXPECT_EQ(control_group_available(root_, self), 1500u);
  // Inside a container the path may not be visible, and its own group is the root.
  write("memory/memory.limit_in_bytes", "1000\n");
  write("memory/memory.usage_in_bytes", "100\n");
  EXPECT_EQ(control_group_available(root_, "4:memory:/docker/abc\n"), 900u);
}

TEST_F(ControlGroups, NonsenseIsNoLimit) {
  for (const char* self : {"", "\n", "memory", "4:memory", "4:mem:/", ":::\n", "0::"})
    EXPECT_EQ(control_group_available(root_, self), kNone) << self;
}

TEST_F(ControlGroups, CpuQuotas) {
  const double none = std::numeric_limits<double>::infinity();
  EXPECT_EQ(control_group_cores(root_, "0::/a/b\n"), none);
  write("a/b/cpu.max", "max 100000\n");
  EXPECT_EQ(control_group_cores(root_, "0::/a/b\n"), none);
  write("a/b/cpu.max", "400000 100000\n");
  write("a/cpu.max", "150000 100000\n");  // the parent's binds
  EXPECT_EQ(control_group_cores(root_, "0::/a/b\n"), 1.5);
  // Version 1, where a container sees its own group as the root.
  write("cpu,cpuacct/cpu.cfs_quota_us", "50000\n");
  write("cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(control_group_cores(root_, "3:cpu,cpuacct:/docker/abc\n"), 0.5);
  write("cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(control_group_cores(root_, "3:cpu,cpuacct:/docker/abc\n"), none);
}

TEST(Process, ThreadsFollowTheQuota) {
  EXPECT_EQ(share_of_cores(8, std::numeric_limits<double>::infinity()).threads, 8u);
  EXPECT_EQ(share_of_cores(8, 8).why, "");
  EXPECT_EQ(share_of_cores(8, 2.7).threads, 2u);
  EXPECT_EQ(share_of_cores(8, 2.7).why, "CPU quota 2.7 of 8 cores");
  EXPECT_EQ(share_of_cores(8, 0.3).threads, 1u);
  EXPECT_GE(cpu_share().threads, 1u);
}

TEST(Process, HomeWithoutTheVariable) {
  const std::string before = home_directory();
  const char* home = getenv("HOME");
  const std::string kept = home ? home : "";
  unsetenv("HOME");
  EXPECT_FALSE(home_directory().empty());
  if (home) setenv("HOME", kept.c_str(), 1);
  EXPECT_EQ(home_directory(), before);
}

}  // namespace
}  // namespace steelyard
