#include "store/store.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <set>
#include <system_error>
#include <utility>

#include "base/error.h"
#include "base/readable.h"
#include "base/sha256.h"
#include "gguf/gguf.h"
#include "gguf/split.h"
#include "gguf/summary.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxNameBytes = 200;

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// Model files of a directory, sorted; other parts of split models left out. Unreadable directories count as
// empty.
std::vector<fs::path> model_files(const fs::path& directory) {
  std::vector<fs::path> files;
  std::error_code error;
  for (fs::directory_iterator it(directory, error), end; !error && it != end; it.increment(error)) {
    const fs::path& path = it->path();
    std::error_code ignored;
    if (lower(path.extension().string()) != ".gguf" || !fs::is_regular_file(path, ignored)) continue;
    const auto part = parse_split_name(path.filename().string());
    if (!part || part->number == 1) files.push_back(path);
  }
  std::ranges::sort(files);
  return files;
}

std::string model_name(const fs::path& path) {
  const auto part = parse_split_name(path.filename().string());
  return part ? part->prefix : path.stem().string();
}

// A file of the store, not opened yet.
struct Candidate {
  std::string name;
  fs::path path;
};

// By name, the first directory's file where two have the same.
std::vector<Candidate> candidates(std::span<const fs::path> directories) {
  std::vector<Candidate> found;
  std::set<std::string> seen;
  for (const fs::path& directory : directories)
    for (fs::path& path : model_files(directory))
      if (std::string name = model_name(path); seen.insert(lower(name)).second)
        found.push_back({std::move(name), std::move(path)});
  std::ranges::sort(found, {}, [](const Candidate& c) { return lower(c.name); });
  return found;
}

StoredModel describe(const Candidate& candidate) {
  StoredModel model{.name = candidate.name, .path = candidate.path};
  std::error_code ignored;
  model.bytes = fs::file_size(candidate.path, ignored);
  if (ignored) model.bytes = 0;
  const auto written = fs::last_write_time(candidate.path, ignored);
  if (!ignored) {
    model.modified = std::chrono::time_point_cast<std::chrono::system_clock::duration>(
        std::chrono::file_clock::to_sys(written));
  }
  try {
    const GgufFile file = GgufFile::open(candidate.path);
    model.bytes = file.total_bytes();
    model.architecture = file.metadata().require_string("general.architecture");
    model.parameters = parameter_count(file);
    model.quantization = quantization_name(file);
  } catch (const Error& error) {
    model.error = error.what();
  }
  model.digest = sha256_hex(
      fmt::format("{}\n{}\n{}", model.name, model.bytes, model.modified.time_since_epoch().count()));
  return model;
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = std::exchange(row[0], i + 1);
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replaced, diagonal + 1, row[j] + 1});
    }
  }
  return row[b.size()];
}

// Names that the asker may have meant: as close as a third of the letters, comparing beginnings of equal
// length.
std::vector<std::string> near_names(std::span<const Candidate> all, std::string_view wanted) {
  std::vector<std::pair<std::size_t, std::string>> scored;
  for (const Candidate& c : all) {
    const std::string name = lower(c.name);
    const bool inside = name.find(wanted) != std::string::npos;
    const std::size_t distance = inside ? 0 : edit_distance(name.substr(0, wanted.size()), wanted);
    if (distance <= std::max<std::size_t>(1, wanted.size() / 3)) scored.emplace_back(distance, c.name);
  }
  std::ranges::stable_sort(scored, {}, [](const auto& s) { return s.first; });
  std::vector<std::string> names;
  for (auto& [distance, name] : scored)
    if (names.size() < 5) names.push_back(std::move(name));
  return names;
}

// "name:tag" → {"name", "tag"}; ":latest" is no tag.
struct Wanted {
  std::string name, tag;
};
Wanted parse_wanted(std::string_view text) {
  const std::size_t slash = text.rfind('/');
  if (slash != std::string_view::npos) text.remove_prefix(slash + 1);  // a namespace: local files have none
  const std::size_t colon = text.find(':');
  Wanted wanted{lower(text.substr(0, colon)), ""};
  if (colon != std::string_view::npos) wanted.tag = lower(text.substr(colon + 1));
  if (wanted.tag == "latest") wanted.tag.clear();
  return wanted;
}

// The name must start with the wanted one; the tag may follow anywhere, at the start of a part.
bool matches(std::string_view name, const Wanted& wanted) {
  if (!name.starts_with(wanted.name)) return false;
  for (std::size_t at = wanted.name.size(); !wanted.tag.empty();) {
    at = name.find(wanted.tag, at);
    if (at == std::string_view::npos) return false;
    if (at == 0 || std::isalnum(static_cast<unsigned char>(name[at - 1])) == 0) break;
    ++at;
  }
  return true;
}

