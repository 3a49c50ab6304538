// The beginning of a file in memory of our own, read as far as it is asked for. A header is checked once and
// then trusted, so it must not change under its reader, as mapped bytes can. Internal to gguf/.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/input_file.h"

namespace steelyard {

// Addresses stay, also when it is moved.
class HeaderBuffer {
 public:
  // Far above any real header (a vocabulary of a quarter of a million tokens takes some 15 MiB).
  static constexpr std::uint64_t kMaxBytes = std::uint64_t{1} << 30;

  HeaderBuffer() = default;
  explicit HeaderBuffer(const InputFile& file);  // the file must stay open for fill()
  HeaderBuffer(HeaderBuffer&& other) noexcept;
  HeaderBuffer& operator=(HeaderBuffer&& other) noexcept;
  HeaderBuffer(const HeaderBuffer&) = delete;
  HeaderBuffer& operator=(const HeaderBuffer&) = delete;
  ~HeaderBuffer();

  const std::byte* data() const { return data_; }
  // Reads on, so that bytes [0, end) are there; end is at most the file's size. Throws Error: bad_input for
  // more than kMaxBytes, io when the file can't be read or was cut, no_memory.
  void fill(std::uint64_t end);
  // No more fill(): the file may be closed, and the address space behind what was read goes.
  void finish();

 private:
  const InputFile* file_ = nullptr;
  std::byte* data_ = nullptr;
  std::uint64_t capacity_ = 0, filled_ = 0;
};

}  // namespace steelyard
