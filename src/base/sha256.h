// SHA-256 (FIPS 180-4).
#pragma once

#include <string>
#include <string_view>

namespace steelyard {

// 64 digits, lower case. Not tuned: for names and ids, not for whole models.
std::string sha256_hex(std::string_view bytes);

}  // namespace steelyard
