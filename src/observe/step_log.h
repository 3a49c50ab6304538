// What the engine's steps did: the last ones in a ring, and counters since the start. One writer (the engine
// thread), any number of readers; recording allocates nothing.
#pragma once

#include <cstdint>
#include <mutex>
#include <vector>

namespace steelyard {

struct StepRecord {
  std::uint64_t number = 0;   // from 1
  std::int64_t start_ns = 0;  // steady clock
  std::int64_t host_ns = 0;   // from submit to the results in the engine's hands
  std::int64_t device_ns = 0;
  std::uint32_t prefill_rows = 0;
  std::uint32_t decode_rows = 0;
  std::uint32_t sequences = 0;
  std::uint32_t waiting = 0;  // requests not yet admitted
  double limit_seconds = 0;   // 0: unknown
};

struct StepTotals {
  std::uint64_t steps = 0;
  std::uint64_t prefill_rows = 0;
  std::uint64_t decode_rows = 0;
  double busy_seconds = 0;   // in steps
  double limit_seconds = 0;  // of the steps whose limit is known …
  double known_seconds = 0;  // … and how long those took
};

class StepLog {
 public:
  explicit StepLog(std::size_t kept = 1024);
  void record(const StepRecord& record);

  std::vector<StepRecord> recent(std::size_t most) const;  // oldest first
  StepTotals totals() const;

 private:
  mutable std::mutex mutex_;
  std::vector<StepRecord> ring_;
  StepTotals totals_;
};

}  // namespace steelyard
