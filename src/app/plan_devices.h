// `steelyard plan --devices FLEET`: a placement over devices that nobody need own.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "engine/loaded_model.h"
#include "plan/plan.h"

namespace steelyard {

// [{"purpose", "bytes", "note"}]
nlohmann::ordered_json lines_json(const DevicePlan& plan);

struct DevicesPlan {
  std::string fleet;          // parse_fleet()
  std::filesystem::path svg;  // a picture; empty: none
  bool json = false;
};

// Prints the plan of the file at `path`, which `name` calls by its name. Returns the exit code: 0, or 1 when
// it doesn't fit. Throws Error.
int plan_devices(const std::filesystem::path& path, const std::string& name, const ModelOptions& options,
                 const DevicesPlan& asked);

}  // namespace steelyard
