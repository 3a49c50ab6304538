// Shapes of the probe kernels, shared by the host side and the kernels.
#pragma once

#include <cstdint>

namespace steelyard::cuda {

inline constexpr std::uint32_t kProbeThreads = 256;
inline constexpr std::uint32_t kProbeLoads = 8;  // 16-byte loads in flight, a thread
// Multiply-adds of one round: probe_mma, a warp; probe_wgmma, a warpgroup of 128 threads.
inline constexpr double kProbeMmaOps = 2.0 * 16 * 8 * 16 * 8;
inline constexpr double kProbeWgmmaOps = 2.0 * 64 * 256 * 16 * 4;
inline constexpr std::uint32_t kProbeWgmmaShared = 64 * 1024;

}  // namespace steelyard::cuda
