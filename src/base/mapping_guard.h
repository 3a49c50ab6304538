// Reading a mapped file behind the end to which somebody cut it (or where the disk fails) kills a process
// with SIGBUS. Inside a guarded range such bytes read as zeros instead, on any thread, and torn() says so
// afterwards.
//
// The signal's handler has to find the ranges, so they are the one list that is global: it is reached by
// atomic pointers alone and changes nothing that a computation reads. A SIGBUS elsewhere goes where it went
// before.
#pragma once

#include <cstddef>

namespace steelyard {

class MappingGuard {
 public:
  MappingGuard() = default;
  // The range is a mapping that outlives the guard; `begin` lies at the start of a page.
  MappingGuard(const std::byte* begin, std::size_t bytes);
  MappingGuard(MappingGuard&& other) noexcept;
  MappingGuard& operator=(MappingGuard&& other) noexcept;
  MappingGuard(const MappingGuard&) = delete;
  MappingGuard& operator=(const MappingGuard&) = delete;
  ~MappingGuard();

  bool torn() const;

  struct Range;

 private:
  Range* range_ = nullptr;
};

}  // namespace steelyard
