#include "gguf/split.h"

#include <fmt/format.h>

#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/input_file.h"
#include "base/mapped_file.h"
#include "base/readable.h"
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
  throw_error(ErrorKind::bad_input, "{} is part {} of {} of a split model; open {} instead",
              readable(path.string(), 4096), place.number + 1, place.count, first);
}

// " (1)", as browsers write when the name is taken; 0 bytes where there is none.
std::size_t copy_mark(std::string_view stem) {
  const std::size_t open = stem.rfind(" (");
  if (open == std::string_view::npos || stem.back() != ')') return 0;
  const std::string_view digits = stem.substr(open + 2, stem.size() - open - 3);
  const bool number = !digits.empty() && digits.size() <= 3 &&
                      digits.find_first_not_of("0123456789") == std::string_view::npos;
  return number ? stem.size() - open : 0;
}

// The part beside the first one: under its name, with the first one's mark of a copy, or with another.
std::filesystem::path find_part(const std::filesystem::path& directory, SplitName name, std::uint32_t part) {
  std::error_code ignored;
  const std::string mark = std::exchange(name.mark, "");
  const std::filesystem::path plain = directory / name.file_name(part);
  std::vector<std::string> marks = {mark, ""};
  for (int copy = 1; copy <= 9; ++copy) marks.push_back(fmt::format(" ({})", copy));
  for (std::string& m : marks) {
    name.mark = std::move(m);
    std::filesystem::path path = directory / name.file_name(part);
    if (std::filesystem::exists(path, ignored)) return path;
  }
  throw_error(ErrorKind::not_found, "the model is split in {} parts, and part {} is missing: {}", name.count,
              part, readable(plain.string(), 4096));
}

void check_part(const GgufFile& first, const GgufMetadata& part, std::string_view shown) {
  constexpr const char* kKey = "general.architecture";
  const auto own = part.find_string(kKey), wanted = first.metadata().find_string(kKey);
  if (own && wanted && *own != *wanted)
    throw_error(ErrorKind::bad_input, "{} belongs to another model: its architecture is \"{}\", not \"{}\"",
                shown, readable(*own), readable(*wanted));
}

}  // namespace

std::string SplitName::file_name(std::uint32_t part) const {
  return fmt::format("{}-{:05}-of-{:05}{}.gguf", prefix, part, count, mark);
}

std::optional<SplitName> parse_split_name(std::string_view file_name) {
  constexpr std::string_view kEnding = ".gguf";
  if (!file_name.ends_with(kEnding)) return std::nullopt;
  std::string_view stem = file_name.substr(0, file_name.size() - kEnding.size());
  const std::size_t marked = copy_mark(stem);
  const std::string_view mark = stem.substr(stem.size() - marked);
  stem.remove_suffix(marked);
  constexpr std::size_t kTail = std::string_view("-00001-of-00002").size();
  if (stem.size() <= kTail) return std::nullopt;
  const std::string_view tail = stem.substr(stem.size() - kTail);
  const auto number = five_digits(tail.substr(1, 5));
  const auto count = five_digits(tail.substr(10, 5));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" || !number || !count || *number < 1 || *number > *count)
    return std::nullopt;
  return SplitName{std::string(stem.substr(0, stem.size() - kTail)), *number, *count, std::string(mark)};
}

void GgufReader::open_other_parts(GgufFile& file, const std::filesystem::path& first, std::uint64_t count) {
  const auto name = parse_split_name(first.filename().string());
  if (!name || name->number != 1 || name->count != count) {
    throw_error(
        ErrorKind::bad_input,
        "{} is the first of {} parts, so its name must end in -00001-of-{:05}.gguf to find the others",
        readable(first.string(), 4096), count, count);
  }
  for (std::uint32_t part = 2; part <= count; ++part) {
    const std::filesystem::path path = find_part(first.parent_path(), *name, part);
    const std::string shown = readable(path.string(), 4096);
    const GgufHeader header = append_file(file, path);
    const SplitPlace place = split_place(header.metadata);
    if (place.number + 1 != part || place.count != count) {
      throw_error(ErrorKind::bad_input, "{} says it is part {} of {}, not the part that its name says", shown,
                  place.number + 1, place.count);
    }
    check_part(file, header.metadata, shown);
  }
  const auto expected = file.metadata_.find_uint("split.tensors.count");
  if (expected && *expected != file.tensors_.size()) {
    throw_error(ErrorKind::bad_input, "the {} parts of {} hold {} tensors together, but {} are announced",
                count, readable(first.string(), 4096), file.tensors_.size(), *expected);
  }
}

// Returns the header without its tensors; of the first part, without its metadata too.
GgufHeader GgufReader::append_file(GgufFile& file, const std::filesystem::path& path) {
  const InputFile input = InputFile::open(path);
  const std::string shown = readable(path.string(), 4096);
  HeaderBuffer buffer(input);
  GgufHeader header = GgufReader(buffer, input.size(), shown).read();
  buffer.finish();
  MappedFile mapped = MappedFile::map(input);
  append(file, header, mapped.bytes(), shown);
  file.headers_.push_back(std::move(buffer));
  file.files_.push_back(std::move(mapped));
  file.paths_.push_back(path);
  return header;
}

GgufFile GgufReader::open(const std::filesystem::path& path) {
  GgufFile file;
  append_file(file, path);
  const SplitPlace place = split_place(file.metadata_);
  if (place.number != 0) not_the_first(path, place);
  if (place.count > 1) open_other_parts(file, path, place.count);
  return file;
}

}  // namespace steelyard
