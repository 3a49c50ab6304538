// Weights from a mapped file to the device: reader threads copy pieces into pinned slots, the copy engine
// takes them to the device, a kernel repacks them there; all at once, each thread with a stream and two slots
// of its own.
#pragma once

#include <cstdint>
#include <vector>

#include "device/cuda/host/arena.h"
#include "device/cuda/host/gpu.h"
#include "device/device.h"
#include "program/program.h"

namespace steelyard::cuda {

inline constexpr std::uint64_t kPieceBytes = 8ull << 20;  // the most that a slot holds

// A run of whole rows of one weight.
struct LoadPiece {
  std::uint32_t weight;  // index into the loads
  std::uint32_t row_begin, row_end;
  std::uint64_t offset, bytes;  // in the weight's raw bytes
  bool repack;
};

// Cuts the weights at multiples of kRepackRows rows, pieces of at most `limit` bytes (one such group of rows
// may be larger). Pure. Throws Error(internal) when a weight's raw bytes have the wrong size.
std::vector<LoadPiece> cut_pieces(std::span<const WeightLoad> loads, Mode mode, std::uint64_t limit);

struct LoadOptions {
  std::uint32_t threads = 0;  // 0: one per core, 16 at most
};

// Returns when every weight is in place at `arena` + its offset. Progress is called from this thread. Throws
// Error; what was placed until then is unspecified.
void load_weights(Gpu& gpu, std::span<const WeightLoad> loads, Mode mode, DevicePtr arena,
                  const LoadProgress& progress, const LoadOptions& options = {});

}  // namespace steelyard::cuda
