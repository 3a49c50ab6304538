#include "observe/step_log.h"

#include <algorithm>

namespace steelyard {

StepLog::StepLog(std::size_t kept) : ring_(std::max<std::size_t>(kept, 1)) {}

void StepLog::record(const StepRecord& record) {
  const std::lock_guard lock(mutex_);
  StepRecord& place = ring_[totals_.steps % ring_.size()];
  place = record;
  place.number = ++totals_.steps;
  totals_.prefill_rows += record.prefill_rows;
  totals_.decode_rows += record.decode_rows;
  const double seconds = static_cast<double>(record.host_ns) * 1e-9;
  totals_.busy_seconds += seconds;
  if (record.limit_seconds > 0) {
    totals_.limit_seconds += record.limit_seconds;
    totals_.known_seconds += seconds;
  }
}

std::vector<StepRecord> StepLog::recent(std::size_t most) const {
  const std::lock_guard lock(mutex_);
  const std::size_t n = std::min({most, ring_.size(), static_cast<std::size_t>(totals_.steps)});
  std::vector<StepRecord> records;
  records.reserve(n);
  for (std::size_t i = totals_.steps - n; i < totals_.steps; ++i) records.push_back(ring_[i % ring_.size()]);
  return records;
}

StepTotals StepLog::totals() const {
  const std::lock_guard lock(mutex_);
  return totals_;
}

}  // namespace steelyard
