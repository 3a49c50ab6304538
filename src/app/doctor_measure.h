// What `steelyard doctor` measures: a machine, and a model that runs on it.
#pragma once

#include <cstdint>
#include <filesystem>

#include "doctor/facts.h"
#include "engine/loaded_model.h"

namespace steelyard {

// The machine alone: its devices' limits, and what the system and the GPUs' driver tell.
doctor::Facts measure_machine();

// Loads the model, generates with `depth` tokens in the conversation, and takes the time of each op. Seconds,
// on a slow machine some ten. `quiet`: without a progress bar. Throws Error.
doctor::Facts measure_model(const std::filesystem::path& path, ModelOptions options, std::uint32_t depth,
                            bool quiet);

}  // namespace steelyard
