#include "device/cuda/host/arena.h"

#include <algorithm>

#include "base/error.h"
#include "base/units.h"

namespace steelyard::cuda {
VirtualArena::VirtualArena(Gpu& gpu, std::string purpose, std::uint64_t bytes, std::uint64_t reserve)
    : gpu_(gpu), purpose_(std::move(purpose)) {
  gpu_.bind();
  reserved_ = round_to_granules(std::max({reserve, bytes, std::uint64_t{1}}));
  CuPtr address = 0;
  gpu_.check(gpu_.driver().address_reserve(&address, reserved_, kGranule, 0, 0), "reserving addresses");
  address_ = address;
  try {
    resize(bytes);
  } catch (...) {
    gpu_.driver().address_free(address_, reserved_);
    throw;
  }
}

VirtualArena::~VirtualArena() {
  // A lost device's calls fail or block for good; its memory goes with the process.
  try {
    gpu_.bind();
  } catch (const Error&) {
    return;
  }
  unmap_from(0);
  gpu_.driver().address_free(address_, reserved_);
}

VirtualArena::Stats VirtualArena::stats() const { return {reserved_, mapped_, used_, pieces_.size()}; }

void VirtualArena::map_piece(std::uint64_t offset, std::uint64_t bytes) {
  const Driver& d = gpu_.driver();
  const CuMemHandle handle = gpu_.allocate(bytes);
  CuResult result = d.memory_map(address_ + offset, bytes, 0, handle, 0);
  if (result == 0) {
    const CuMemAccess access{{1, gpu_.device()}, 3};
    result = d.memory_access(address_ + offset, bytes, &access, 1);
    if (result != 0) d.memory_unmap(address_ + offset, bytes);
  }
  if (result != 0) gpu_.release(handle, bytes);
  gpu_.check(result, "mapping memory");
  pieces_.push_back({handle, offset, bytes});
  mapped_ += bytes;
}

void VirtualArena::unmap_from(std::size_t n_pieces) {
  while (pieces_.size() > n_pieces) {
    const Piece& p = pieces_.back();
    gpu_.driver().memory_unmap(address_ + p.offset, p.bytes);
    gpu_.release(p.handle, p.bytes);
    mapped_ -= p.bytes;
    pieces_.pop_back();
  }
}

void VirtualArena::resize(std::uint64_t bytes) {
  const std::uint64_t wanted = round_to_granules(bytes);
  if (wanted > reserved_)
    throw_error(ErrorKind::internal, "{}: {} needs {} of a range of {}", gpu_.id(), purpose_,
                size_text(wanted), size_text(reserved_));
  gpu_.bind();
  const std::size_t before = pieces_.size();
  const std::uint64_t mapped_before = mapped_;
  try {
    while (mapped_ < wanted) map_piece(mapped_, std::min(kPiece, wanted - mapped_));
    if (mapped_ > mapped_before) {
      gpu_.check(gpu_.driver().set8(address_ + mapped_before, 0, mapped_ - mapped_before, nullptr),
                 "clearing memory");
      gpu_.check(gpu_.driver().stream_synchronize(nullptr), "clearing memory");
    }
  } catch (const Error& e) {
    unmap_from(before);
    if (e.kind() != ErrorKind::no_memory) throw;
    std::size_t free = 0, total = 0;
    gpu_.driver().memory_info(&free, &total);
    throw_error(ErrorKind::no_memory,
                "{} has no memory for {}: it needs {} more, {} of {} are free; close other "
                "programs that use the GPU, or ask for a smaller context",
                gpu_.id(), purpose_, size_text(wanted - mapped_before), size_text(free, Rounding::down),
                size_text(total));
  }
  // Shrinking: whole pieces go back; one that is still needed in part stays.
  while (!pieces_.empty() && pieces_.back().offset >= wanted) unmap_from(pieces_.size() - 1);
  used_ = bytes;
}

}  // namespace steelyard::cuda
