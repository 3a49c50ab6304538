// The machine's part of the metrics: process, host and GPUs, in Prometheus' text and as a history in JSON.
#pragma once

#include <string>
#include <string_view>

#include "observe/telemetry.h"

namespace steelyard::api {

// "# HELP … # TYPE …": the two lines above a metric's values.
std::string metric_head(std::string_view name, std::string_view type, std::string_view help);
// A label's value in quotes: a name may hold anything but a line's end.
std::string metric_label(std::string_view text);

std::string machine_metrics(const Telemetry& telemetry);
// {"period_seconds", "points": [{"at", "own_cores", …, "gpus": […]}]}: of the last hour, oldest first.
std::string machine_history(const Telemetry& telemetry);

}  // namespace steelyard::api
