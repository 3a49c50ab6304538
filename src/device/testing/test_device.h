// The device that tests run on: the CPU, or the GPU that STEELYARD_TEST_DEVICE names ("cuda0"). Whoever
// includes this skips its tests where that GPU isn't there, and the output says why. Tests only.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "device/device.h"
#include "device/devices.h"

namespace steelyard::testing {

inline DeviceName test_device() {
  const char* name = std::getenv("STEELYARD_TEST_DEVICE");
  return name ? parse_device(name) : DeviceName{DeviceName::Kind::cpu};
}
inline bool tests_a_gpu() { return test_device().kind == DeviceName::Kind::cuda; }

// `threads`: the CPU's.
inline std::unique_ptr<Device> make_test_device(std::uint32_t threads = 2) {
  return tests_a_gpu() ? make_cuda_device(test_device().index) : make_cpu_device({.threads = threads});
}

class NeedsItsDevice : public ::testing::Environment {
  void SetUp() override {
    if (!tests_a_gpu()) return;
    const CudaDevices found = find_cuda_devices();
    if (found.count == 0) GTEST_SKIP() << found.why;
  }
};
inline ::testing::Environment* const needs_its_device =
    ::testing::AddGlobalTestEnvironment(new NeedsItsDevice);

}  // namespace steelyard::testing
