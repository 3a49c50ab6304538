// A folder of Ollama's layout that is written to. Every change is whole or not there, and changes of several
// threads and programs don't mix: each holds the folder's lock.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <stop_token>
#include <string>
#include <string_view>
#include <vector>

#include "base/output_file.h"
#include "base/sha256.h"
#include "store/manifest.h"
#include "store/model_name.h"

namespace steelyard {

// A lock on a file beside what it guards, between threads and between programs; given back at the end, also
// of a killed program.
class FileLock {
 public:
  // Waits, or throws Error(cancelled) when asked to stop meanwhile. Throws Error(io) where the file can't be
  // made.
  explicit FileLock(const std::filesystem::path& file, const std::stop_token& stop = {});
  ~FileLock();
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;

 private:
  int fd_ = -1;
};

// Thread-safe: it holds nothing but the path.
class StoreFolder {
 public:
  explicit StoreFolder(std::filesystem::path folder) : folder_(std::move(folder)) {}
  const std::filesystem::path& path() const { return folder_; }

  std::filesystem::path blob_path(std::string_view digest) const;
  bool has_blob(std::string_view digest) const;
  // A small layer. Throws Error(io).
  Layer add_blob(std::string_view kind, std::string_view content) const;
  // Makes the folders. Throws Error(io) where they can't be made.
  void make() const;
  // Throws Error(io) when the disk that the folder lies on has less room than `bytes` and some to spare.
  void check_room(std::uint64_t bytes) const;

  // Takes the place of the name's present one. Throws Error: not_found when one of its blobs isn't there
  // (any more), io.
  void write_manifest(const ModelName& name, std::string_view text) const;
  // Throws Error(not_found) when there is no such manifest here.
  void copy(const ModelName& from, const ModelName& to) const;
  // Likewise. Blobs go with the last manifest of the folder that uses them; where one can't be read, and so
  // might use any, they stay.
  void remove(const ModelName& name) const;

 private:
  std::filesystem::path lock_file() const { return folder_ / ".lock"; }
  std::filesystem::path find_manifest(const ModelName& name) const;
  void write_locked(const ModelName& name, std::string_view text) const;
  void remove_blobs(const std::vector<std::string>& candidates) const;

  std::filesystem::path folder_;
};

// A blob on its way into a folder, with its digest counted as it comes. Nothing is left of one that isn't
// finished. One thread at a time.
class BlobWriter {
 public:
  explicit BlobWriter(const StoreFolder& folder);
  void write(std::span<const std::byte> bytes);
  std::uint64_t bytes() const { return bytes_; }
  // Puts it in its place, and returns its digest. `expected` not empty: throws Error(bad_input) when it is
  // another one.
  std::string finish(std::string_view expected = {});

 private:
  const StoreFolder folder_;
  std::filesystem::path place_;
  OutputFile file_;
  Sha256 hash_;
  std::uint64_t bytes_ = 0;
};

}  // namespace steelyard
