// cuda_target(): what planning and loading ask of the CUDA back end, answered by workspace.h.
#include "device/target.h"
#include "device/cuda/hopper/weights/layout.h"
#include "device/cuda/host/workspace.h"
#include "program/program.h"

namespace steelyard {
namespace {

class CudaTarget final : public Target {
 public:
  std::string_view name() const override { return "CUDA"; }
  bool is_host() const override { return false; }
  std::uint64_t alignment() const override { return cuda::kAlign; }
  std::uint32_t page_tokens() const override { return cuda::kPageTokens; }

  WeightLayout weight_layout(const WeightSpec& w, Mode mode) const override {
    if (cuda::is_repacked(w, mode)) return {cuda::repacked_bytes(w.type, w.rows, w.cols), true};
    // Embedding rows are looked up one by one: the file's order serves as well as any.
    const bool fast = w.is_vector() || w.role == WeightRole::embedding;
    return {cuda::align(w.file_bytes()), fast};
  }

  std::uint64_t state_page_bytes(const StateSpec& s) const override { return cuda::kv_layout(s).page_bytes; }

  std::uint64_t workspace_bytes(const Program& program, const StepLimits& limits, Mode mode,
                                std::uint32_t) const override {
    return cuda::lay_out(program, limits, mode).bytes;
  }

  std::uint64_t staging_bytes(const Program& program, const StepLimits& limits) const override {
    // The step block's size doesn't depend on the mode.
    const cuda::Staging s = cuda::staging_of(program, limits, cuda::lay_out(program, limits, Mode::exact));
    return limits.in_flight * (s.block + s.sampled) + cuda::kAbortBytes;
  }

  std::uint64_t executable_bytes(const Program& program, const StepLimits& limits) const override {
    std::uint64_t graphs = 0;
    for (const auto& size : cuda::bucket_sizes(limits)) graphs += size.rows <= cuda::kGraphRows;
    return kCodeBytes + graphs * program.ops.size() * kGraphOpBytes;
  }
  std::uint64_t context_bytes() const override { return kContextBytes; }
  std::uint64_t reserve_bytes() const override { return kReserveBytes; }

 private:
  // Code of the kernels with their stacks, and what a graph keeps for an op (a few kernels); as measured.
  static constexpr std::uint64_t kCodeBytes = 32ull << 20, kGraphOpBytes = 4096;
  static constexpr std::uint64_t kContextBytes = 512ull << 20;
  static constexpr std::uint64_t kReserveBytes = 320ull << 20;
};

}  // namespace

const Target& cuda_target() {
  static const CudaTarget target;
  return target;
}

}  // namespace steelyard
