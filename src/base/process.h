// What the system says about this process. Thread-safe.
#pragma once

#include <cstdint>

namespace strata {

// Bytes of pages touched and in memory now: private and mapped. 0 where /proc isn't mounted.
std::uint64_t resident_bytes();

}  // namespace strata
