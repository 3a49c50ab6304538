// A hash whose values nobody can foresee: tables over the tokens of a file or the keys of a request can't be
// filled with entries that all collide. Results must not depend on its values, which differ between
// processes.
#pragma once

#include <cstdint>
#include <string_view>

namespace steelyard {

class KeyedHash {
 public:
  KeyedHash();  // with the key that this process drew at random
  std::uint64_t operator()(std::string_view bytes) const;
  std::uint64_t operator()(std::uint64_t word) const { return fold(word ^ first_, second_); }

 private:
  // Both halves of the product: every bit of the result depends on every bit of `a` and `b`.
  static std::uint64_t fold(std::uint64_t a, std::uint64_t b) {
    const unsigned __int128 product = static_cast<unsigned __int128>(a) * b;
    return static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
  }
  std::uint64_t first_, second_;
};

}  // namespace steelyard
