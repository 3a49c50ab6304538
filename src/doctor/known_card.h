// Cards by the names that drivers give them.
#pragma once

#include <string>

#include "plan/fleet.h"

namespace steelyard::doctor {

// The card of the planner's table whose title is the longest that the name holds ("NVIDIA GeForce RTX 3060");
// nullptr: it isn't there, or it is a laptop's, which is another chip.
const Card* known_card(const std::string& name);

}  // namespace steelyard::doctor
