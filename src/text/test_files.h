// Where tests find files that are too large for the repository.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

namespace steelyard {

inline std::filesystem::path model_file(const char* name) {
  if (const char* dir = std::getenv("STEELYARD_MODELS_DIR")) return std::filesystem::path(dir) / name;
  const char* cache = std::getenv("XDG_CACHE_HOME");
  const char* home = std::getenv("HOME");
  std::filesystem::path base = cache && *cache ? std::filesystem::path(cache)
                                               : std::filesystem::path(home ? home : "/root") / ".cache";
  return base / "steelyard" / "models" / name;
}

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline std::filesystem::path test_data(const std::string& name) {
  return std::filesystem::path(STEELYARD_SOURCE_DIR) / "tests" / "data" / "text" / name;
}

}  // namespace steelyard
