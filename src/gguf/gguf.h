// Reading GGUF files (versions 2 and 3): validated metadata and tensor directory, and the tensors' mapped
// bytes. Layout: the format's public definition, https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
//
// A GgufFile is immutable after open and may be read from any thread. Names, keys, strings and arrays are
// views into its copy of the header, which no change of the file reaches: they live as long as the GgufFile
// (moving it keeps them). The tensors' bytes are the file's own (MappedFile says what that means). Every
// count, size and offset was checked against the file before use; a bad file throws Error (bad_input, or
// unsupported for valid things that Steelyard can't read, such as an unknown tensor type) with one sentence.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/dtype.h"
#include "base/mapped_file.h"
#include "gguf/header_buffer.h"

namespace steelyard {

// Value types with the format's ids.
enum class GgufType : std::uint32_t {
  u8 = 0,
  i8 = 1,
  u16 = 2,
  i16 = 3,
  u32 = 4,
  i32 = 5,
  f32 = 6,
  boolean = 7,
  string = 8,
  array = 9,
  u64 = 10,
  i64 = 11,
  f64 = 12,
};
std::string_view gguf_type_name(GgufType type);  // "u32", "string" …

// View of a metadata array. Element access checks the index and the type (Error bad_input names the key);
// integers widen from every integer type, floats from f32 and f64.
class GgufArray {
 public:
  GgufType type() const { return type_; }  // of the elements
  std::uint64_t size() const { return size_; }
  bool is_integer() const;
  bool is_float() const { return type_ == GgufType::f32 || type_ == GgufType::f64; }

  std::string_view string_at(std::uint64_t i) const;
  std::int64_t int_at(std::uint64_t i) const;    // a u64 beyond the range is an error
  std::uint64_t uint_at(std::uint64_t i) const;  // a negative value is an error
  double float_at(std::uint64_t i) const;
  bool bool_at(std::uint64_t i) const;
  std::vector<std::string_view> strings() const;  // all of them; Error when they aren't strings
  std::vector<std::int64_t> ints() const;
  std::vector<float> floats() const;

 private:
  friend class GgufReader;
  friend class GgufWriter;
  friend class GgufMetadata;
  [[noreturn]] void wrong_type(std::string_view wanted) const;
  void check_index(std::uint64_t i) const;

  std::string_view key_;
  GgufType type_ = GgufType::u8;
  std::uint64_t size_ = 0;
  const std::byte* data_ = nullptr;         // the elements, little-endian, any alignment
  const std::uint32_t* offsets_ = nullptr;  // strings: where each begins in data_, its length first
};

// One key and its value.
class GgufEntry {
 public:
  std::string_view key() const { return key_; }
  GgufType type() const { return type_; }
  // The value in at most about `width` bytes of one line of UTF-8: strings cut and escaped, arrays as
  // [262144 x string: "<pad>", "<eos>", …].
  std::string printable(std::size_t width = 60) const;

 private:
  friend class GgufReader;
  friend class GgufWriter;
  friend class GgufMetadata;
  std::string_view key_;
  GgufType type_ = GgufType::u8;
  const std::byte* data_ = nullptr;  // a number's or boolean's bytes
  std::string_view string_;
  GgufArray array_;
};

// Keys in file order, unique. find_… returns nullopt when the key is absent and throws Error (bad_input,
// naming the key) when it holds another type or a value out of range; the required forms throw for absent
// keys too. Integer readers take every integer type; find_float takes f32 and f64 and refuses NaN and
// infinity.
class GgufMetadata {
 public:
  bool contains(std::string_view key) const { return find(key) != nullptr; }
  const GgufEntry* find(std::string_view key) const;  // nullptr when absent
  std::span<const GgufEntry> entries() const { return entries_; }

  std::optional<std::uint64_t> find_uint(std::string_view key,
                                         std::uint64_t max = std::numeric_limits<std::uint64_t>::max()) const;
  std::optional<std::int64_t> find_int(std::string_view key,
                                       std::int64_t min = std::numeric_limits<std::int64_t>::min(),
                                       std::int64_t max = std::numeric_limits<std::int64_t>::max()) const;
  std::optional<double> find_float(std::string_view key) const;
  std::optional<bool> find_bool(std::string_view key) const;
  std::optional<std::string_view> find_string(std::string_view key) const;
  std::optional<GgufArray> find_array(std::string_view key) const;

