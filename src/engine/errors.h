// Errors that callers tell apart by more than their kind.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "base/error.h"

namespace steelyard {

// A prompt, or a context that was asked for, is larger than the context or the model allows.
class TooLong : public Error {
 public:
  explicit TooLong(std::string message) : Error(ErrorKind::bad_input, std::move(message)) {}
};

// A model doesn't fit now; without what else is loaded it might.
class NoRoom : public Error {
 public:
  NoRoom(std::string why, std::string on, std::uint64_t bytes_needed, std::uint64_t bytes_available)
      : Error(ErrorKind::no_memory, std::move(why)),
        device(std::move(on)),
        needed(bytes_needed),
        available(bytes_available) {}
  std::string device;  // as in the plan
  std::uint64_t needed, available;
};

}  // namespace steelyard
