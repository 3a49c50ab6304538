#include "gguf/split.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>

#include "base/error.h"
#include "base/mapped_file.h"
#include "gguf/reader.h"

namespace steelyard {
namespace {

std::optional<std::uint32_t> five_digits(std::string_view text) {
  std::uint32_t value = 0;
  for (const char c : text) {
    if (c < '0' || c > '9') return std::nullopt;
    value = value * 10 + static_cast<std::uint32_t>(c - '0');
  }
  return value;
}

// The part's place as its metadata says; files that aren't split are part 0 of 1.
struct SplitPlace {
  std::uint64_t number, count;
};
SplitPlace split_place(const GgufMetadata& metadata) {
  return {metadata.find_uint("split.no", 65535).value_or(0),
          metadata.find_uint("split.count", 65535).value_or(1)};
}

[[noreturn]] void not_the_first(const std::filesystem::path& path, const SplitPlace& place) {
  const auto name = parse_split_name(path.filename().string());
  const std::string first = name ? (path.parent_path() / name->file_name(1)).string() : "its part number 1";
  throw_error(ErrorKind::bad_input, "{} is part {} of {} of a split model; open {} instead", path.string(),
              place.number + 1, place.count, first);
}

}  // namespace

std::string SplitName::file_name(std::uint32_t part) const {
  return fmt::format("{}-{:05}-of-{:05}.gguf", prefix, part, count);
}

std::optional<SplitName> parse_split_name(std::string_view file_name) {
  constexpr std::size_t kTail = std::string_view("-00001-of-00002.gguf").size();
  if (file_name.size() <= kTail) return std::nullopt;
  const std::string_view tail = file_name.substr(file_name.size() - kTail);
  const auto number = five_digits(tail.substr(1, 5));
  const auto count = five_digits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || tail.substr(15) != ".gguf" || !number || !count ||
      *number < 1 || *number > *count) {
    return std::nullopt;
  }
  return SplitName{std::string(file_name.substr(0, file_name.size() - kTail)), *number, *count};
}

void GgufReader::open_other_parts(GgufFile& file, const std::filesystem::path& first, std::uint64_t count) {
  const auto name = parse_split_name(first.filename().string());
  if (!name || name->number != 1 || name->count != count) {
    throw_error(
        ErrorKind::bad_input,
        "{} is the first of {} parts, so its name must end in -00001-of-{:05}.gguf to find the others",
        first.string(), count, count);
  }
  for (std::uint32_t part = 2; part <= count; ++part) {
    const std::filesystem::path path = first.parent_path() / name->file_name(part);
    if (!std::filesystem::exists(path)) {
      throw_error(ErrorKind::not_found, "the model is split in {} parts, and part {} is missing: {}", count,
                  part, path.string());
    }
    MappedFile mapped = MappedFile::open(path);
    const std::string shown = path.string();
    GgufHeader header = GgufReader(mapped.bytes(), shown).read();
    const SplitPlace place = split_place(header.metadata);
    if (place.number + 1 != part || place.count != count) {
      throw_error(ErrorKind::bad_input, "{} says it is part {} of {}, not the part that its name says", shown,
                  place.number + 1, place.count);
    }
    append(file, std::move(header), mapped.bytes(), shown);
    file.files_.push_back(std::move(mapped));
    file.paths_.push_back(path);
  }
  const auto expected = file.metadata_.find_uint("split.tensors.count");
  if (expected && *expected != file.tensors_.size()) {
    throw_error(ErrorKind::bad_input, "the {} parts of {} hold {} tensors together, but {} are announced",
                count, first.string(), file.tensors_.size(), *expected);
  }
}

GgufFile GgufReader::open(const std::filesystem::path& path) {
  GgufFile file;
  MappedFile mapped = MappedFile::open(path);
  const std::string shown = path.string();
  append(file, GgufReader(mapped.bytes(), shown).read(), mapped.bytes(), shown);
  file.files_.push_back(std::move(mapped));
  file.paths_.push_back(path);
  const SplitPlace place = split_place(file.metadata_);
  if (place.number != 0) not_the_first(path, place);
  if (place.count > 1) open_other_parts(file, path, place.count);
  return file;
}

}  // namespace steelyard
