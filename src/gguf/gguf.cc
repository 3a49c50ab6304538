#include "gguf/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/readable.h"
#include "gguf/reader.h"

namespace steelyard {
namespace {

template <typename T>
T load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

bool is_integer_type(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::u16:
    case GgufType::i16:
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::u64:
    case GgufType::i64:
      return true;
    default:
      return false;
  }
}

// An integer of any type: the 64 bits and whether they are negative, so that nothing is lost.
struct Integer {
  std::uint64_t bits;
  bool negative;
};

Integer signed_integer(std::int64_t value) { return {static_cast<std::uint64_t>(value), value < 0}; }

Integer load_integer(GgufType type, const std::byte* data) {
  switch (type) {
    case GgufType::u8:
      return {load<std::uint8_t>(data), false};
    case GgufType::i8:
      return signed_integer(load<std::int8_t>(data));
    case GgufType::u16:
      return {load<std::uint16_t>(data), false};
    case GgufType::i16:
      return signed_integer(load<std::int16_t>(data));
    case GgufType::u32:
      return {load<std::uint32_t>(data), false};
    case GgufType::i32:
      return signed_integer(load<std::int32_t>(data));
    case GgufType::u64:
      return {load<std::uint64_t>(data), false};
    default:
      return signed_integer(load<std::int64_t>(data));
  }
}

double load_float(GgufType type, const std::byte* data) {
  return type == GgufType::f32 ? static_cast<double>(load<float>(data)) : load<double>(data);
}

std::string print_integer(Integer value) {
  return value.negative ? fmt::format("{}", static_cast<std::int64_t>(value.bits))
                        : fmt::format("{}", value.bits);
}

std::int64_t to_int(Integer value, std::string_view key) {
  if (!value.negative && value.bits > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    throw_error(ErrorKind::bad_input, "metadata key '{}' holds {}, which is out of range", readable(key),
                value.bits);
  }
  return static_cast<std::int64_t>(value.bits);
}

std::uint64_t to_uint(Integer value, std::string_view key) {
  if (value.negative) {
    throw_error(ErrorKind::bad_input, "metadata key '{}' holds {}, which must not be negative", readable(key),
                print_integer(value));
  }
  return value.bits;
}

[[noreturn]] void wrong_type(const GgufEntry& entry, std::string_view wanted) {
  throw_error(ErrorKind::bad_input, "metadata key '{}' holds a value of type {} where {} is expected",
              readable(entry.key()), gguf_type_name(entry.type()), wanted);
}

template <typename T>
T required(std::optional<T> value, std::string_view key) {
  if (!value) throw_error(ErrorKind::bad_input, "the model file lacks the metadata key '{}'", readable(key));
  return std::move(*value);
}

}  // namespace

std::string_view gguf_type_name(GgufType type) {
  constexpr std::array<std::string_view, 13> kNames = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                                       "bool", "string", "array", "u64", "i64", "f64"};
  const auto id = static_cast<std::uint32_t>(type);
  return id < kNames.size() ? kNames[id] : "unknown";
}

std::uint32_t gguf_type_bytes(GgufType type) {
  constexpr std::array<std::uint32_t, 13> kBytes = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
  const auto id = static_cast<std::uint32_t>(type);
  return id < kBytes.size() ? kBytes[id] : 0;
}

// ---- arrays

bool GgufArray::is_integer() const { return is_integer_type(type_); }

void GgufArray::wrong_type(std::string_view wanted) const {
  throw_error(ErrorKind::bad_input, "metadata key '{}' is an array of {} where {} are expected",
              readable(key_), gguf_type_name(type_), wanted);
}

void GgufArray::check_index(std::uint64_t i) const {
  if (i >= size_) {
    throw_error(ErrorKind::bad_input, "the metadata array '{}' has {} elements; element {} is missing",
                readable(key_), size_, i);
  }
}

