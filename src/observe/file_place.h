// Where a model's file lies: on what kind of file system and disk, and how much of it memory holds already.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

namespace steelyard {

struct FilePlace {
  std::uint64_t bytes = 0;
  std::string system;     // "ext4", "nfs"; empty: unknown
  bool network = false;   // what is read comes over a network, or through a helper process
  bool spinning = false;  // a disk that turns
  double cached = 0;      // share of the file that the page cache has, 0 to 1
  double read_rate = 0;   // bytes/s from the disk itself; 0: not measured
};

// Looks, and reads at most 64 MiB past the page cache where the file system can (well under a second on a
// disk that is fast enough; ends after two). Throws Error(io) when the file can't be opened.
FilePlace read_file_place(const std::filesystem::path& file);

// What a file system's magic number stands for: a name, and whether it is a network's.
struct FileSystem {
  std::string name;
  bool network = false;
};
FileSystem file_system(long magic);

}  // namespace steelyard
