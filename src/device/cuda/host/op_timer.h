// Times the ops of a step by events between them.
#pragma once

#include <memory>
#include <vector>

#include "device/cuda/host/gpu.h"
#include "device/device.h"

namespace steelyard::cuda {

class OpTimer {
 public:
  explicit OpTimer(Gpu& gpu) : gpu_(gpu) {}
  // Enqueues the moment before op `op`, and after the one before it; behind the last op once more.
  void mark(std::size_t op, CuStream stream);
  // Appends the times of the ops that were marked, but for `skip`. Their work is done.
  void read(std::size_t skip, std::vector<OpTime>& times) const;

 private:
  Gpu& gpu_;
  std::vector<std::unique_ptr<Event>> events_;
};

}  // namespace steelyard::cuda
