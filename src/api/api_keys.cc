#include "api/api_keys.h"

#include <sys/random.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <span>
#include <sstream>
#include <utility>

#include "base/error.h"
#include "base/input_file.h"
#include "base/sha256.h"

namespace steelyard::api {
namespace {

constexpr std::uint64_t kMostBytes = 1 << 20;
constexpr std::size_t kHashDigits = 64;

bool is_hash(std::string_view text) {
  return text.size() == kHashDigits && text.find_first_not_of("0123456789abcdef") == text.npos;
}

bool is_key_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 &&
         std::ranges::all_of(text, [](char c) { return c > 0x20 && c < 0x7f; });
}

// All of both, whatever differs.
bool same_hash(std::string_view a, std::string_view b) {
  unsigned difference = 0;
  for (std::size_t i = 0; i < kHashDigits; ++i)
    difference |= static_cast<unsigned char>(a[i]) ^ static_cast<unsigned char>(b[i]);
  return difference == 0;
}

ApiKeys::Key parse_line(const std::string& line, const std::string& where) {
  std::istringstream words(line);
  std::string hash, role, name, more;
  words >> hash >> role >> name;
  if (!is_hash(hash) || (role != "ask" && role != "manage") || !is_key_name(name) || words >> more)
    throw_error(
        ErrorKind::bad_input,
        "{} isn't \"SHA256 ROLE NAME\" with the role ask or manage; `steelyard key` writes such lines",
        where);
  return {std::move(hash), role == "ask" ? KeyRole::ask : KeyRole::manage, std::move(name)};
}

}  // namespace

ApiKeys ApiKeys::parse(std::string_view text, const std::string& shown) {
  ApiKeys keys;
  std::istringstream lines{std::string(text)};
  std::size_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const std::size_t begin = line.find_first_not_of(" \t\r");
    if (begin == line.npos || line[begin] == '#') continue;
    keys.keys_.push_back(parse_line(line, fmt::format("line {} of {}", number, shown)));
  }
  if (keys.empty()) throw_error(ErrorKind::bad_input, "{} has no key: `steelyard key` makes one", shown);
  return keys;
}

ApiKeys ApiKeys::read(const std::filesystem::path& path) {
  const InputFile file = InputFile::open(path);
  if (file.size() > kMostBytes) throw_error(ErrorKind::bad_input, "{} is no list of keys", path.string());
  std::string text(file.size(), '\0');
  file.read(0, std::as_writable_bytes(std::span(text)));
  return parse(text, path.string());
}

const ApiKeys::Key* ApiKeys::find(std::string_view key) const {
  const std::string hash = sha256_hex(key);
  const Key* found = nullptr;
  for (const Key& k : keys_)
    if (same_hash(k.hash, hash)) found = &k;
  return found;
}

std::string_view presented_key(std::string_view authorization, std::string_view x_api_key) {
  constexpr std::string_view kScheme = "bearer ";
  const bool bearer =
      authorization.size() > kScheme.size() &&
      std::equal(kScheme.begin(), kScheme.end(), authorization.begin(), [](char wanted, char c) {
        return wanted == (c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c);
      });
  if (!bearer) return x_api_key;
  authorization.remove_prefix(kScheme.size());
  while (authorization.starts_with(' ')) authorization.remove_prefix(1);
  return authorization;
}

NewKey make_key(KeyRole role, std::string_view name) {
  if (!is_key_name(name))
    throw_error(ErrorKind::bad_input, "a key's name is up to 64 letters, digits and signs without spaces");
  std::array<unsigned char, 32> random{};
  if (getrandom(random.data(), random.size(), 0) != static_cast<ssize_t>(random.size()))
    throw_error(ErrorKind::io, "the system gives no random bytes: {}", std::strerror(errno));
  NewKey made;
  made.key = "sk-";
  for (const unsigned char byte : random) made.key += fmt::format("{:02x}", byte);
  made.line = fmt::format("{} {} {}\n", sha256_hex(made.key), role == KeyRole::ask ? "ask" : "manage", name);
  return made;
}

}  // namespace steelyard::api
