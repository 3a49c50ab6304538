// NumPy's .npy files (format 1.0, https://numpy.org/neps/nep-0001-npy-format.html): two-dimensional float32,
// C order.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>

#include "base/mapped_file.h"
#include "base/output_file.h"

namespace steelyard {

// Writes rows as they come; the file appears under its name only when finish() was called. Throws Error(io).
class NpyWriter {
 public:
  NpyWriter(std::filesystem::path path, std::uint64_t rows, std::uint64_t columns);
  void append(std::span<const float> values);
  // Throws Error(internal) when rows are missing.
  void finish();

 private:
  OutputFile file_;
  std::uint64_t values_left_;
};

// A mapped file; rows are views into it.
class NpyFile {
 public:
  // Throws Error(bad_input) for anything but a whole little-endian float32 matrix in C order.
  static NpyFile open(const std::filesystem::path& path);
  std::uint64_t rows() const { return rows_; }
  std::uint64_t columns() const { return columns_; }
  std::span<const float> row(std::uint64_t i) const { return {values_ + i * columns_, columns_}; }

 private:
  MappedFile file_;
  std::uint64_t rows_ = 0, columns_ = 0;
  const float* values_ = nullptr;
};

}  // namespace steelyard
