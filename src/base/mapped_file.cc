#include "base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "base/error.h"

namespace steelyard {
namespace {

std::uint64_t page_size() {
  static const auto size = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  return size;
}

struct Descriptor {
  int fd;
  ~Descriptor() {
    if (fd >= 0) ::close(fd);
  }
};

[[noreturn]] void refused(const std::filesystem::path& path, int error) {
  if (error == ENOENT || error == ENOTDIR)
    throw_error(ErrorKind::not_found, "there is no file {}", path.string());
  if (error == ENOMEM)
    throw_error(ErrorKind::no_memory,
                "there is too little address space to map {}; raise its limit (ulimit -v)", path.string());
  throw_error(ErrorKind::io, "can't read {}: {}", path.string(), std::strerror(error));
}

struct PageRange {
  std::uint64_t begin, end;
};

PageRange pages_touched(std::uint64_t offset, std::uint64_t bytes, std::uint64_t size) {
  const std::uint64_t begin = std::min(offset, size);
  const std::uint64_t end = begin + std::min(bytes, size - begin);
  return {begin / page_size() * page_size(), end};
}

}  // namespace

MappedFile MappedFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang; it has no meaning for regular files.
  const Descriptor file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
  if (file.fd < 0) refused(path, errno);
  struct stat info {};
  if (::fstat(file.fd, &info) != 0) refused(path, errno);
  if (S_ISDIR(info.st_mode))
    throw_error(ErrorKind::bad_input, "{} is a directory, not a file", path.string());
  if (!S_ISREG(info.st_mode)) throw_error(ErrorKind::bad_input, "{} is not a regular file", path.string());
  if (info.st_size <= 0) throw_error(ErrorKind::bad_input, "{} is empty", path.string());
  void* data = ::mmap(nullptr, static_cast<std::size_t>(info.st_size), PROT_READ, MAP_SHARED, file.fd, 0);
  if (data == MAP_FAILED) refused(path, errno);
  MappedFile mapped;
  mapped.path_ = path;
  mapped.data_ = static_cast<const std::byte*>(data);
  mapped.size_ = static_cast<std::uint64_t>(info.st_size);
  return mapped;
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  std::swap(path_, other.path_);
  std::swap(data_, other.data_);
  std::swap(size_, other.size_);
  return *this;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), static_cast<std::size_t>(size_));
}

void MappedFile::populate(std::uint64_t offset, std::uint64_t bytes) const {
  const auto [begin, end] = pages_touched(offset, bytes, size_);
  if (begin >= end) return;
#ifdef MADV_POPULATE_READ
  if (::madvise(const_cast<std::byte*>(data_ + begin), end - begin, MADV_POPULATE_READ) == 0) return;
#endif
  // Kernels before 5.14: touch a byte of every page.
  ::madvise(const_cast<std::byte*>(data_ + begin), end - begin, MADV_WILLNEED);
  for (std::uint64_t at = begin; at < end; at += page_size())
    static_cast<void>(*static_cast<const volatile std::byte*>(data_ + at));
}

void MappedFile::release(std::uint64_t offset, std::uint64_t bytes) const {
  const std::uint64_t first = std::min(offset, size_);
  const std::uint64_t last = first + std::min(bytes, size_ - first);
  const std::uint64_t begin = (first + page_size() - 1) / page_size() * page_size();
  const std::uint64_t end = last == size_ ? last : last / page_size() * page_size();
  if (begin < end) ::madvise(const_cast<std::byte*>(data_ + begin), end - begin, MADV_DONTNEED);
}

std::uint64_t MappedFile::resident(std::uint64_t offset, std::uint64_t bytes) const {
  const auto [begin, end] = pages_touched(offset, bytes, size_);
  if (begin >= end) return 0;
  std::vector<unsigned char> pages((end - begin + page_size() - 1) / page_size());
  if (::mincore(const_cast<std::byte*>(data_ + begin), end - begin, pages.data()) != 0) return 0;
  const auto count = std::count_if(pages.begin(), pages.end(), [](unsigned char p) { return (p & 1) != 0; });
  return static_cast<std::uint64_t>(count) * page_size();
}

}  // namespace steelyard
