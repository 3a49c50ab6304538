#include "gguf/writer.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/error.h"
#include "gguf/reader.h"

namespace steelyard {
namespace {

template <typename T>
void append_number(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void append_string(std::string& out, std::string_view text) {
  append_number<std::uint64_t>(out, text.size());
  out.append(text);
}

}  // namespace

GgufWriter::GgufWriter(std::filesystem::path path, std::uint32_t alignment)
    : file_(std::move(path)), alignment_(alignment) {
  if (!std::has_single_bit(alignment) || alignment < 8 || alignment > 1 << 20) {
    throw_error(ErrorKind::bad_input, "an alignment of {} is not a power of two from 8 to 1048576",
                alignment);
  }
  add_u32("general.alignment", alignment);
}

// ---- metadata

void GgufWriter::add_key(std::string_view key, GgufType type) {
  if (data_started_) throw_error(ErrorKind::internal, "metadata key '{}' comes after tensor data", key);
  if (!keys_.emplace(key).second) throw_error(ErrorKind::internal, "metadata key '{}' is written twice", key);
  append_string(metadata_, key);
  append_number(metadata_, type);
}

template <typename T>
void GgufWriter::add_number(std::string_view key, GgufType type, T value) {
  add_key(key, type);
  append_number(metadata_, value);
}

template <typename T>
void GgufWriter::add_numbers(std::string_view key, GgufType type, std::span<const T> values) {
  add_key(key, GgufType::array);
  append_number(metadata_, type);
  append_number<std::uint64_t>(metadata_, values.size());
  metadata_.append(reinterpret_cast<const char*>(values.data()), values.size_bytes());
}

template <typename S>
void GgufWriter::add_strings(std::string_view key, std::span<const S> values) {
  add_key(key, GgufType::array);
  append_number(metadata_, GgufType::string);
  append_number<std::uint64_t>(metadata_, values.size());
  for (const S& value : values) append_string(metadata_, value);
}

void GgufWriter::add_u8(std::string_view key, std::uint8_t v) { add_number(key, GgufType::u8, v); }
void GgufWriter::add_i8(std::string_view key, std::int8_t v) { add_number(key, GgufType::i8, v); }
void GgufWriter::add_u16(std::string_view key, std::uint16_t v) { add_number(key, GgufType::u16, v); }
void GgufWriter::add_i16(std::string_view key, std::int16_t v) { add_number(key, GgufType::i16, v); }
void GgufWriter::add_u32(std::string_view key, std::uint32_t v) { add_number(key, GgufType::u32, v); }
void GgufWriter::add_i32(std::string_view key, std::int32_t v) { add_number(key, GgufType::i32, v); }
void GgufWriter::add_u64(std::string_view key, std::uint64_t v) { add_number(key, GgufType::u64, v); }
void GgufWriter::add_i64(std::string_view key, std::int64_t v) { add_number(key, GgufType::i64, v); }
void GgufWriter::add_f32(std::string_view key, float v) { add_number(key, GgufType::f32, v); }
void GgufWriter::add_f64(std::string_view key, double v) { add_number(key, GgufType::f64, v); }
void GgufWriter::add_bool(std::string_view key, bool v) {
  add_number(key, GgufType::boolean, static_cast<std::uint8_t>(v));
}
void GgufWriter::add_string(std::string_view key, std::string_view value) {
  add_key(key, GgufType::string);
  append_string(metadata_, value);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::string> v) { add_strings(key, v); }
void GgufWriter::add_array(std::string_view key, std::span<const std::string_view> v) { add_strings(key, v); }
void GgufWriter::add_array(std::string_view key, std::span<const std::uint8_t> v) {
  add_numbers(key, GgufType::u8, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::int8_t> v) {
  add_numbers(key, GgufType::i8, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::uint16_t> v) {
  add_numbers(key, GgufType::u16, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::int16_t> v) {
  add_numbers(key, GgufType::i16, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::uint32_t> v) {
  add_numbers(key, GgufType::u32, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::int32_t> v) {
  add_numbers(key, GgufType::i32, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::uint64_t> v) {
  add_numbers(key, GgufType::u64, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const std::int64_t> v) {
  add_numbers(key, GgufType::i64, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const float> v) {
  add_numbers(key, GgufType::f32, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const double> v) {
  add_numbers(key, GgufType::f64, v);
}
void GgufWriter::add_array(std::string_view key, std::span<const bool> values) {
  static_assert(sizeof(bool) == 1);
  add_numbers(key, GgufType::boolean, values);
}

void GgufWriter::add(const GgufEntry& entry) {
  if (entry.type() == GgufType::string) return add_string(entry.key(), entry.string_);
  if (entry.type() == GgufType::array) {
    const GgufArray& array = entry.array_;
    if (array.type() == GgufType::string) return add_array(entry.key(), array.strings());
    add_key(entry.key(), GgufType::array);
    append_number(metadata_, array.type());
    append_number(metadata_, array.size());
    metadata_.append(reinterpret_cast<const char*>(array.data_),
                     array.size() * gguf_type_bytes(array.type()));
    return;
  }
  add_key(entry.key(), entry.type());
  metadata_.append(reinterpret_cast<const char*>(entry.data_), gguf_type_bytes(entry.type()));
}

// ---- tensors

void GgufWriter::add_tensor(std::string_view name, std::span<const std::uint64_t> dims, DType type) {
  if (data_started_) throw_error(ErrorKind::internal, "tensor '{}' is declared after tensor data", name);
  if (name.empty() || dims.size() > 4 || !names_.emplace(name).second) {
    throw_error(ErrorKind::internal, "tensor '{}' has no name, occurs twice or has more than 4 dimensions",
                name);
  }
  const DTypeInfo& info = dtype_info(type);
  std::uint64_t elements = 1;
  append_string(directory_, name);
  append_number(directory_, static_cast<std::uint32_t>(dims.size()));
  for (const std::uint64_t size : dims) {
    if (size == 0 || __builtin_mul_overflow(elements, size, &elements) || elements >> 58 != 0) {
      throw_error(ErrorKind::internal, "tensor '{}' has a dimension of 0 or too many elements", name);
    }
    append_number(directory_, size);
  }
  if ((dims.empty() ? 1 : dims[0]) % info.block != 0) {
    throw_error(ErrorKind::internal, "rows of tensor '{}' are no whole blocks of {}", name, info.name);
  }
  append_number(directory_, type);
  append_number(directory_, data_offset_);
  const std::uint64_t bytes = row_bytes(info, elements);
  sizes_.push_back(bytes);
  tensor_bytes_ += bytes;
  data_offset_ += (bytes + alignment_ - 1) / alignment_ * alignment_;
}

void GgufWriter::put(const void* data, std::uint64_t bytes) {
  file_.write(data, bytes);
  written_ += bytes;
}

void GgufWriter::pad() {
  const std::string zeros((alignment_ - written_ % alignment_) % alignment_, '\0');
  put(zeros.data(), zeros.size());
}

void GgufWriter::start_data() {
  if (!file_.open())
    throw_error(ErrorKind::internal, "{} is written to after its end", file_.path().string());
  if (std::exchange(data_started_, true)) return;
  std::string head = "GGUF";
  append_number<std::uint32_t>(head, 3);
  append_number<std::uint64_t>(head, sizes_.size());
  append_number<std::uint64_t>(head, keys_.size());
  put(head.data(), head.size());
  put(metadata_.data(), metadata_.size());
  put(directory_.data(), directory_.size());
  pad();
}

void GgufWriter::write(std::span<const std::byte> data) {
  start_data();
  while (!data.empty()) {
    if (tensor_ == sizes_.size()) {
      throw_error(ErrorKind::internal, "more tensor data than was declared for {}", file_.path().string());
    }
    const std::uint64_t n = std::min<std::uint64_t>(data.size(), sizes_[tensor_] - tensor_written_);
    put(data.data(), n);
    data = data.subspan(n);
    tensor_written_ += n;
    if (tensor_written_ == sizes_[tensor_]) {
      pad();
      ++tensor_;
      tensor_written_ = 0;
    }
  }
}

void GgufWriter::finish_with_hole() {
  start_data();
  const std::uint64_t total = written_ + data_offset_;
  file_.finish();
  std::error_code failed;
  std::filesystem::resize_file(file_.path(), total, failed);
  if (failed)
    throw_error(ErrorKind::io, "{} can't stand in for {} bytes: {}", file_.path().string(), total,
                failed.message());
}

void GgufWriter::finish() {
  start_data();
  if (tensor_ != sizes_.size()) {
    throw_error(ErrorKind::internal, "tensor data is missing at the end of {}", file_.path().string());
  }
  file_.finish();
}

}  // namespace steelyard
