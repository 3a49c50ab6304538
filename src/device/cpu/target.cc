// What memory the CPU back end needs: pure sizes of weights, states and workspace.
#include "device/target.h"
#include "program/program.h"

#include "base/error.h"
#include "device/cpu/workspace.h"

namespace steelyard {
namespace {

using namespace cpu;

class CpuTarget final : public Target {
 public:
  std::string_view name() const override { return "CPU"; }
  std::uint64_t alignment() const override { return 64; }
  std::uint32_t page_tokens() const override { return kPageTokens; }

  WeightLayout weight_layout(const WeightSpec& w, Mode) const override {
    // Rows of an embedding are looked up one by one: the file's order serves as well as any.
    if (w.is_vector() || w.role == WeightRole::embedding) return {aligned(w.file_bytes()), true};
    return {aligned(packed_bytes(w.type, w.rows, w.cols)), is_packed(w.type)};
  }

  std::uint64_t state_page_bytes(const StateSpec& s) const override {
    return kv_page_bytes({s.type, s.n_kv_heads, s.head_dim_k, s.head_dim_v});
  }

  std::uint64_t workspace_bytes(const Program& program, const StepLimits& limits, Mode mode,
                                std::uint32_t threads) const override {
    return lay_out(program, limits, mode, threads).bytes;
  }

 private:
  std::uint64_t aligned(std::uint64_t bytes) const {
    return (bytes + alignment() - 1) / alignment() * alignment();
  }
};

}  // namespace

const Target& cpu_target() {
  static const CpuTarget target;
  return target;
}

}  // namespace steelyard
