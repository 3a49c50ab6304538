// Foreign text made fit for a message, a list or a terminal. Control characters are C0, DEL, C1 and those
// that turn the direction of writing: what a terminal would obey instead of showing, or show somewhere else.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace steelyard {

// One line of valid UTF-8: control characters and stray bytes escaped (\x1b, \u202e), cut to about `width`
// bytes ("…" marks it).
std::string readable(std::string_view text, std::size_t width = 80);

// The whole text with its lines and tabs; everything else that readable() escapes is escaped. Text that is
// cut between characters gives the same in parts.
std::string visible(std::string_view text);

}  // namespace steelyard
