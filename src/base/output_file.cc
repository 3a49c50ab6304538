#include "base/output_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace steelyard {
namespace fs = std::filesystem;

OutputFile::OutputFile(fs::path path) : path_(std::move(path)), place_(path_) {
  std::error_code error;
  const fs::file_status status = fs::status(path_, error);
  if (fs::is_directory(status))
    throw_error(ErrorKind::bad_input, "can't write {}: it is a directory", path_.string());
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    fd_ = ::open(path_.c_str(), O_WRONLY | O_CLOEXEC);
    if (fd_ < 0) fail(errno);
    return;
  }
  if (fs::exists(status)) place_ = fs::canonical(path_, error);
  if (error || place_.empty()) place_ = path_;
  open_nameless();
  if (fd_ < 0) open_beside();
}

void OutputFile::open_nameless() {
  if (::access("/proc/self/fd", X_OK) != 0) return;  // it will be named through this
  const fs::path folder = place_.parent_path();
  fd_ = ::open(folder.empty() ? "." : folder.c_str(), O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
  nameless_ = fd_ >= 0;
}

fs::path OutputFile::temporary_name(int attempt) const {
  return fmt::format("{}.partial-{}-{}", place_.string(), ::getpid(), attempt);
}

void OutputFile::open_beside() {
  for (int attempt = 0; fd_ < 0; ++attempt) {
    temporary_ = temporary_name(attempt);
    fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ < 0 && (errno != EEXIST || attempt == 1000)) {
      const int error = errno;
      temporary_.clear();
      fail(error);
    }
  }
}

OutputFile::~OutputFile() { discard(); }

void OutputFile::discard() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void OutputFile::fail(int error) {
  discard();
  throw_error(ErrorKind::io, "can't write {}: {}", path_.string(), std::strerror(error));
}

void OutputFile::write(const void* data, std::uint64_t bytes) {
  if (fd_ < 0) throw_error(ErrorKind::internal, "{} is written to after its end", path_.string());
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t n = ::write(fd_, from, std::min<std::uint64_t>(bytes, 1u << 30));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) fail(n < 0 ? errno : ENOSPC);
    from += n;
    bytes -= static_cast<std::uint64_t>(n);
  }
}

// Gives the bytes a name beside their place: a link can't replace a file, only a rename can. An errno or 0.
int OutputFile::name_it() {
  const std::string from = fmt::format("/proc/self/fd/{}", fd_);
  for (int attempt = 0;; ++attempt) {
    const fs::path name = temporary_name(attempt);
    if (::linkat(AT_FDCWD, from.c_str(), AT_FDCWD, name.c_str(), AT_SYMLINK_FOLLOW) == 0) {
      temporary_ = name;
      return 0;
    }
    if (errno != EEXIST || attempt == 1000) return errno;
  }
}

void OutputFile::finish() {
  if (fd_ < 0) throw_error(ErrorKind::internal, "{} is finished twice", path_.string());
  if (nameless_)
    if (const int error = name_it()) fail(error);
  if (::close(std::exchange(fd_, -1)) != 0) fail(errno);
  if (!temporary_.empty() && ::rename(temporary_.c_str(), place_.c_str()) != 0) fail(errno);
  temporary_.clear();
}

void write_file(const std::filesystem::path& path, std::string_view content) {
  OutputFile file(path);
  file.write(content.data(), content.size());
  file.finish();
}

}  // namespace steelyard
