// The fixed tables of the codebook types. Part of the formats' definitions.
#pragma once

#include <array>
#include <cstdint>

namespace steelyard {

// IQ4_NL and IQ4_XS: the value of each 4-bit code.
inline constexpr std::array<std::int8_t, 16> kIq4Values = {-127, -104, -83, -65, -49, -35, -22, -10,
                                                           1,    13,   25,  38,  53,  69,  89,  113};

// MXFP4 (OCP microscaling E2M1), doubled so that all are integers: pair them with 2^(e - 128).
inline constexpr std::array<std::int8_t, 16> kMxfp4Values = {0, 1,  2,  3,  4,  6,  8,  12,
                                                             0, -1, -2, -3, -4, -6, -8, -12};

}  // namespace steelyard
