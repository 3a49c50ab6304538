#include "observe/file_place.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <system_error>
#include <vector>

#include "base/error.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPiece = 4 << 20, kMost = 64 << 20, kAlign = 4096;
constexpr double kMostSeconds = 2;

class Descriptor {
 public:
  Descriptor(const fs::path& file, int flags) : fd_(open(file.c_str(), O_RDONLY | O_CLOEXEC | flags)) {}
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

double cached_share(int fd, std::uint64_t bytes) {
  if (bytes == 0) return 0;
  void* data = mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED) return 0;
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  std::vector<unsigned char> in_memory((bytes + page - 1) / page);
  double share = 0;
  if (mincore(data, bytes, in_memory.data()) == 0)
    share = static_cast<double>(std::ranges::count_if(in_memory, [](unsigned char p) { return p & 1; })) /
            static_cast<double>(in_memory.size());
  munmap(data, bytes);
  return share;
}

// Pieces spread over the file, past the page cache.
double disk_rate(const fs::path& file, std::uint64_t bytes) {
  const Descriptor direct(file, O_DIRECT);
  if (direct.get() < 0 || bytes < kPiece) return 0;
  const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(kAlign, kPiece), std::free);
  if (!buffer) return 0;
  const std::uint64_t pieces = std::min<std::uint64_t>(kMost / kPiece, bytes / kPiece);
  const auto start = std::chrono::steady_clock::now();
  double read = 0, seconds = 0;
  for (std::uint64_t i = 0; i < pieces && seconds < kMostSeconds; ++i) {
    const std::uint64_t at = (bytes - kPiece) / pieces * i / kAlign * kAlign;
    const ssize_t n = pread(direct.get(), buffer.get(), kPiece, static_cast<off_t>(at));
    if (n <= 0) return 0;
    read += static_cast<double>(n);
    seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }
  return seconds > 0 ? read / seconds : 0;
}

// The disk below, or the one that the partition is of.
bool is_spinning(dev_t device) {
  const fs::path block =
      fs::path("/sys/dev/block") / (std::to_string(major(device)) + ":" + std::to_string(minor(device)));
  for (const char* where : {"queue/rotational", "../queue/rotational"}) {
    int turns = 0;
    if (std::ifstream(block / where) >> turns) return turns == 1;
  }
  return false;
}

}  // namespace

FileSystem file_system(long magic) {
  switch (static_cast<unsigned long>(magic) & 0xffffffff) {
    case 0xef53:
      return {"ext4"};
    case 0x58465342:
      return {"xfs"};
    case 0x9123683e:
      return {"btrfs"};
    case 0x2fc12fc1:
      return {"zfs"};
    case 0x01021994:
      return {"tmpfs"};
    case 0x794c7630:
      return {"overlay"};
    case 0xf2f52010:
      return {"f2fs"};
    case 0x6969:
      return {"nfs", true};
    case 0xff534d42:
    case 0xfe534d42:
      return {"smb", true};
    case 0x65735546:
      return {"fuse", true};
    case 0x01021997:
      return {"9p", true};
    case 0x00c36400:
      return {"ceph", true};
    default:
      return {};
  }
}

FilePlace read_file_place(const fs::path& file) {
  const Descriptor f(file, 0);
  struct stat status {};
  if (f.get() < 0 || fstat(f.get(), &status) != 0)
    throw_error(ErrorKind::io, "can't open {}: {}", file.string(), std::strerror(errno));
  FilePlace place;
  place.bytes = static_cast<std::uint64_t>(status.st_size);
  struct statfs system {};
  if (fstatfs(f.get(), &system) == 0) {
    const FileSystem known = file_system(static_cast<long>(system.f_type));
    place.system = known.name;
    place.network = known.network;
  }
  place.spinning = is_spinning(status.st_dev);
  place.cached = cached_share(f.get(), place.bytes);
  place.read_rate = disk_rate(file, place.bytes);
  return place;
}

}  // namespace steelyard
