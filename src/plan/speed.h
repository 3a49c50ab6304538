// What steps and links cost in time, by nominal rates and by what was measured. Pure.
#pragma once

#include <cstdint>
#include <vector>

#include "plan/fleet.h"
#include "program/cost.h"
#include "program/program.h"

namespace steelyard {

// Seconds of each unit (program/share.h) of a part's program in a step of this shape on a device. `ideal`: at
// nominal rates, nothing else costing time.
std::vector<double> unit_seconds(const Program& program, const PaperDevice& device, const StepShape& shape,
                                 bool ideal = false);
// Rows of `width` values handed to the next stage.
double hop_seconds(const DeviceLink& link, std::uint32_t rows, std::uint32_t width);
// A sum of `width` values a row over ranks, beyond what a hop inside one device costs anyway.
double sum_seconds(const DeviceLink& link, std::uint32_t rows, std::uint32_t width, std::uint32_t ranks);

}  // namespace steelyard
