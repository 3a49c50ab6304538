#include "gguf/reader.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>

#include "base/error.h"

static_assert(std::endian::native == std::endian::little, "GGUF numbers are read in place");

namespace steelyard {
namespace {

constexpr std::uint64_t kMaxNameBytes = 1024;  // tensor names; real ones stay under 64
constexpr std::uint64_t kMaxKeyBytes = 65535;  // the format's limit
constexpr std::uint64_t kMinAlignment = 8;     // the format asks for a multiple of 8
constexpr std::uint64_t kMaxAlignment = 1 << 20;
// The smallest key-value (empty u8) and tensor entry (scalar with a one-byte name).
constexpr std::uint64_t kLeastEntryBytes = 8 + 1 + 4 + 1;
constexpr std::uint64_t kLeastTensorBytes = 8 + 1 + 4 + 4 + 8;

// Types that exist in the format but that Steelyard doesn't read, for the message.
std::string_view foreign_type_name(std::int32_t id) {
  switch (id) {
    case 9:
      return "Q8_1";
    case 15:
      return "Q8_K";
    case 16:
      return "IQ2_XXS";
    case 17:
      return "IQ2_XS";
    case 18:
      return "IQ3_XXS";
    case 19:
      return "IQ1_S";
    case 21:
      return "IQ3_S";
    case 22:
      return "IQ2_S";
    case 24:
      return "I8";
    case 25:
      return "I16";
    case 26:
      return "I32";
    case 27:
      return "I64";
    case 28:
      return "F64";
    case 29:
      return "IQ1_M";
    case 34:
      return "TQ1_0";
    case 35:
      return "TQ2_0";
    default:
      return "no known type";
  }
}

template <typename T>
T load(const std::byte* data) {
  T value;
  std::memcpy(&value, data, sizeof value);
  return value;
}

}  // namespace

const std::byte* GgufReader::take(std::uint64_t bytes, std::string_view what) {
  if (bytes > left()) {
    throw_error(ErrorKind::bad_input, "{} is damaged or cut off: it ends after {} bytes, inside {}", name_,
                bytes_.size(), what);
  }
  const std::byte* data = bytes_.data() + at_;
  at_ += bytes;
  return data;
}

template <typename T>
T GgufReader::number(std::string_view what) {
  return load<T>(take(sizeof(T), what));
}

std::string_view GgufReader::string(std::string_view what) {
  const auto length = number<std::uint64_t>(what);
  return {reinterpret_cast<const char*>(take(length, what)), static_cast<std::size_t>(length)};
}

std::uint32_t GgufReader::magic_and_version() {
  if (bytes_.empty()) throw_error(ErrorKind::bad_input, "{} is empty", name_);
  const std::string_view start(reinterpret_cast<const char*>(bytes_.data()),
                               std::min<std::size_t>(4, bytes_.size()));
  if (start == "lmgg" || start == "tjgg" || start == "fmgg" || start == "algg") {
    throw_error(ErrorKind::unsupported,
                "{} is a GGML file from before GGUF; fetch or convert the model again", name_);
  }
  if (start != std::string_view("GGUF").substr(0, start.size())) {
    throw_error(ErrorKind::bad_input, "{} is not a GGUF file: it starts with \"{}\"", name_, readable(start));
  }
  take(4, "the magic number");
  const auto version = number<std::uint32_t>("the version");
  if ((version & 0xffffu) == 0) {
    throw_error(ErrorKind::unsupported, "{} is a big-endian GGUF file; Steelyard reads little-endian ones",
                name_);
  }
  if (version != 2 && version != 3) {
    throw_error(ErrorKind::unsupported, "{} is a GGUF file of version {}; Steelyard reads versions 2 and 3",
                name_, version);
  }
  return version;
}

std::uint64_t GgufReader::count(std::string_view what, std::uint64_t least_bytes_each) {
  const auto n = number<std::int64_t>("the header");
  if (n < 0 || static_cast<std::uint64_t>(n) > bytes_.size() / least_bytes_each) {
    throw_error(ErrorKind::bad_input, "{} is damaged: it claims {} {}, more than its {} bytes can hold",
                name_, n, what, bytes_.size());
  }
  return static_cast<std::uint64_t>(n);
}

void GgufReader::check_booleans(std::string_view key, const std::byte* data, std::uint64_t n) const {
  for (std::uint64_t i = 0; i < n; ++i) {
    if (data[i] > std::byte{1}) {
      throw_error(ErrorKind::bad_input,
                  "{} is damaged: metadata key '{}' holds a boolean that is neither 0 nor 1", name_,
                  readable(key));
    }
  }
}

GgufArray GgufReader::array(GgufMetadata& metadata, std::string_view key) {
  GgufArray array;
  array.key_ = key;
  array.type_ = static_cast<GgufType>(number<std::uint32_t>("an array's type"));
  array.size_ = number<std::uint64_t>("an array's size");
  const std::uint32_t width = gguf_type_bytes(array.type_);
  const bool strings = array.type_ == GgufType::string;
  if (width == 0 && !strings) {
    throw_error(ErrorKind::bad_input,
                "{}: metadata key '{}' is an array of type id {}, which is no number or string", name_,
                readable(key), static_cast<std::uint32_t>(array.type_));
  }
  if (array.size_ > left() / (strings ? 8 : width)) {
    throw_error(ErrorKind::bad_input,
                "{} is damaged or cut off: the array '{}' claims {} elements, more than the file can hold",
                name_, readable(key), array.size_);
  }
  if (!strings) {
    array.data_ = take(array.size_ * width, "an array");
    if (array.type_ == GgufType::boolean) check_booleans(key, array.data_, array.size_);
    return array;
  }
  auto views = std::make_unique_for_overwrite<std::string_view[]>(array.size_);
  for (std::uint64_t i = 0; i < array.size_; ++i) views[i] = string("an array of strings");
  array.strings_ = views.get();
  metadata.strings_.push_back(std::move(views));
  return array;
}

void GgufReader::entry(GgufMetadata& metadata) {
  GgufEntry entry;
  entry.key_ = string("a metadata key");
  if (entry.key_.empty() || entry.key_.size() > kMaxKeyBytes) {
    throw_error(ErrorKind::bad_input, "{} is damaged: a metadata key of {} bytes; 1 to {} are allowed", name_,
                entry.key_.size(), kMaxKeyBytes);
  }
  entry.type_ = static_cast<GgufType>(number<std::uint32_t>("a metadata type"));
  if (entry.type_ == GgufType::string) {
    entry.string_ = string("a metadata string");
  } else if (entry.type_ == GgufType::array) {
    entry.array_ = array(metadata, entry.key_);
  } else if (const std::uint32_t width = gguf_type_bytes(entry.type_); width != 0) {
    entry.data_ = take(width, "a metadata value");
    if (entry.type_ == GgufType::boolean) check_booleans(entry.key_, entry.data_, 1);
  } else {
    throw_error(ErrorKind::bad_input, "{}: metadata key '{}' has type id {}, which does not exist", name_,
                readable(entry.key_), static_cast<std::uint32_t>(entry.type_));
  }
  const auto index = static_cast<std::uint32_t>(metadata.entries_.size());
  if (!metadata.index_.emplace(entry.key_, index).second) {
    throw_error(ErrorKind::bad_input, "{} is damaged: metadata key '{}' occurs twice", name_,
                readable(entry.key_));
  }
  metadata.entries_.push_back(entry);
}

std::uint64_t GgufReader::alignment(const GgufMetadata& metadata) const {
  const std::uint64_t alignment = metadata.find_uint("general.alignment").value_or(32);
  if (!std::has_single_bit(alignment) || alignment < kMinAlignment || alignment > kMaxAlignment) {
    throw_error(ErrorKind::bad_input, "{}: general.alignment is {}; it must be a power of two from {} to {}",
                name_, alignment, kMinAlignment, kMaxAlignment);
  }
  return alignment;
}

GgufShape GgufReader::shape(std::string_view tensor) {
  GgufShape shape;
  shape.n_dims = number<std::uint32_t>("a tensor's shape");
  if (shape.n_dims > 4) {
    throw_error(ErrorKind::bad_input, "{}: tensor '{}' claims {} dimensions; at most 4 are allowed", name_,
                readable(tensor), shape.n_dims);
  }
  std::int64_t elements = 1;
  for (std::uint32_t i = 0; i < shape.n_dims; ++i) {
    const auto size = number<std::int64_t>("a tensor's shape");
    if (size <= 0) {
      throw_error(ErrorKind::bad_input, "{}: tensor '{}' has a dimension of size {}", name_, readable(tensor),
                  size);
    }
    if (__builtin_mul_overflow(elements, size, &elements)) {
      throw_error(ErrorKind::bad_input, "{}: tensor '{}' claims more elements than 63 bits can count", name_,
                  readable(tensor));
    }
    shape.dims[i] = static_cast<std::uint64_t>(size);
  }
  return shape;
}

DType GgufReader::type(std::string_view tensor, std::int32_t id) const {
  const auto info = find_dtype(id);
  if (!info) {
    throw_error(ErrorKind::unsupported, "{}: tensor '{}' has type id {} ({}), which Steelyard can't read",
                name_, readable(tensor), id, foreign_type_name(id));
  }
  return info->type;
}

GgufTensor GgufReader::tensor(std::uint64_t& running_offset, std::uint64_t alignment) {
  GgufTensor tensor;
  tensor.name = string("a tensor's name");
  if (tensor.name.empty() || tensor.name.size() > kMaxNameBytes) {
    throw_error(ErrorKind::bad_input, "{} is damaged: a tensor's name of {} bytes; 1 to {} are allowed",
                name_, tensor.name.size(), kMaxNameBytes);
  }
  tensor.shape = shape(tensor.name);
  tensor.type = type(tensor.name, number<std::int32_t>("a tensor's type"));
  const DTypeInfo& info = dtype_info(tensor.type);
  if (tensor.shape[0] % info.block != 0) {
    throw_error(ErrorKind::bad_input,
                "{}: tensor '{}' has rows of {} elements, but {} needs a multiple of {}", name_,
                readable(tensor.name), tensor.shape[0], info.name, info.block);
  }
  std::uint64_t padded = 0;
  if (__builtin_mul_overflow(tensor.shape.elements() / info.block, std::uint64_t{info.block_bytes},
                             &tensor.bytes) ||
      __builtin_add_overflow(tensor.bytes, alignment - 1, &padded)) {
    throw_error(ErrorKind::bad_input, "{}: tensor '{}' claims more bytes than 64 bits can count", name_,
                readable(tensor.name));
  }
  tensor.offset = number<std::uint64_t>("a tensor's offset");
  if (tensor.offset != running_offset) {
    throw_error(ErrorKind::bad_input, "{} is damaged: tensor '{}' starts at offset {} where {} is expected",
                name_, readable(tensor.name), tensor.offset, running_offset);
  }
  if (__builtin_add_overflow(running_offset, padded & ~(alignment - 1), &running_offset)) {
    throw_error(ErrorKind::bad_input, "{}: the tensors up to '{}' claim more bytes than 64 bits can count",
                name_, readable(tensor.name));
  }
  return tensor;
}

GgufHeader GgufReader::read() {
  GgufHeader header;
  header.version = magic_and_version();
  const std::uint64_t tensors = count("tensors", kLeastTensorBytes);
  const std::uint64_t entries = count("metadata keys", kLeastEntryBytes);
  header.metadata.entries_.reserve(entries);
  header.metadata.index_.reserve(entries);
  for (std::uint64_t i = 0; i < entries; ++i) entry(header.metadata);
  header.alignment = alignment(header.metadata);
  header.tensors.reserve(tensors);
  std::uint64_t offset = 0;
  for (std::uint64_t i = 0; i < tensors; ++i) header.tensors.push_back(tensor(offset, header.alignment));
  const std::uint64_t data = (at_ + header.alignment - 1) & ~(header.alignment - 1);
  for (GgufTensor& tensor : header.tensors) {
    if (data > bytes_.size() || tensor.offset > bytes_.size() - data ||
        tensor.bytes > bytes_.size() - data - tensor.offset) {
      throw_error(ErrorKind::bad_input,
                  "{} is damaged or cut off: tensor '{}' ({} bytes at offset {}) lies past its end", name_,
                  readable(tensor.name), tensor.bytes, tensor.offset);
    }
    tensor.offset += data;
  }
  return header;
}

void GgufReader::append(GgufFile& file, GgufHeader header, std::span<const std::byte> bytes,
                        std::string_view name) {
  const auto index = static_cast<std::uint32_t>(file.bytes_.size());
  if (index == 0) {
    file.version_ = header.version;
    file.alignment_ = header.alignment;
    file.metadata_ = std::move(header.metadata);
  }
  file.bytes_.push_back(bytes);
  file.total_bytes_ += bytes.size();
  for (GgufTensor& tensor : header.tensors) {
    tensor.file = index;
    file.tensor_bytes_ += tensor.bytes;
    file.tensors_.push_back(std::move(tensor));
  }
  // Growing the vector moved the names, so the index is made again.
  file.index_.clear();
  file.index_.reserve(file.tensors_.size());
  for (std::uint32_t i = 0; i < file.tensors_.size(); ++i) {
    if (!file.index_.emplace(file.tensors_[i].name, i).second) {
      throw_error(ErrorKind::bad_input, "{} is damaged: tensor '{}' occurs twice", name,
                  readable(file.tensors_[i].name));
    }
  }
}

GgufFile GgufReader::parse(std::span<const std::byte> bytes, std::string_view name) {
  GgufFile file;
  append(file, GgufReader(bytes, name).read(), bytes, name);
  if (file.metadata_.find_uint("split.count").value_or(1) > 1) {
    throw_error(ErrorKind::bad_input, "{} is one part of a split model; open it from a file", name);
  }
  return file;
}

}  // namespace steelyard
