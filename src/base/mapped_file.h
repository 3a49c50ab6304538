// A file mapped read-only into memory. One owner; bytes() and everything cut out of it live as long as the
// owner (moving the owner keeps the addresses). All const members may be called from several threads.
//
// Somebody may write to the file or cut it at any time, and the bytes change with it: read them once, copy
// what is to stay, and ask changed() afterwards. Where the file was cut they are zeros (mapping_guard.h).
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>

#include "base/input_file.h"
#include "base/mapping_guard.h"

namespace steelyard {

class MappedFile {
 public:
  // Throws Error as InputFile::open does, and when the system refuses to map it: io, or no_memory.
  static MappedFile open(const std::filesystem::path& path);
  static MappedFile map(const InputFile& file);  // the file may be closed afterwards

  MappedFile() = default;
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::uint64_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data_, static_cast<std::size_t>(size_)}; }

  // Whether the path names something else than what was mapped: replaced, or written to or cut since it was
  // opened. A file that is gone hasn't changed.
  bool changed() const;

  // Drops the range's pages from this process (they stay in the system's page cache); whole pages inside the
  // range only, so neighbours keep theirs. Reading again faults them back in.
  void release(std::uint64_t offset, std::uint64_t bytes) const;

 private:
  std::filesystem::path path_;
  FileIdentity identity_;
  const std::byte* data_ = nullptr;
  std::uint64_t size_ = 0;
  MappingGuard guard_;
};

}  // namespace steelyard
