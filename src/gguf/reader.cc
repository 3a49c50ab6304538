#include "gguf/reader.h"

#include <algorithm>
#include <bit>
#include <cctype>
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
// More than any model has, and few enough that what is kept of each stays small.
constexpr std::uint64_t kMaxEntries = 1 << 20, kMaxTensors = 1 << 20;
constexpr std::uint64_t kMaxStrings = 1 << 26;

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

// "<!DOCTYPE html", "<html", in any case, after blanks.
bool starts_like_html(std::string_view text) {
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return false;
  std::string start(text.substr(begin, 9));
  for (char& c : start) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return start == "<!doctype" || start.starts_with("<html") || start.starts_with("<head");
}

}  // namespace

const std::byte* GgufReader::take(std::uint64_t bytes, std::string_view what) {
  if (bytes > left()) {
    throw_error(ErrorKind::bad_input, "{} is damaged or cut off: it ends after {} bytes, inside {}", name_,
                size_, what);
  }
  if (buffer_ != nullptr) buffer_->fill(at_ + bytes);
  const std::byte* data = data_ + at_;
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

// What people have under the name of a model and isn't one, by how it begins.
void GgufReader::check_magic() {
  if (size_ == 0) throw_error(ErrorKind::bad_input, "{} is empty", name_);
  const std::uint64_t seen = std::min<std::uint64_t>(64, size_);
  const std::string_view text(reinterpret_cast<const char*>(take(seen, "its beginning")), seen);
  at_ = 0;
  const std::string_view start = text.substr(0, 4);
  if (start == "lmgg" || start == "tjgg" || start == "fmgg" || start == "algg")
    throw_error(ErrorKind::unsupported,
                "{} is a GGML file from before GGUF; fetch or convert the model again", name_);
  if (start == std::string_view("GGUF").substr(0, start.size())) return;
  if (text.starts_with("version https://git-lfs"))
    throw_error(ErrorKind::bad_input,
                "{} is a Git LFS pointer, not the model that it points to: `git lfs pull` fetches that",
                name_);
  if (starts_like_html(text))
    throw_error(ErrorKind::bad_input,
                "{} is a web page, not a model: fetch the file itself, by its download link", name_);
  if (start == std::string_view("PK\x03\x04", 4))
    throw_error(ErrorKind::bad_input, "{} is a zip archive, not a GGUF file: unpack or convert it", name_);
  if (text.size() > 8 && text.substr(8).starts_with("{\""))
    throw_error(ErrorKind::unsupported, "{} is a safetensors file; convert the model to GGUF or fetch it so",
                name_);
  throw_error(ErrorKind::bad_input, "{} is not a GGUF file: it starts with \"{}\"", name_, readable(start));
}

std::uint32_t GgufReader::version() {
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

std::uint64_t GgufReader::count(std::string_view what, std::uint64_t least_bytes_each, std::uint64_t most) {
  const auto n = number<std::int64_t>("the header");
  if (n < 0 || static_cast<std::uint64_t>(n) > size_ / least_bytes_each) {
    throw_error(ErrorKind::bad_input, "{} is damaged: it claims {} {}, more than its {} bytes can hold",
                name_, n, what, size_);
  }
  if (static_cast<std::uint64_t>(n) > most)
    throw_error(ErrorKind::bad_input, "{} claims {} {}; at most {} are allowed", name_, n, what, most);
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
  read_strings(metadata, array);
  return array;
}

// Where each begins, in 4 bytes: a header is at most 1 GiB. An array of nothing but empty strings costs half
// of what it takes in the file.
void GgufReader::read_strings(GgufMetadata& metadata, GgufArray& array) {
  if (array.size_ > kMaxStrings)
    throw_error(ErrorKind::bad_input, "{}: the array '{}' claims {} strings; at most {} are allowed", name_,
                readable(array.key_), array.size_, kMaxStrings);
  std::vector<std::uint32_t> offsets;
  array.data_ = data_ + at_;
  const std::uint64_t first = at_;
  for (std::uint64_t i = 0; i < array.size_; ++i) {
    if (at_ - first > HeaderBuffer::kMaxBytes)
      throw_error(ErrorKind::bad_input, "{}: the array '{}' takes more than {} MiB", name_,
                  readable(array.key_), HeaderBuffer::kMaxBytes >> 20);
    offsets.push_back(static_cast<std::uint32_t>(at_ - first));
    string("an array of strings");
  }
  array.offsets_ = offsets.data();
  metadata.strings_.push_back(std::move(offsets));
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
  check_magic();
  header.version = version();
  const std::uint64_t tensors = count("tensors", kLeastTensorBytes, kMaxTensors);
  const std::uint64_t entries = count("metadata keys", kLeastEntryBytes, kMaxEntries);
  for (std::uint64_t i = 0; i < entries; ++i) entry(header.metadata);
  header.alignment = alignment(header.metadata);
  std::uint64_t offset = 0;
  for (std::uint64_t i = 0; i < tensors; ++i) header.tensors.push_back(tensor(offset, header.alignment));
  const std::uint64_t data = (at_ + header.alignment - 1) & ~(header.alignment - 1);
  for (GgufTensor& tensor : header.tensors) {
    if (data > size_ || tensor.offset > size_ - data || tensor.bytes > size_ - data - tensor.offset) {
      throw_error(ErrorKind::bad_input,
                  "{} is damaged or cut off: tensor '{}' ({} bytes at offset {}) lies past its end", name_,
                  readable(tensor.name), tensor.bytes, tensor.offset);
    }
    tensor.offset += data;
  }
  return header;
}

void GgufReader::append(GgufFile& file, GgufHeader& header, std::span<const std::byte> bytes,
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
  GgufHeader header = GgufReader(bytes, name).read();
  append(file, header, bytes, name);
  if (file.metadata_.find_uint("split.count").value_or(1) > 1) {
    throw_error(ErrorKind::bad_input, "{} is one part of a split model; open it from a file", name);
  }
  return file;
}

}  // namespace steelyard
