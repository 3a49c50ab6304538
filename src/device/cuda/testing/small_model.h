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

// One layer of everything, on memory of the fake device.
struct SmallModel {
  Program p;
  SmallModel() {
    p.n_embd = 64;
    p.vocab_size = 40;
    for (const char* name : {"hidden", "q", "k", "v", "attended", "inner"}) p.buffers.push_back({name, 64});
    p.buffers.push_back({"logits", 40, RowSet::outputs});
    p.groups.push_back({"full", 0});
    p.states.push_back({0, 0, DType::F16, 2, 32, 32});
    p.ropes.push_back({RopeSpec::Pairs::halves, 32, 10000.0f});
    const auto matrix = [&](const char* name, WeightRole role, std::uint32_t rows) {
      p.weights.push_back({name, role, 0, DType::Q8_0, rows, 64});
      return static_cast<WeightId>(p.weights.size() - 1);
    };
    p.weights.push_back({"norm", WeightRole::norm, 0, DType::F32, 1, 64});
    const NormRef norm{0, 1e-5f};
    const WeightId table = matrix("table", WeightRole::head, 40);
    p.ops.push_back({-1, EmbedOp{table, 1.0f, 0}});
    p.ops.push_back({0, QkvOp{.in = 0,
                              .norm = norm,
                              .q = matrix("q", WeightRole::qkv, 64),
                              .k = matrix("k", WeightRole::qkv, 64),
                              .v = matrix("v", WeightRole::qkv, 64),
                              .q_out = 1,
                              .k_out = 2,
                              .v_out = 3}});
    p.ops.push_back({0, RopeAppendOp{.q = 1, .k = 2, .v = 3, .n_heads = 2, .rope = 0, .state = 0}});
    p.ops.push_back({0, AttentionOp{.q = 1, .out = 4, .n_heads = 2, .state = 0, .scale = 1.0f}});
    p.ops.push_back(
        {0, ResidualLinearOp{
                .in = 4, .weight = matrix("out", WeightRole::attn_out, 64), .residual = 0, .out = 0}});
    p.ops.push_back({0, GateUpOp{.in = 0,
                                 .norm = norm,
                                 .gate = matrix("gate", WeightRole::gate_up, 64),
                                 .up = matrix("up", WeightRole::gate_up, 64),
                                 .activation = Activation::silu,
                                 .out = 5}});
    p.ops.push_back({-1, HeadOp{.in = 0, .norm = norm, .weight = table, .logits = 6}});
    p.ops.push_back({-1, SampleOp{6}});
    check(p);
  }
};

}  // namespace steelyard::cuda