  std::uint64_t require_uint(std::string_view key,
                             std::uint64_t max = std::numeric_limits<std::uint64_t>::max()) const;
  std::string_view require_string(std::string_view key) const;
  GgufArray require_array(std::string_view key) const;

 private:
  friend class GgufReader;
  std::vector<GgufEntry> entries_;
  std::unordered_map<std::string_view, std::uint32_t> index_;
  std::vector<std::vector<std::uint32_t>> strings_;  // offsets of each string array
};

// Dimensions, fastest first; those past n_dims are 1. A matrix W of [out, in] is stored {in, out}.
struct GgufShape {
  std::array<std::uint64_t, 4> dims{1, 1, 1, 1};
  std::uint32_t n_dims = 0;

  std::uint64_t operator[](std::size_t i) const { return dims[i]; }
  std::uint64_t elements() const { return dims[0] * dims[1] * dims[2] * dims[3]; }  // fits: checked on read
  std::uint64_t columns() const { return dims[0]; }
  std::uint64_t rows() const { return dims[1] * dims[2] * dims[3]; }
  bool operator==(const GgufShape&) const = default;
};
std::string to_string(const GgufShape& shape);  // "2048 x 8192"

struct GgufTensor {
  std::string name;
  GgufShape shape;
  DType type = DType::F32;
  std::uint32_t file = 0;    // index into GgufFile::paths()
  std::uint64_t offset = 0;  // bytes from the start of that file
  std::uint64_t bytes = 0;
};

class GgufFile {
 public:
  // Reads the header and maps the file, and the other parts when it is number 0 of a split model
  // (name-00001-of-0000N.gguf). Another part throws an Error that names the first.
  static GgufFile open(const std::filesystem::path& path);
  // Over memory that the caller keeps alive; a part of a split model is refused. `name` is for messages.
  static GgufFile parse(std::span<const std::byte> bytes, std::string_view name = "the GGUF data");

  GgufFile(GgufFile&&) noexcept = default;
  GgufFile& operator=(GgufFile&&) noexcept = default;
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  std::uint32_t version() const { return version_; }
  std::uint64_t alignment() const { return alignment_; }
  const GgufMetadata& metadata() const { return metadata_; }        // of the first part
  std::span<const GgufTensor> tensors() const { return tensors_; }  // file order, parts in order
  const GgufTensor* find_tensor(std::string_view name) const;       // nullptr when absent
  std::span<const std::byte> data(const GgufTensor& tensor) const;  // exactly tensor.bytes

  std::uint64_t total_bytes() const { return total_bytes_; }               // of all parts, headers included
  std::uint64_t tensor_bytes() const { return tensor_bytes_; }             // weights only, without padding
  std::span<const std::filesystem::path> paths() const { return paths_; }  // empty after parse()

  // Whether a part was written to, cut or replaced since it was opened (MappedFile::changed); false after
  // parse(). The other throws Error(io) then, saying which.
  bool changed() const;
  void check_unchanged() const;

  // Page hint for one tensor's bytes, see MappedFile; nothing after parse().
  void release(const GgufTensor& tensor) const { release(tensor, 0, tensor.bytes); }
  void release(const GgufTensor& tensor, std::uint64_t begin, std::uint64_t bytes) const;

 private:
  friend class GgufReader;
  GgufFile() = default;

  std::uint32_t version_ = 0;
  std::uint64_t alignment_ = 32;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  std::unordered_map<std::string_view, std::uint32_t> index_;
  std::vector<HeaderBuffer> headers_;
  std::vector<MappedFile> files_;
  std::vector<std::span<const std::byte>> bytes_;
  std::vector<std::filesystem::path> paths_;
  std::uint64_t total_bytes_ = 0;
  std::uint64_t tensor_bytes_ = 0;
};

}  // namespace steelyard
