// What a request body's JSON may cost before anybody parses it. Pure.
#pragma once

#include <cstddef>
#include <string_view>

namespace steelyard::api {

// One pass over the bytes, without memory of its own size. Throws Error(bad_input) in one sentence for JSON
// that is nested deeper than 64 levels, has an object of more than 512 keys, or more than 2^20 values and
// keys in all (the parsed form takes some 50 bytes for each, and objects keep their order, so that a key is
// looked for among the object's others). What is no JSON at all passes: the parser says where.
void check_json_limits(std::string_view json);

inline constexpr std::size_t kMaxJsonDepth = 64, kMaxJsonKeys = 512, kMaxJsonValues = 1 << 20;

}  // namespace steelyard::api
