// A file mapped read-only into memory. One owner; bytes() and everything cut out of it live as long as the
// owner (moving the owner keeps the addresses). All const members may be called from several threads.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

namespace steelyard {

class MappedFile {
 public:
  // Throws Error: not_found when there is no such file; bad_input for a directory, an empty file or anything
  // that is no regular file; io when the system refuses to open or map it.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<std::size_t>(size_)}; }

  // populate and release are hints (the mapped contents never change, a failure is ignored); ranges are in
  // bytes from the start of the file, cut to its size and to whole pages. Reads the range in and maps its
  // pages, so that later reads don't fault.
  void populate(std::uint64_t offset, std::uint64_t bytes) const;
  // Drops the range's pages from this process (they stay in the system's page cache); whole pages inside the
  // range only, so neighbours keep theirs. Reading again faults them back in.
  void release(std::uint64_t offset, std::uint64_t bytes) const;
  // Bytes of the range whose pages are in memory now (the page cache counts), rounded out to pages.
  std::uint64_t resident(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
};

}  // namespace steelyard