std::string_view GgufArray::string_at(std::uint64_t i) const {
  if (type_ != GgufType::string) wrong_type("strings");
  check_index(i);
  const std::byte* at = data_ + offsets_[i];
  return {reinterpret_cast<const char*>(at + 8), static_cast<std::size_t>(load<std::uint64_t>(at))};
}

std::int64_t GgufArray::int_at(std::uint64_t i) const {
  if (!is_integer()) wrong_type("integers");
  check_index(i);
  return to_int(load_integer(type_, data_ + i * gguf_type_bytes(type_)), key_);
}

std::uint64_t GgufArray::uint_at(std::uint64_t i) const {
  if (!is_integer()) wrong_type("integers");
  check_index(i);
  return to_uint(load_integer(type_, data_ + i * gguf_type_bytes(type_)), key_);
}

double GgufArray::float_at(std::uint64_t i) const {
  if (!is_float()) wrong_type("floats");
  check_index(i);
  return load_float(type_, data_ + i * gguf_type_bytes(type_));
}

bool GgufArray::bool_at(std::uint64_t i) const {
  if (type_ != GgufType::boolean) wrong_type("booleans");
  check_index(i);
  return data_[i] != std::byte{0};
}

std::vector<std::string_view> GgufArray::strings() const {
  if (type_ != GgufType::string) wrong_type("strings");
  std::vector<std::string_view> all(size_);
  for (std::uint64_t i = 0; i < size_; ++i) all[i] = string_at(i);
  return all;
}

std::vector<std::int64_t> GgufArray::ints() const {
  if (!is_integer()) wrong_type("integers");
  std::vector<std::int64_t> values(size_);
  for (std::uint64_t i = 0; i < size_; ++i) values[i] = int_at(i);
  return values;
}

std::vector<float> GgufArray::floats() const {
  if (!is_float()) wrong_type("floats");
  std::vector<float> values(size_);
  for (std::uint64_t i = 0; i < size_; ++i) values[i] = static_cast<float>(float_at(i));
  return values;
}

// ---- metadata

const GgufEntry* GgufMetadata::find(std::string_view key) const {
  const auto it = index_.find(key);
  return it == index_.end() ? nullptr : &entries_[it->second];
}

std::optional<std::uint64_t> GgufMetadata::find_uint(std::string_view key, std::uint64_t max) const {
  const GgufEntry* entry = find(key);
  if (entry == nullptr) return std::nullopt;
  if (!is_integer_type(entry->type_)) wrong_type(*entry, "an integer");
  const std::uint64_t value = to_uint(load_integer(entry->type_, entry->data_), key);
  if (value > max) {
    throw_error(ErrorKind::bad_input, "metadata key '{}' holds {}; at most {} is allowed", readable(key),
                value, max);
  }
  return value;
}

std::optional<std::int64_t> GgufMetadata::find_int(std::string_view key, std::int64_t min,
                                                   std::int64_t max) const {
  const GgufEntry* entry = find(key);
  if (entry == nullptr) return std::nullopt;
  if (!is_integer_type(entry->type_)) wrong_type(*entry, "an integer");
  const std::int64_t value = to_int(load_integer(entry->type_, entry->data_), key);
  if (value < min || value > max) {
    throw_error(ErrorKind::bad_input, "metadata key '{}' holds {}; it must be from {} to {}", readable(key),
                value, min, max);
  }
  return value;
}

std::optional<double> GgufMetadata::find_float(std::string_view key) const {
  const GgufEntry* entry = find(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->type_ != GgufType::f32 && entry->type_ != GgufType::f64) wrong_type(*entry, "a float");
  const double value = load_float(entry->type_, entry->data_);
  if (!std::isfinite(value)) {
    throw_error(ErrorKind::bad_input, "metadata key '{}' holds {}, which is no finite number", readable(key),
                value);
  }
  return value;
}

std::optional<bool> GgufMetadata::find_bool(std::string_view key) const {
  const GgufEntry* entry = find(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->type_ != GgufType::boolean) wrong_type(*entry, "a boolean");
  return *entry->data_ != std::byte{0};
}

