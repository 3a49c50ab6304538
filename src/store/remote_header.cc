#include "store/remote_header.h"

#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"
#include "gguf/gguf.h"
#include "gguf/reader.h"
#include "gguf/split.h"
#include "store/web_client.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kFirstPiece = 1 << 20, kMostHeader = std::uint64_t{512} << 20;

// ---- where a header ends ----

// Thrown when the bytes end before the header does.
struct NeedsMore {};

class HeaderWalk {
 public:
  HeaderWalk(std::span<const std::byte> bytes, const std::string& shown) : bytes_(bytes), shown_(shown) {}

  std::uint64_t end() {
    const std::size_t given = std::min<std::size_t>(bytes_.size(), 4);
    if (std::memcmp(bytes_.data(), "GGUF", given) != 0) fail("it doesn't begin with GGUF");
    skip(4);
    const auto version = number<std::uint32_t>();
    if (version != 2 && version != 3) fail(fmt::format("its version is {}", version));
    const auto tensors = number<std::uint64_t>(), entries = number<std::uint64_t>();
    for (std::uint64_t i = 0; i < entries; ++i) {
      text();
      value(number<std::uint32_t>(), 0);
    }
    for (std::uint64_t i = 0; i < tensors; ++i) {
      text();
      const auto dimensions = number<std::uint32_t>();
      if (dimensions > 8) fail("a tensor has too many dimensions");
      skip(8 * std::uint64_t{dimensions} + 4 + 8);
    }
    return at_;
  }

 private:
  [[noreturn]] void fail(std::string_view why) const {
    throw_error(ErrorKind::bad_input, "{} is not a GGUF file: {}", shown_, why);
  }
  void skip(std::uint64_t n) {
    if (n > kMostHeader) fail("something in its header is larger than any header");
    if (n > bytes_.size() - at_) throw NeedsMore{};
    at_ += n;
  }
  template <typename T>
  T number() {
    const std::uint64_t begin = at_;
    skip(sizeof(T));
    T value;
    std::memcpy(&value, bytes_.data() + begin, sizeof(T));
    return value;
  }
  void text() { skip(number<std::uint64_t>()); }
  void value(std::uint32_t type, int depth) {
    if (type > static_cast<std::uint32_t>(GgufType::f64) || depth > 8) fail("its metadata makes no sense");
    if (static_cast<GgufType>(type) == GgufType::string) return text();
    if (static_cast<GgufType>(type) != GgufType::array)
      return skip(gguf_type_bytes(static_cast<GgufType>(type)));
    const auto element = number<std::uint32_t>();
    const auto count = number<std::uint64_t>();
    if (count > kMostHeader) fail("an array is larger than any header");
    const bool plain = element <= static_cast<std::uint32_t>(GgufType::f64) &&
                       static_cast<GgufType>(element) != GgufType::string &&
                       static_cast<GgufType>(element) != GgufType::array;
    if (plain) return skip(count * gguf_type_bytes(static_cast<GgufType>(element)));
    for (std::uint64_t i = 0; i < count; ++i) value(element, depth + 1);
  }

  std::span<const std::byte> bytes_;
  const std::string& shown_;
  std::uint64_t at_ = 0;
};

// ---- HTTP ----

struct Piece {
  std::vector<std::byte> bytes;
  std::uint64_t total = 0;  // of the whole file; 0: the server doesn't say
};

void check_status(long status, const std::string& url) {
  if (status == 404 || status == 410)
    throw_error(ErrorKind::not_found, "there is nothing at {} (HTTP {})", url, status);
  if (status == 401 || status == 403)
    throw_error(ErrorKind::io, "the server doesn't let us read {} (HTTP {})", url, status);
  if (status != 200 && status != 206)
    throw_error(ErrorKind::io, "the server can't give us {} (HTTP {})", url, status);
}

