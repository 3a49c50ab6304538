#include "api/job_lines.h"

#include <cmath>

#include "api/fields.h"
#include "store/pull.h"

namespace steelyard::api {

std::string job_line(const StoreJob::Step& step) {
  const StepProgress& p = step.progress;
  Json line = {{"status", p.status}};
  if (!p.digest.empty()) {
    line["digest"] = p.digest;
    line["total"] = p.total;
    if (p.done > 0) line["completed"] = p.done;
    if (step.bytes_per_second > 0 && p.done < p.total)
      line["steelyard"] = {
          {"bytes_per_second", std::round(step.bytes_per_second)},
          {"seconds_left", std::ceil(static_cast<double>(p.total - p.done) / step.bytes_per_second)}};
  }
  return dump(line) + "\n";
}

std::string job_failure_line(const std::string& why) { return dump({{"error", why}}) + "\n"; }

}  // namespace steelyard::api
