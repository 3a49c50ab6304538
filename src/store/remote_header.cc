#include "store/remote_header.h"

#define CURL_DISABLE_TYPECHECK  // its macros stand in for functions that are looked up here
#include <curl/curl.h>
#include <dlfcn.h>
#include <stdlib.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/output_file.h"
#include "gguf/gguf.h"
#include "gguf/reader.h"
#include "gguf/split.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t kFirstPiece = 1 << 20, kMostHeader = std::uint64_t{512} << 20;
constexpr long kMostRedirects = 10, kConnectSeconds = 20, kStallSeconds = 60;

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
  std::uint64_t most = 0;   // that are wanted
  std::uint64_t total = 0;  // of the whole file; 0: the server doesn't say
};

std::uint64_t number_in(std::string_view text) {
  while (text.starts_with(' ')) text.remove_prefix(1);
  std::uint64_t value = 0;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

// One line of the answer's head; those of a redirect come first and are replaced.
std::size_t take_head(char* data, std::size_t, std::size_t n, void* to) {
  auto& piece = *static_cast<Piece*>(to);
  std::string line(data, n);
  for (char& c : line)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  if (line.starts_with("http/")) piece.total = 0;
  if (line.starts_with("content-length:") && piece.total == 0)
    piece.total = number_in(std::string_view(line).substr(15));
  if (line.starts_with("content-range:"))
    if (const auto slash = line.find('/'); slash != std::string::npos)
      piece.total = number_in(std::string_view(line).substr(slash + 1));
  return n;
}

// A server that knows no ranges sends everything: what is too much ends the transfer.
std::size_t take_body(char* data, std::size_t, std::size_t n, void* to) {
  auto& piece = *static_cast<Piece*>(to);
  const std::uint64_t wanted = std::min<std::uint64_t>(n, piece.most - piece.bytes.size());
  const auto* bytes = reinterpret_cast<const std::byte*>(data);
  piece.bytes.insert(piece.bytes.end(), bytes, bytes + wanted);
  return wanted;
}

void check_status(long status, const std::string& url) {
  if (status == 404 || status == 410)
    throw_error(ErrorKind::not_found, "there is nothing at {} (HTTP {})", url, status);
  if (status == 401 || status == 403)
    throw_error(ErrorKind::io, "the server doesn't let us read {} (HTTP {})", url, status);
  if (status != 200 && status != 206)
    throw_error(ErrorKind::io, "the server can't give us {} (HTTP {})", url, status);
}

// libcurl, loaded when it is first needed: with what it depends on it would cost every start of the program 7
// MB.
class Curl {
 public:
  static const Curl& instance() {
    static const Curl curl;
    return curl;
  }

  decltype(&curl_easy_init) init;
  decltype(&curl_easy_cleanup) cleanup;
  decltype(&curl_easy_perform) perform;
  decltype(&curl_easy_strerror) strerror;
  // Variadic in C; every call here has one more argument.
  CURLcode (*setopt)(CURL*, CURLoption, ...);
  CURLcode (*getinfo)(CURL*, CURLINFO, ...);

 private:
  Curl() {
    void* library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr)
      throw_error(ErrorKind::unsupported,
                  "reading a header from the web takes libcurl, which can't be loaded ({})", dlerror());
    find(library, "curl_easy_init", init);
    find(library, "curl_easy_cleanup", cleanup);
    find(library, "curl_easy_perform", perform);
    find(library, "curl_easy_strerror", strerror);
    find(library, "curl_easy_setopt", setopt);
    find(library, "curl_easy_getinfo", getinfo);
    decltype(&curl_global_init) start;
    find(library, "curl_global_init", start);
    if (start(CURL_GLOBAL_DEFAULT) != CURLE_OK) throw Error(ErrorKind::internal, "libcurl doesn't start");
  }
  template <typename Fn>
  static void find(void* library, const char* name, Fn& function) {
    function = reinterpret_cast<Fn>(dlsym(library, name));
    if (function == nullptr) throw_error(ErrorKind::unsupported, "this machine's libcurl has no {}", name);
  }
};

class Connection {
 public:
  Connection() : handle_(curl_.init(), curl_.cleanup) {
    if (!handle_) throw Error(ErrorKind::internal, "libcurl doesn't start");
  }

  // The first `most` bytes.
  Piece read(const std::string& url, std::uint64_t most) {
    Piece piece{.most = most};
    const std::string range = fmt::format("0-{}", most - 1);
    char reason[CURL_ERROR_SIZE] = "";
    set_up(url, range, reason, piece);
    const CURLcode result = curl_.perform(handle_.get());
    set(CURLOPT_ERRORBUFFER, static_cast<char*>(nullptr));
    long status = 0;
    curl_.getinfo(handle_.get(), CURLINFO_RESPONSE_CODE, &status);
    const bool enough = result == CURLE_WRITE_ERROR && piece.bytes.size() == most;
    if (result != CURLE_OK && !enough)
      throw_error(ErrorKind::io, "{} can't be read: {}", url, *reason ? reason : curl_.strerror(result));
    check_status(status, url);
    return piece;
  }

 private:
  void set_up(const std::string& url, const std::string& range, char* reason, Piece& piece) {
    set(CURLOPT_URL, url.c_str());
    set(CURLOPT_RANGE, range.c_str());
    set(CURLOPT_FOLLOWLOCATION, 1L);
    set(CURLOPT_MAXREDIRS, kMostRedirects);
    set(CURLOPT_PROTOCOLS_STR, "http,https");
    set(CURLOPT_REDIR_PROTOCOLS_STR, "http,https");
    set(CURLOPT_CONNECTTIMEOUT, kConnectSeconds);
    set(CURLOPT_LOW_SPEED_LIMIT, 1L);
    set(CURLOPT_LOW_SPEED_TIME, kStallSeconds);
    set(CURLOPT_NOSIGNAL, 1L);
    set(CURLOPT_USERAGENT, "steelyard");
    set(CURLOPT_ERRORBUFFER, reason);
    set(CURLOPT_HEADERFUNCTION, take_head);
    set(CURLOPT_HEADERDATA, &piece);
    set(CURLOPT_WRITEFUNCTION, take_body);
    set(CURLOPT_WRITEDATA, &piece);
  }
  template <typename T>
  void set(CURLoption option, T value) {
    curl_.setopt(handle_.get(), option, value);
  }

  const Curl& curl_ = Curl::instance();
  std::unique_ptr<CURL, void (*)(CURL*)> handle_;
};

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

void fetch_part(Connection& connection, const std::string& url, const fs::path& to) {
  for (std::uint64_t most = kFirstPiece;; most = std::min(most * 4, kMostHeader)) {
    const Piece piece = connection.read(url, most);
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
  Connection connection;
  const std::string name = name_in(url);
  fetch_part(connection, url, directory / name);
  const auto split = parse_split_name(name);
  if (split && split->number == 1)
    for (std::uint32_t part = 2; part <= split->count; ++part) {
      const std::string other = split->file_name(part);
      fetch_part(connection, with_name(url, other), directory / other);
    }
  return directory / name;
}

}  // namespace steelyard
