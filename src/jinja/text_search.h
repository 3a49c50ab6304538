// Finds a text in another in time linear in both, whatever they are (Knuth, Morris and Pratt). Internal to
// jinja/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "jinja/value.h"

namespace steelyard::jinja {

class TextSearch {
 public:
  // `wanted` isn't empty and outlives the search. `backward`: for rfind().
  TextSearch(Heap& heap, std::string_view wanted, bool backward = false);
  // Where `wanted` first begins at `from` or after it, or npos.
  std::size_t find(std::string_view text, std::size_t from);
  // Where it last begins in `text`, or npos.
  std::size_t rfind(std::string_view text);

 private:
  char wanted_at(std::size_t i) const { return backward_ ? wanted_[wanted_.size() - 1 - i] : wanted_[i]; }
  std::size_t longer(std::size_t length, char next) const;

  Heap& heap_;
  std::string_view wanted_;
  bool backward_;
  std::vector<std::uint32_t> shorter_;  // [n - 1]: the longest shorter beginning that n bytes end with
};

}  // namespace steelyard::jinja
