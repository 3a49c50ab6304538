// Long work on the store, as Ollama's API tells it: a line a step.
#pragma once

#include <string>

#include "store/jobs.h"

namespace steelyard::api {

// {"status": …} and, of a blob, "digest", "total", "completed"; with its rate and the seconds that are left
// in "steelyard".
std::string job_line(const StoreJob::Step& step);
// {"error": …}
std::string job_failure_line(const std::string& why);

}  // namespace steelyard::api