// The models that the text may mean: one when it is a whole name or an unambiguous beginning.
std::vector<Candidate> matching(std::span<const Candidate> all, std::string_view asked) {
  const Wanted wanted = parse_wanted(asked);
  std::vector<Candidate> found;
  for (const Candidate& c : all) {
    const std::string name = lower(c.name);
    if (name == wanted.name + (wanted.tag.empty() ? "" : "-" + wanted.tag)) return {c};
    if (matches(name, wanted)) found.push_back(c);
  }
  return found;
}

Candidate pick(std::span<const Candidate> all, std::string_view asked,
               std::span<const fs::path> directories) {
  std::vector<Candidate> found = matching(all, asked);
  if (found.size() == 1) return std::move(found[0]);
  std::vector<std::string> names;
  for (const Candidate& c : found) names.push_back(c.name);
  if (found.size() > 1) {
    throw_error(ErrorKind::bad_input, "'{}' may mean {}; give more of the name", asked,
                fmt::join(names, " or "));
  }
  names = near_names(all, parse_wanted(asked).name);
  if (!names.empty()) {
    throw_error(ErrorKind::not_found, "there is no model '{}'; did you mean {}?", asked,
                fmt::join(names, " or "));
  }
  if (directories.empty()) throw_error(ErrorKind::not_found, "there is no model '{}'", readable(asked));
  std::vector<std::string> places;
  for (const fs::path& directory : directories) places.push_back(directory.string());
  throw_error(ErrorKind::not_found, "there is no model '{}': it is neither a file nor a model in {}", asked,
              fmt::join(places, " or "));
}

// Text that can't be a name in the store, or that says it is a file.
bool looks_like_path(std::string_view text) {
  return lower(fs::path(text).extension().string()) == ".gguf" || !ModelStore::valid_name(text);
}

}  // namespace

ModelStore::ModelStore(std::vector<fs::path> directories) : directories_(std::move(directories)) {}

ModelStore ModelStore::from_environment() {
  const fs::path home = environment("HOME");
  const auto or_home = [&](const char* variable, const char* fallback) {
    const std::string value = environment(variable);
    return value.empty() ? home / fallback : fs::path(value);
  };
  const std::string own = environment("STEELYARD_MODELS");
  return ModelStore(
      {own.empty() ? or_home("XDG_DATA_HOME", ".local/share") / "steelyard" / "models" : fs::path(own),
       or_home("XDG_CACHE_HOME", ".cache") / "steelyard" / "models"});
}

std::vector<StoredModel> ModelStore::list() const {
  std::vector<StoredModel> models;
  for (const Candidate& candidate : candidates(directories_)) models.push_back(describe(candidate));
  return models;
}

bool ModelStore::valid_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || name.find("..") != std::string_view::npos) return false;
  std::size_t slashes = 0;
  bool part_starts = true;  // parts may not be empty or hidden
  for (const char c : name) {
    const bool letter = std::isalnum(static_cast<unsigned char>(c)) != 0;
    if (!letter && (part_starts || (c != '.' && c != '_' && c != '-' && c != ':' && c != '/'))) return false;
    if (c == '/' && ++slashes > 1) return false;
    part_starts = c == '/' || c == ':';
  }
  return !part_starts;
}

fs::path ModelStore::resolve(std::string_view model) const {
  if (model.empty()) throw_error(ErrorKind::bad_input, "the model's name is empty");
  const fs::path path(model);
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return path;
  const std::vector<Candidate> all = candidates(directories_);
  if (!looks_like_path(model) && (!fs::exists(path, ignored) || !matching(all, model).empty()))
    return pick(all, model, directories_).path;
  for (const Candidate& c : all)
    if (lower(c.path.filename().string()) == lower(model)) return c.path;
  if (fs::is_directory(path, ignored)) {
    throw_error(ErrorKind::bad_input, "{} is a directory, not a model file", readable(model));
  }
  if (fs::exists(path, ignored)) return path;  // a pipe, say: opening it tells what is wrong
  throw_error(ErrorKind::not_found, "there is no file {}", readable(model));
}

StoredModel ModelStore::find(std::string_view name) const {
  if (!valid_name(name)) throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(name));
  // Who asks over the network isn't told where models lie.
  return describe(pick(candidates(directories_), name, {}));
}

}  // namespace steelyard
