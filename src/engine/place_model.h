// Where a prepared model goes: the device, or several, and the plan of what each holds.
#pragma once

#include <string>

#include "device/devices.h"
#include "engine/loaded_model.h"

namespace steelyard {

// By the options' device, placement, devices and memory; opens devices, touches nothing big. Fills in the
// model's options, forward, device, parts, plan, verdict and notes, and holds what a plan that fits takes.
// Returns why the model doesn't fit there, or nothing. Throws Error: options that contradict each other or
// name what isn't here.
std::string place_model(PreparedModel& model, const ModelOptions& options, Devices& devices);

}  // namespace steelyard
