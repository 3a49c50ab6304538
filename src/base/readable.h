// Foreign text made fit for a message or a list.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace steelyard {

// One line of valid UTF-8: control characters and stray bytes escaped, cut to about `width` bytes ("…" marks
// it).
std::string readable(std::string_view text, std::size_t width = 80);

}  // namespace steelyard
