// Which models go when another needs their room. Pure functions.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/error.h"
#include "plan/plan.h"

namespace steelyard {

// A loaded model that may go.
struct EvictionCandidate {
  std::string device;
  std::uint64_t bytes = 0;  // of the device, that its going gives back
  bool own = false;         // it is the old model of the file that needs the room
  bool forever = false;     // somebody wants it kept
  bool busy = false;        // answers are drawn from it
  std::chrono::steady_clock::time_point last_use{};
};

// What a model lacks.
struct Lack {
  std::string device;  // empty: unknown, models anywhere may go
  std::uint64_t needed = 0, available = 0;
};
// Device and bytes of a plan: what its model, in whole or in part, holds where room is lacking; empty:
// nothing.
EvictionCandidate eviction_candidate(const MemoryPlan& plan, const Lack& lack);
// As the error of a load says; one without numbers is tried again after one model went.
Lack lack_of(const Error& error);

struct Eviction {
  std::vector<std::size_t> go;  // indices, in the order in which they go
  bool enough = false;          // then there is room
};
// No more than needed: the old model of the same file first, then idle before busy, the least recently used
// first, and those kept for ever only when all others don't suffice.
Eviction choose_evictions(std::span<const EvictionCandidate> candidates, const Lack& lack);

}  // namespace steelyard
