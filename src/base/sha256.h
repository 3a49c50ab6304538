// SHA-256 (FIPS 180-4), by the processor's own instructions where it has them.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

namespace steelyard {

// Of bytes that come piece by piece. A copy goes on by itself. One thread at a time.
class Sha256 {
 public:
  Sha256();
  void update(std::span<const std::byte> bytes);
  void update(std::string_view text) { update(std::as_bytes(std::span(text))); }
  // 64 digits, lower case, of all bytes so far; more may follow.
  std::string hex() const;

  // How 64-byte blocks are mixed into the state; tests compare the two.
  using Mix = void (*)(std::array<std::uint32_t, 8>& state, const std::byte* blocks, std::size_t n);
  static Mix portable();
  static Mix fastest();  // here
  explicit Sha256(Mix mix);

 private:
  Mix mix_;
  std::array<std::uint32_t, 8> state_;
  std::array<std::byte, 64> rest_{};
  std::uint64_t bytes_ = 0;
};

// 64 digits, lower case.
std::string sha256_hex(std::string_view bytes);

}  // namespace steelyard
