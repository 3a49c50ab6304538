// A folder of one's own among the temporary files ($TMPDIR), which ends with its owner and everything in it.
#pragma once

#include <filesystem>
#include <string>

namespace steelyard {

class TemporaryFolder {
 public:
  // "steelyard-PURPOSE-…". Throws Error(io) where none can be made.
  explicit TemporaryFolder(const std::string& purpose);
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

}  // namespace steelyard
