// A file to be written as a whole: it appears under its name only when finish() was reached. Until then its
// bytes have no name, so that no way of ending the program leaves a part behind; on file systems that can't
// do that they go to a temporary name beside it, which only a killed program leaves. A path that leads
// through a symbolic link replaces what the link points to; a device or a pipe is written to directly. One
// thread at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

namespace steelyard {

class OutputFile {
 public:
  // Throws Error: bad_input for a directory, io when nothing can be written there.
  explicit OutputFile(std::filesystem::path path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  // Throws Error(io) with the system's reason, such as a full disk; the temporary file is gone then.
  void write(const void* data, std::uint64_t bytes);
  // Closes and puts the file in its place. Throws Error(io).
  void finish();

  const std::filesystem::path& path() const { return path_; }
  bool open() const { return fd_ >= 0; }

 private:
  void open_nameless();
  void open_beside();
  std::filesystem::path temporary_name(int attempt) const;
  int name_it();
  void discard() noexcept;
  [[noreturn]] void fail(int error);

  std::filesystem::path path_, place_, temporary_;  // place_: path_ without links
  int fd_ = -1;
  bool nameless_ = false;
};

// A whole file at once.
void write_file(const std::filesystem::path& path, std::string_view content);

}  // namespace steelyard
