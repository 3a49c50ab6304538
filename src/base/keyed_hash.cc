#include "base/keyed_hash.h"

#include <cstring>
#include <random>
#include <utility>

namespace steelyard {
namespace {

std::pair<std::uint64_t, std::uint64_t> process_key() {
  static const auto key = [] {
    std::random_device random;
    const auto draw = [&] { return static_cast<std::uint64_t>(random()) << 32 | random(); };
    return std::pair(draw(), draw() | 1);
  }();
  return key;
}

template <typename T>
std::uint64_t load(const char* from) {
  T word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

// All of at most 16 bytes, in loads that may overlap: a copy of a number of bytes known only at run time is a
// call.
std::pair<std::uint64_t, std::uint64_t> load_rest(const char* from, std::size_t size) {
  if (size >= 8) return {load<std::uint64_t>(from), load<std::uint64_t>(from + size - 8)};
  if (size >= 4) return {load<std::uint32_t>(from), load<std::uint32_t>(from + size - 4)};
  if (size == 0) return {0, 0};
  return {load<std::uint8_t>(from) | load<std::uint8_t>(from + size / 2) << 8,
          load<std::uint8_t>(from + size - 1)};
}

}  // namespace

KeyedHash::KeyedHash() : first_(process_key().first), second_(process_key().second) {}

std::uint64_t KeyedHash::operator()(std::string_view bytes) const {
  std::uint64_t hash = second_ ^ bytes.size();
  for (; bytes.size() > 16; bytes.remove_prefix(16))
    hash = fold(load<std::uint64_t>(bytes.data()) ^ first_, load<std::uint64_t>(bytes.data() + 8) ^ hash);
  const auto [low, high] = load_rest(bytes.data(), bytes.size());
  hash = fold(low ^ first_, high ^ hash);
  return fold(hash ^ first_, second_);
}

}  // namespace steelyard