std::optional<std::string_view> GgufMetadata::find_string(std::string_view key) const {
  const GgufEntry* entry = find(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->type_ != GgufType::string) wrong_type(*entry, "a string");
  return entry->string_;
}

std::optional<GgufArray> GgufMetadata::find_array(std::string_view key) const {
  const GgufEntry* entry = find(key);
  if (entry == nullptr) return std::nullopt;
  if (entry->type_ != GgufType::array) wrong_type(*entry, "an array");
  return entry->array_;
}

std::uint64_t GgufMetadata::require_uint(std::string_view key, std::uint64_t max) const {
  return required(find_uint(key, max), key);
}
std::string_view GgufMetadata::require_string(std::string_view key) const {
  return required(find_string(key), key);
}
GgufArray GgufMetadata::require_array(std::string_view key) const { return required(find_array(key), key); }

// ---- printing

namespace {

std::string print_element(const GgufArray& array, std::uint64_t i, std::size_t width) {
  if (array.type() == GgufType::string) return '"' + readable(array.string_at(i), width) + '"';
  if (array.type() == GgufType::boolean) return array.bool_at(i) ? "true" : "false";
  if (array.is_float())
    return fmt::format(
        "{}", array.type() == GgufType::f32 ? static_cast<float>(array.float_at(i)) : array.float_at(i));
  // A u64 may exceed what int_at returns.
  return array.type() == GgufType::u64 ? fmt::format("{}", array.uint_at(i))
                                       : fmt::format("{}", array.int_at(i));
}

std::string print_array(const GgufArray& array, std::size_t width) {
  std::string out = fmt::format("[{} x {}", array.size(), gguf_type_name(array.type()));
  for (std::uint64_t i = 0; i < array.size(); ++i) {
    const std::string element = print_element(array, i, 16);
    if (out.size() + element.size() + 6 > width) return out + (i == 0 ? ": …]" : ", …]");
    out += (i == 0 ? ": " : ", ") + element;
  }
  return out + ']';
}

}  // namespace

std::string GgufEntry::printable(std::size_t width) const {
  if (type_ == GgufType::string) return readable(string_, width);
  if (type_ == GgufType::array) return print_array(array_, width);
  if (type_ == GgufType::boolean) return *data_ != std::byte{0} ? "true" : "false";
  if (type_ == GgufType::f32) return fmt::format("{}", load<float>(data_));
  if (type_ == GgufType::f64) return fmt::format("{}", load<double>(data_));
  return print_integer(load_integer(type_, data_));
}

std::string to_string(const GgufShape& shape) {
  if (shape.n_dims == 0) return "scalar";
  std::string out = fmt::format("{}", shape[0]);
  for (std::uint32_t i = 1; i < shape.n_dims; ++i) out += fmt::format(" x {}", shape[i]);
  return out;
}

// ---- files

GgufFile GgufFile::open(const std::filesystem::path& path) { return GgufReader::open(path); }

GgufFile GgufFile::parse(std::span<const std::byte> bytes, std::string_view name) {
  return GgufReader::parse(bytes, name);
}

const GgufTensor* GgufFile::find_tensor(std::string_view name) const {
  const auto it = index_.find(name);
  return it == index_.end() ? nullptr : &tensors_[it->second];
}

std::span<const std::byte> GgufFile::data(const GgufTensor& tensor) const {
  return bytes_[tensor.file].subspan(tensor.offset, tensor.bytes);
}

bool GgufFile::changed() const {
  return std::ranges::any_of(files_, [](const MappedFile& file) { return file.changed(); });
}

void GgufFile::check_unchanged() const {
  for (const MappedFile& file : files_)
    if (file.changed())
      throw_error(ErrorKind::io, "{} changed while it was read; try again when it is complete",
                  readable(file.path().string(), 4096));
}

void GgufFile::release(const GgufTensor& tensor, std::uint64_t begin, std::uint64_t bytes) const {
  if (!files_.empty()) files_[tensor.file].release(tensor.offset + begin, bytes);
}

}  // namespace steelyard
