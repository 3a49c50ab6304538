// Names of the parts of split GGUF files: name-%05d-of-%05d.gguf, counted from 1; browsers put " (1)" before
// the ending when they save a file a second time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace steelyard {

struct SplitName {
  std::string prefix;        // "name"
  std::uint32_t number = 0;  // from 1
  std::uint32_t count = 0;
  std::string mark = {};  // " (1)", or nothing

  std::string file_name(std::uint32_t part) const;  // part counted from 1, with the same mark
};

// nullopt when the file name isn't that of a part.
std::optional<SplitName> parse_split_name(std::string_view file_name);

}  // namespace steelyard
