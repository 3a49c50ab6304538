// Writing GGUF files, version 3. Metadata and tensors are declared first; tensor data then goes to the disk
// as it comes, so a file of any size needs no memory. The file appears under its name only when it is
// complete (base/output_file.h); without finish() (an exception, say) nothing is left. One thread at a time.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/output_file.h"
#include "gguf/gguf.h"

namespace steelyard {

class GgufWriter {
 public:
  // Throws Error: io when the directory can't be written to, bad_input for an alignment that is no power of
  // two in 8 … 1 MiB.
  explicit GgufWriter(std::filesystem::path path, std::uint32_t alignment = 32);

  // 1. Metadata, in order, each key once (internal Error otherwise). "general.alignment" is written by
  // itself.
  void add_u8(std::string_view key, std::uint8_t value);
  void add_i8(std::string_view key, std::int8_t value);
  void add_u16(std::string_view key, std::uint16_t value);
  void add_i16(std::string_view key, std::int16_t value);
  void add_u32(std::string_view key, std::uint32_t value);
  void add_i32(std::string_view key, std::int32_t value);
  void add_u64(std::string_view key, std::uint64_t value);
  void add_i64(std::string_view key, std::int64_t value);
  void add_f32(std::string_view key, float value);
  void add_f64(std::string_view key, double value);
  void add_bool(std::string_view key, bool value);
  void add_string(std::string_view key, std::string_view value);
  void add_array(std::string_view key, std::span<const std::string> values);
  void add_array(std::string_view key, std::span<const std::string_view> values);
  void add_array(std::string_view key, std::span<const std::uint8_t> values);
  void add_array(std::string_view key, std::span<const std::int8_t> values);
  void add_array(std::string_view key, std::span<const std::uint16_t> values);
  void add_array(std::string_view key, std::span<const std::int16_t> values);
  void add_array(std::string_view key, std::span<const std::uint32_t> values);
  void add_array(std::string_view key, std::span<const std::int32_t> values);
  void add_array(std::string_view key, std::span<const std::uint64_t> values);
  void add_array(std::string_view key, std::span<const std::int64_t> values);
  void add_array(std::string_view key, std::span<const float> values);
  void add_array(std::string_view key, std::span<const double> values);
  void add_array(std::string_view key, std::span<const bool> values);
  // Copies an entry of another file as it is.
  void add(const GgufEntry& entry);

  // 2. Tensor directory, in the order of the data.
  void add_tensor(std::string_view name, std::span<const std::uint64_t> dims, DType type);

  // 3. Data of the declared tensors, in their order; a tensor may come in any number of pieces. More than was
  // declared is an internal Error; a failed write (full disk) an io Error.
  void write(std::span<const std::byte> data);
  // Completes the file and renames it into place; internal Error when data is missing.
  void finish();
  // Instead of the data: the file ends in a hole of its size, which takes no space on a disk. For what reads
  // headers.
  void finish_with_hole();

  std::uint64_t tensor_bytes() const { return tensor_bytes_; }  // declared so far, without padding

 private:
  void add_key(std::string_view key, GgufType type);
  template <typename T>
  void add_number(std::string_view key, GgufType type, T value);
  template <typename T>
  void add_numbers(std::string_view key, GgufType type, std::span<const T> values);
  template <typename S>
  void add_strings(std::string_view key, std::span<const S> values);
  void start_data();
  void pad();
  void put(const void* data, std::uint64_t bytes);

  OutputFile file_;
  std::uint32_t alignment_;
  std::uint64_t written_ = 0;  // bytes of the file so far

  std::string metadata_;   // encoded
  std::string directory_;  // encoded
  std::set<std::string, std::less<>> keys_;
  std::set<std::string, std::less<>> names_;
  std::vector<std::uint64_t> sizes_;  // bytes per tensor
  std::uint64_t data_offset_ = 0;     // of the next tensor, from the data section
  std::uint64_t tensor_bytes_ = 0;
  bool data_started_ = false;
  std::size_t tensor_ = 0;            // being written
  std::uint64_t tensor_written_ = 0;  // bytes of it so far
};

}  // namespace steelyard
