#include "base/mapped_file.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

std::uint64_t page_size() {
  static const auto size = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path) { return map(InputFile::open(path)); }

MappedFile MappedFile::map(const InputFile& file) {
  const auto size = static_cast<std::size_t>(file.size());
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.descriptor(), 0);
  if (data == MAP_FAILED && errno == ENOMEM)
    throw_error(ErrorKind::no_memory,
                "there is too little address space to map {}; raise its limit (ulimit -v)",
                readable(file.path().string(), 4096));
  if (data == MAP_FAILED)
    throw_error(ErrorKind::io, "can't read {}: {}", readable(file.path().string(), 4096),
                std::strerror(errno));
  MappedFile mapped;
  mapped.path_ = file.path();
  mapped.identity_ = file.identity();
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = file.size();
  mapped.guard_ = MappingGuard(mapped.data_, size);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      identity_(other.identity_),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      guard_(std::move(other.guard_)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(identity_, other.identity_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  std::swap(guard_, other.guard_);
  return *this;
}

MappedFile::~MappedFile() {
  guard_ = {};
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_));
}

bool MappedFile::changed() const {
  const auto now = file_identity(path_);
  return guard_.torn() || (now && *now != identity_);
}

void MappedFile::release(std::uint64_t offset, std::uint64_t bytes) const {
  const std::uint64_t first = std::min(offset, size_);
  const std::uint64_t last = first + std::min(bytes, size_ - first);
  const std::uint64_t begin = (first + page_size() - 1) / page_size() * page_size();
  const std::uint64_t end = last == size_ ? last : last / page_size() * page_size();
  if (begin < end) ::madvise(const_cast<std::byte*>(data_ + begin), end - begin, MADV_DONTNEED);
}

}  // namespace steelyard
