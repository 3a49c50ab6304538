// Keys by which a server tells who may do what: a file of their hashes, so that whoever reads it can't call.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard::api {

enum class KeyRole : std::uint8_t {
  ask,    // use the models
  manage  // change them, too
};

// Immutable, so thread-safe.
class ApiKeys {
 public:
  struct Key {
    std::string hash;  // SHA-256 in hex
    KeyRole role;
    std::string name;  // for the log
  };

  ApiKeys() = default;
  // Lines "HASH ROLE NAME"; empty ones and those that begin with '#' are passed over. Throws Error: not_found
  // or io for the file, bad_input with the line that is wrong, or when there is no key at all.
  static ApiKeys read(const std::filesystem::path& file);
  static ApiKeys parse(std::string_view text, const std::string& shown);

  bool empty() const { return keys_.empty(); }
  // Null: there is no such key. How long it takes doesn't depend on how much of a key is right.
  const Key* find(std::string_view key) const;

 private:
  std::vector<Key> keys_;
};

// The key in a request's headers: "Bearer KEY" or, without that, "x-api-key"; empty: there is none.
std::string_view presented_key(std::string_view authorization, std::string_view x_api_key);

// A new key (256 bits of the system's randomness), and its line for the file. Throws Error: bad_input for a
// name with white space in it, io when the system has no randomness.
struct NewKey {
  std::string key, line;
};
NewKey make_key(KeyRole role, std::string_view name);

}  // namespace steelyard::api
