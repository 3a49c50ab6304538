// What the tests of the CUDA host side share: a GPU on a fake driver, and a small model.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/dtype.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "device/cuda/host/gpu.h"
#include "device/cuda/testing/fake_driver.h"
#include "program/program.h"
#include "program/testing.h"

namespace steelyard::cuda {

template <typename Fn>
Error error_of(Fn&& fn) {
  try {
    fn();
  } catch (const Error& e) {
    return e;
  }
  ADD_FAILURE() << "no error";
  return Error(ErrorKind::internal, "none");
}

// One image with every kernel that the host side asks for.
inline std::span<const KernelImage> fake_kernels() {
  static const MappedFile text =
      MappedFile::open(STEELYARD_SOURCE_DIR "/src/device/cuda/testing/fake_kernels.txt");
  static const KernelImage image[] = {{"fake", text.bytes()}};
  return image;
}

struct Rig {
  FakeDriver fake;
  Gpu gpu;
  explicit Rig(std::uint64_t memory = 1ull << 30)
      : fake(memory), gpu(fake.table(), 0, fake_kernels(), [](const auto&) { return std::nullopt; }) {}
};

// One layer of everything.
struct SmallModel {
  Program p = testing::tiny_program(
      {.width = 64, .n_heads = 2, .head_dim = 32, .n_ff = 64, .vocab = 40, .tied = true}, DType::Q8_0,
      DType::F16);
};

}  // namespace steelyard::cuda
