#include "gguf/header_buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

constexpr std::uint64_t kLeastRead = 64 << 10, kMostRead = 4 << 20;  // multiples of every page size

[[noreturn]] void no_memory(const InputFile& file) {
  throw_error(ErrorKind::no_memory, "there is too little memory to read the header of {}",
              readable(file.path().string(), 4096));
}

}  // namespace

// Address space only: a page costs memory once it is filled.
HeaderBuffer::HeaderBuffer(const InputFile& file)
    : file_(&file), capacity_(std::min(file.size(), kMaxBytes)) {
  void* data = ::mmap(nullptr, capacity_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) no_memory(file);
  data_ = static_cast<std::byte*>(data);
}

HeaderBuffer::HeaderBuffer(HeaderBuffer&& other) noexcept
    : file_(other.file_),
      data_(std::exchange(other.data_, nullptr)),
      capacity_(std::exchange(other.capacity_, 0)),
      filled_(std::exchange(other.filled_, 0)) {}

HeaderBuffer& HeaderBuffer::operator=(HeaderBuffer&& other) noexcept {
  std::swap(file_, other.file_);
  std::swap(data_, other.data_);
  std::swap(capacity_, other.capacity_);
  std::swap(filled_, other.filled_);
  return *this;
}

HeaderBuffer::~HeaderBuffer() {
  if (data_ != nullptr) ::munmap(data_, capacity_);
}

// In growing pieces: most headers are a few kilobytes or some megabytes.
void HeaderBuffer::fill(std::uint64_t end) {
  if (end <= filled_) return;
  if (end > capacity_)
    throw_error(ErrorKind::bad_input,
                "{} is damaged: its header takes more than {} MiB, which no model's does",
                readable(file_->path().string(), 4096), kMaxBytes >> 20);
  const std::uint64_t ahead = filled_ + std::clamp(filled_, kLeastRead, kMostRead);
  const std::uint64_t pages = (end + kLeastRead - 1) / kLeastRead * kLeastRead;
  const std::uint64_t to = std::min(capacity_, std::max(ahead / kLeastRead * kLeastRead, pages));
  if (::mprotect(data_ + filled_, to - filled_, PROT_READ | PROT_WRITE) != 0) no_memory(*file_);
  file_->read(filled_, {data_ + filled_, static_cast<std::size_t>(to - filled_)});
  filled_ = to;
}

void HeaderBuffer::finish() {
  file_ = nullptr;
  if (filled_ == 0 || filled_ == capacity_) return;
  ::munmap(data_ + filled_, capacity_ - filled_);
  capacity_ = filled_;
}

}  // namespace steelyard
