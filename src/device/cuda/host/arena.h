// Device memory: a reserved address range, backed by 2 MiB granules as far as it is needed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "device/cuda/host/gpu.h"

namespace steelyard::cuda {

inline constexpr std::uint64_t kGranule = 2ull << 20;

constexpr std::uint64_t round_to_granules(std::uint64_t bytes) {
  return (bytes + kGranule - 1) / kGranule * kGranule;
}

// One range a purpose. The address never changes; growing maps more granules at the end, shrinking gives them
// back. Physical memory comes in pieces of at most kPiece, so fragmentation of the device's memory can't fail
// a load. Not thread-safe; grow and shrink off the step path.
class VirtualArena {
 public:
  static constexpr std::uint64_t kPiece = 256ull << 20;

  struct Stats {
    std::uint64_t reserved = 0;  // address range
    std::uint64_t mapped = 0;    // bytes of granules, what the device's free memory shrank by
    std::uint64_t used = 0;      // bytes asked for; mapped - used is lost to rounding
    std::uint64_t pieces = 0;
  };

  // Reserves max(reserve, bytes) and maps `bytes`, zeroed. Throws Error(no_memory) with the sizes; nothing
  // stays mapped then.
  VirtualArena(Gpu& gpu, std::string purpose, std::uint64_t bytes, std::uint64_t reserve = 0);
  ~VirtualArena();
  VirtualArena(const VirtualArena&) = delete;
  VirtualArena& operator=(const VirtualArena&) = delete;

  DevicePtr address() const { return address_; }
  const std::string& purpose() const { return purpose_; }
  Stats stats() const;

  // Bytes that can be used from now on; grows or shrinks to whole granules. What stays keeps its contents,
  // new granules are zeroed. Throws Error(no_memory) and leaves everything as it was when the device has no
  // more.
  void resize(std::uint64_t bytes);

 private:
  struct Piece {
    CuMemHandle handle;
    std::uint64_t offset, bytes;
  };
  void map_piece(std::uint64_t offset, std::uint64_t bytes);
  void unmap_from(std::size_t n_pieces);

  Gpu& gpu_;
  std::string purpose_;
  DevicePtr address_ = 0;
  std::uint64_t reserved_ = 0, mapped_ = 0, used_ = 0;
  std::vector<Piece> pieces_;
};

}  // namespace steelyard::cuda