// The first `most` bytes. A server that knows no ranges sends everything: what is too much ends the transfer.
Piece read(WebClient& client, const std::string& url, std::uint64_t most) {
  Piece piece;
  const WebRequest request{.url = url, .headers = {fmt::format("Range: bytes=0-{}", most - 1)}};
  const WebResponse response = client.get(request, [&](const WebResponse&, std::span<const std::byte> more) {
    const auto wanted = std::min<std::uint64_t>(more.size(), most - piece.bytes.size());
    piece.bytes.insert(piece.bytes.end(), more.begin(), more.begin() + static_cast<std::ptrdiff_t>(wanted));
    return wanted == more.size();
  });
  if (!response.failure.empty()) throw_error(ErrorKind::io, "{} can't be read: {}", url, response.failure);
  check_status(response.status, url);
  piece.total = response.total().value_or(0);
  return piece;
}

// The file's name in a URL, without query and fragment.
std::string name_in(const std::string& url) {
  const std::string path = url.substr(0, url.find_first_of("?#"));
  std::string name = path.substr(path.rfind('/') + 1);
  if (name.empty() || name == "." || name == ".." || name.size() > 200) name = "model.gguf";
  return name;
}

std::string with_name(const std::string& url, const std::string& name) {
  const std::size_t end = std::min(url.find_first_of("?#"), url.size());
  return url.substr(0, url.rfind('/', end) + 1) + name + url.substr(end);
}

// A header and a hole instead of data: the hole takes no space.
void write_with_hole(const fs::path& path, std::span<const std::byte> header, std::uint64_t total) {
  write_file(path, {reinterpret_cast<const char*>(header.data()), header.size()});
  std::error_code failed;
  fs::resize_file(path, total, failed);
  if (failed)
    throw_error(ErrorKind::io, "{} can't stand in for {} bytes: {}", path.string(), total, failed.message());
}

void fetch_part(WebClient& client, const std::string& url, const fs::path& to) {
  for (std::uint64_t most = kFirstPiece;; most = std::min(most * 4, kMostHeader)) {
    const Piece piece = read(client, url, most);
    if (piece.bytes.empty()) throw_error(ErrorKind::bad_input, "{} is not a GGUF file: it is empty", url);
    if (const auto end = header_bytes(piece.bytes, url)) {
      if (piece.total < *end) throw_error(ErrorKind::io, "the server doesn't say how large {} is", url);
      return write_with_hole(to, std::span(piece.bytes).first(*end), piece.total);
    }
    if (piece.bytes.size() < most || most == kMostHeader)
      throw_error(ErrorKind::bad_input, "{} is not a whole GGUF file: it ends within its header", url);
  }
}

}  // namespace

bool is_url(std::string_view text) { return text.starts_with("http://") || text.starts_with("https://"); }

ScratchDirectory::ScratchDirectory() {
  std::error_code failed;
  const fs::path where = fs::temp_directory_path(failed);
  std::string name = ((failed ? fs::path("/tmp") : where) / "steelyard-XXXXXX").string();
  if (mkdtemp(name.data()) == nullptr)
    throw_error(ErrorKind::io, "no directory can be made in {}: {}", where.string(), std::strerror(errno));
  path_ = name;
}

ScratchDirectory::~ScratchDirectory() {
  std::error_code ignored;
  fs::remove_all(path_, ignored);
}

std::optional<std::uint64_t> header_bytes(std::span<const std::byte> begin, const std::string& shown) {
  try {
    return HeaderWalk(begin, shown).end();
  } catch (const NeedsMore&) {
    return std::nullopt;
  }
}

fs::path fetch_header(const std::string& url, const fs::path& directory) {
  WebClient client;
  const std::string name = name_in(url);
  fetch_part(client, url, directory / name);
  const auto split = parse_split_name(name);
  if (split && split->number == 1)
    for (std::uint32_t part = 2; part <= split->count; ++part) {
      const std::string other = split->file_name(part);
      fetch_part(client, with_name(url, other), directory / other);
    }
  return directory / name;
}

}  // namespace steelyard
