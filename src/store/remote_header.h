// Headers of GGUF files on web servers, read with range requests: what they describe can be planned before
// the tensors' data is downloaded.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace steelyard {

// "http://…" or "https://…".
bool is_url(std::string_view text);

// A directory that goes away with everything in it. Throws Error(io).
class ScratchDirectory {
 public:
  ScratchDirectory();
  ~ScratchDirectory();
  ScratchDirectory(const ScratchDirectory&) = delete;
  ScratchDirectory& operator=(const ScratchDirectory&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// Reads the header of the GGUF file at `url` (and of its other parts, when it is the first of a split model)
// and writes it into `directory` under the file's name, followed by a hole as large as the data. Redirects
// are followed. Throws Error: not_found for HTTP 404, io when the server can't be reached or refuses,
// bad_input when it isn't GGUF.
std::filesystem::path fetch_header(const std::string& url, const std::filesystem::path& directory);

// Bytes up to the end of a GGUF file's tensor directory, of which these are the first; nullopt when the end
// isn't among them. Throws Error(bad_input) when they can't be a GGUF file's, naming `shown`.
std::optional<std::uint64_t> header_bytes(std::span<const std::byte> begin, const std::string& shown);

}  // namespace steelyard
