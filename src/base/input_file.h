// A regular file opened for reading, and how to tell later that it is no longer the same.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>

namespace steelyard {

// What changes when a file is written, cut or replaced: where it lies, its size and the time of its last
// change.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0, size = 0;
  std::int64_t modified_seconds = 0, modified_nanoseconds = 0;
  bool operator==(const FileIdentity&) const = default;
};

// Of what lies there now, links followed; nullopt when nothing does, or the system doesn't say.
std::optional<FileIdentity> file_identity(const std::filesystem::path& path);

// One owner; const members may be called from several threads.
class InputFile {
 public:
  // Throws Error: not_found when there is no such file; bad_input for a directory, an empty file or anything
  // that is no regular file; io when the system refuses.
  static InputFile open(const std::filesystem::path& path);

  InputFile(InputFile&& other) noexcept;
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;
  ~InputFile();

  const std::filesystem::path& path() const { return path_; }
  const FileIdentity& identity() const { return identity_; }  // when it was opened
  std::uint64_t size() const { return identity_.size; }
  int descriptor() const { return descriptor_; }

  // Fills `out` with the bytes from `offset` on. Throws Error(io) when the file ends before, because it was
  // cut meanwhile, or can't be read.
  void read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  InputFile(std::filesystem::path path, int descriptor);

  std::filesystem::path path_;
  int descriptor_ = -1;
  FileIdentity identity_;
};

}  // namespace steelyard
