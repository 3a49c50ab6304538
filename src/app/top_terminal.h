// The terminal that `steelyard top` draws on. One at a time: the library behind it knows one screen.
#pragma once

#include <chrono>
#include <cstdint>

#include "app/top_data.h"
#include "app/top_screen.h"

namespace steelyard {

enum class TopKey : std::uint8_t { none, quit, freeze, sort, map, up, down };

class TopTerminal {
 public:
  TopTerminal();   // takes the terminal over. Throws Error(io) where it isn't known
  ~TopTerminal();  // and gives it back as it was
  TopTerminal(const TopTerminal&) = delete;
  TopTerminal& operator=(const TopTerminal&) = delete;

  void draw(const TopData& data, const TopView& view);
  // Waits for a key until then; none: no key came, or the window has another size.
  TopKey key(std::chrono::steady_clock::time_point until);
};

}  // namespace steelyard
