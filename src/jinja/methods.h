// Text operations that methods and filters share. Internal to jinja/.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "jinja/value.h"

namespace steelyard::jinja {

// str.strip and its sides; `chars` may be null or none: white space.
std::string stripped(Heap& heap, std::string_view text, const Value* chars, bool left, bool right);
// str.replace; count < 0: all.
std::string replaced(Heap& heap, std::string_view text, std::string_view old, std::string_view now,
                     std::int64_t count);
// str.split and str.rsplit; `separator` may be null or none: runs of white space.
std::vector<Value> split_text(Heap& heap, std::string_view text, const Value* separator, std::int64_t most);
std::vector<Value> right_split_text(Heap& heap, std::string_view text, const Value* separator,
                                    std::int64_t most);
std::vector<std::string_view> lines_of(Heap& heap, std::string_view text, bool keep_ends);
// Filled up to `width` characters: where < 0 text first, 0 centered, > 0 text last.
std::string padded(Heap& heap, std::string_view text, std::int64_t width, std::string_view fill, int where);
bool text_is_upper(Heap& heap, std::string_view text);
bool text_is_lower(Heap& heap, std::string_view text);
// Where `wanted` first begins in `text` (last: `right`), or npos; "" is at the ends. Linear time.
std::size_t find_text(Heap& heap, std::string_view text, std::string_view wanted, bool right = false);

}  // namespace steelyard::jinja
