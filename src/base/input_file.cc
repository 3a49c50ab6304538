#include "base/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "base/readable.h"

namespace steelyard {
namespace {

// Path names can be as long as 4096 bytes and hold anything: shown readable and whole.
std::string shown(const std::filesystem::path& path) { return readable(path.string(), 4096); }

FileIdentity identity_of(const struct stat& info) {
  return {.device = info.st_dev,
          .inode = info.st_ino,
          .size = static_cast<std::uint64_t>(info.st_size),
          .modified_seconds = info.st_mtim.tv_sec,
          .modified_nanoseconds = info.st_mtim.tv_nsec};
}

[[noreturn]] void refused(const std::filesystem::path& path, int error) {
  if (error == ENOENT || error == ENOTDIR)
    throw_error(ErrorKind::not_found, "there is no file {}", shown(path));
  throw_error(ErrorKind::io, "can't read {}: {}", shown(path), std::strerror(error));
}

}  // namespace

std::optional<FileIdentity> file_identity(const std::filesystem::path& path) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) return std::nullopt;
  return identity_of(info);
}

InputFile::InputFile(std::filesystem::path path, int descriptor)
    : path_(std::move(path)), descriptor_(descriptor) {}

InputFile::InputFile(InputFile&& other) noexcept
    : path_(std::move(other.path_)),
      descriptor_(std::exchange(other.descriptor_, -1)),
      identity_(other.identity_) {}

InputFile::~InputFile() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

InputFile InputFile::open(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a pipe that nobody writes to must not hang; it has no meaning for regular files.
  InputFile file(path, ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.descriptor_ < 0) refused(path, errno);
  struct stat info {};
  if (::fstat(file.descriptor_, &info) != 0) refused(path, errno);
  if (S_ISDIR(info.st_mode)) throw_error(ErrorKind::bad_input, "{} is a directory, not a file", shown(path));
  if (!S_ISREG(info.st_mode)) throw_error(ErrorKind::bad_input, "{} is not a regular file", shown(path));
  if (info.st_size <= 0) throw_error(ErrorKind::bad_input, "{} is empty", shown(path));
  file.identity_ = identity_of(info);
  return file;
}

void InputFile::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ::ssize_t n = ::pread(descriptor_, out.data(), out.size(), static_cast<::off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refused(path_, errno);
    if (n == 0)
      throw_error(ErrorKind::io, "{} was cut to {} bytes while it was read; try again when it is complete",
                  shown(path_), offset);
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
}

}  // namespace steelyard
