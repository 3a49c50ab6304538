// Targets whose sizes can be worked out by hand. Tests only.
#pragma once

#include <cstdint>
#include <string_view>

#include "base/dtype.h"
#include "device/target.h"
#include "program/program.h"

namespace steelyard::testing {

// Matrices cost a byte an element and 8 more, the rest what it does in the file.
class HandTarget : public Target {
 public:
  std::string_view name() const override { return "hand"; }
  std::uint64_t alignment() const override { return 8; }
  std::uint32_t page_tokens() const override { return 32; }
  WeightLayout weight_layout(const WeightSpec& w, Mode) const override {
    if (w.role == WeightRole::embedding) return {w.file_bytes(), true};
    return {w.elements() + 8, w.type != DType::Q2_K};
  }
  std::uint64_t state_page_bytes(const StateSpec& s) const override {
    return 32 * s.n_kv_heads * (s.head_dim_k + s.head_dim_v) * (s.type == DType::F16 ? 2 : 1);
  }
  std::uint64_t workspace_bytes(const Program&, const StepLimits& l, Mode,
                                std::uint32_t threads) const override {
    return l.rows * 100 + threads * 10;
  }
};

// The same on a device with memory of its own.
class HandGpu final : public HandTarget {
 public:
  bool is_host() const override { return false; }
  std::uint64_t staging_bytes(const Program&, const StepLimits& l) const override { return l.outputs * 5; }
  std::uint64_t executable_bytes(const Program&, const StepLimits& l) const override { return l.rows * 7; }
  std::uint64_t context_bytes() const override { return 4000; }
  std::uint64_t reserve_bytes() const override { return 900; }
};

}  // namespace steelyard::testing
