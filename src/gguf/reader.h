// Parses one file's header into the parts of a GgufFile. Internal to gguf/.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/dtype.h"
#include "base/input_file.h"
#include "base/readable.h"
#include "gguf/gguf.h"
#include "gguf/header_buffer.h"

namespace steelyard {

// What one file's header says; tensors' offsets are from the start of the file and lie inside it.
struct GgufHeader {
  std::uint32_t version = 0;
  std::uint64_t alignment = 32;
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
};

class GgufReader {
 public:
  // `name` says which file in messages; all must outlive the reader.
  GgufReader(std::span<const std::byte> bytes, std::string_view name)
      : data_(bytes.data()), size_(bytes.size()), name_(name) {}
  // The first bytes of a file of `size` bytes, read as far as needed.
  GgufReader(HeaderBuffer& buffer, std::uint64_t size, std::string_view name)
      : buffer_(&buffer), data_(buffer.data()), size_(size), name_(name) {}
  GgufHeader read();

  static GgufFile open(const std::filesystem::path& path);
  static GgufFile parse(std::span<const std::byte> bytes, std::string_view name);

 private:
  template <typename T>
  T number(std::string_view what);
  std::string_view string(std::string_view what);
  const std::byte* take(std::uint64_t bytes, std::string_view what);
  std::uint64_t left() const { return size_ - at_; }

  void check_magic();
  std::uint32_t version();
  std::uint64_t count(std::string_view what, std::uint64_t least_bytes_each, std::uint64_t most);
  void entry(GgufMetadata& metadata);
  GgufArray array(GgufMetadata& metadata, std::string_view key);
  void read_strings(GgufMetadata& metadata, GgufArray& array);
  void check_booleans(std::string_view key, const std::byte* data, std::uint64_t n) const;
  std::uint64_t alignment(const GgufMetadata& metadata) const;
  GgufTensor tensor(std::uint64_t& running_offset, std::uint64_t alignment);
  GgufShape shape(std::string_view tensor);
  DType type(std::string_view tensor, std::int32_t id) const;

  // Moves the tensors over, and the first part's metadata.
  static void append(GgufFile& file, GgufHeader& header, std::span<const std::byte> bytes,
                     std::string_view name);
  static GgufHeader append_file(GgufFile& file, const std::filesystem::path& path);
  static void open_other_parts(GgufFile& file, const std::filesystem::path& first, std::uint64_t count);

  HeaderBuffer* buffer_ = nullptr;  // null: everything is there
  const std::byte* data_;
  std::uint64_t size_;
  std::string_view name_;
  std::uint64_t at_ = 0;
};

// Bytes of a number or boolean; 0 for strings, arrays and ids that are no type.
std::uint32_t gguf_type_bytes(GgufType type);

}  // namespace steelyard
