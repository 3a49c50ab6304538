// How near two names are, for "did you mean".
#pragma once

#include <cstddef>
#include <string_view>

namespace steelyard {

// The fewest bytes to insert, remove or replace to get from one to the other. Time: the product of the
// lengths.
std::size_t edit_distance(std::string_view a, std::string_view b);

}  // namespace steelyard
