#include "store/store.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <system_error>
#include <utility>

#include "base/edit_distance.h"
#include "base/error.h"
#include "base/readable.h"
#include "base/sha256.h"
#include "base/utf8.h"
#include "gguf/gguf.h"
#include "gguf/summary.h"
#include "store/model_files.h"
#include "store/model_name.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t kMaxNameBytes = 255;  // as file systems have it

// What the program was called before: nobody should have to fetch their models again.
constexpr const char* kOldName = "strata";

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

bool is_there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// "a:b" → {"a", "b"}
std::vector<std::string> split_folders(const std::string& text) {
  std::vector<std::string> folders;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find(':', at), text.size());
    if (end > at) folders.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return folders;
}

StoredModel describe(const Candidate& candidate) {
  StoredModel model{.name = candidate.name, .path = candidate.path};
  std::error_code ignored;
  model.bytes = fs::file_size(candidate.path, ignored);
  if (ignored) model.bytes = 0;
  const auto written =
      fs::last_write_time(candidate.ollama ? candidate.ollama->manifest : candidate.path, ignored);
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
  } catch (const std::exception& error) {  // whatever is wrong with one file, the others are still listed
    model.error = error.what();
  }
  if (candidate.ollama) {
    model.digest = candidate.ollama->digest;
    if (model.error.empty()) model.bytes = candidate.ollama->parts.bytes();
  } else {
    model.digest = sha256_hex(
        fmt::format("{}\n{}\n{}", model.name, model.bytes, model.modified.time_since_epoch().count()));
  }
  return model;
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

// The model of this whole name, however it is spelt ("llama3.2" is
// registry.ollama.ai/library/llama3.2:latest).
const Candidate* named(std::span<const Candidate> all, std::string_view asked) {
  const std::string whole = lower(asked);
  for (const Candidate& c : all)
    if (lower(c.name) == whole) return &c;
  const auto parsed = parse_model_name(asked);
  if (!parsed) return nullptr;
  const std::string text = lower(parsed->text());
  for (const Candidate& c : all)
    if (c.ollama && lower(c.name) == text) return &c;
  return nullptr;
}

// The models that the text may mean: one when it is a whole name or an unambiguous beginning.
std::vector<Candidate> matching(std::span<const Candidate> all, std::string_view asked) {
  if (const Candidate* whole = named(all, asked)) return {*whole};
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
    throw_error(ErrorKind::bad_input, "'{}' may mean {}; give more of the name", readable(asked),
                fmt::join(names, " or "));
  }
  names = near_names(all, parse_wanted(asked).name);
  if (!names.empty()) {
    throw_error(ErrorKind::not_found, "there is no model '{}'; did you mean {}?", readable(asked),
                fmt::join(names, " or "));
  }
  if (directories.empty()) throw_error(ErrorKind::not_found, "there is no model '{}'", readable(asked));
  std::vector<std::string> places;
  for (const fs::path& directory : directories)
    if (is_there(directory)) places.push_back(readable(directory.string(), 4096));
  if (places.empty()) places.push_back(readable(directories[0].string(), 4096));
  throw_error(ErrorKind::not_found, "there is no model '{}': it is neither a file nor a model in {}",
              readable(asked), fmt::join(places, " or "));
}

Candidate pick_valid(std::string_view name, std::span<const fs::path> directories) {
  if (!ModelStore::valid_name(name))
    throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(name));
  // Who asks over the network isn't told where models lie.
  return pick(find_models(directories), name, {});
}

// The model of Ollama's layout of this whole name; it can be changed.
std::shared_ptr<const OllamaModel> pick_changeable(std::string_view name, std::span<const Candidate> all) {
  if (!ModelStore::valid_name(name))
    throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(name));
  const Candidate* found = named(all, name);
  if (!found) throw_error(ErrorKind::not_found, "there is no model '{}'", readable(name));
  if (!found->ollama)
    throw_error(ErrorKind::unsupported,
                "'{}' is a plain file that Steelyard didn't pull or make, so it isn't changed here: "
                "`steelyard list --json` says where it lies",
                readable(name));
  return found->ollama;
}

// Text that can't be a name in the store, or that says it is a file.
bool looks_like_path(std::string_view text) {
  return lower(fs::path(text).extension().string()) == ".gguf" || !ModelStore::valid_name(text);
}

}  // namespace

ModelStore::ModelStore(std::vector<fs::path> directories) : directories_(std::move(directories)) {}

ModelStore ModelStore::from_environment() {
  const fs::path home = environment("HOME");
  std::vector<fs::path> folders;
  // `below` the folder that a variable names, or that lies in the home; nowhere when neither is known.
  const auto add = [&](const char* variable, const char* in_home, const fs::path& below) {
    const std::string value = environment(variable);
    if (!value.empty())
      folders.push_back(value / below);
    else if (!home.empty())
      folders.push_back(home / in_home / below);
  };
  const auto add_xdg = [&](const char* variable, const char* in_home, const char* program) {
    add(variable, in_home, fs::path(program) / "models");
  };
  const std::vector<std::string> own = split_folders(environment("STEELYARD_MODELS"));
  folders.insert(folders.end(), own.begin(), own.end());
  if (own.empty()) add_xdg("XDG_DATA_HOME", ".local/share", "steelyard");
  add_xdg("XDG_CACHE_HOME", ".cache", "steelyard");
  if (own.empty()) add_xdg("XDG_DATA_HOME", ".local/share", kOldName);
  add_xdg("XDG_CACHE_HOME", ".cache", kOldName);
  if (own.empty()) {
    add("OLLAMA_MODELS", ".ollama/models", {});
    if (!environment("HF_HUB_CACHE").empty())
      add("HF_HUB_CACHE", "", {});
    else
      add("HF_HOME", ".cache/huggingface", "hub");
    if (!home.empty()) folders.push_back(home / ".lmstudio/models");
    add("LLAMA_CACHE", ".cache/llama.cpp", {});
  }
  return ModelStore(std::move(folders));
}

std::vector<StoredModel> ModelStore::list() const {
  std::vector<StoredModel> models;
  for (const Candidate& candidate : find_models(directories_)) models.push_back(describe(candidate));
  return models;
}

bool ModelStore::valid_name(std::string_view name) {
  if (name.empty() || name.size() > kMaxNameBytes || valid_prefix(name) != name.size()) return false;
  // Parts may not be empty or hidden.
  std::size_t slashes = 0;
  bool part_starts = true;
  for (const char c : name) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte == 0x7f || c == '\\') return false;
    if (part_starts && (c == '.' || c == '/' || c == ':' || c == '~')) return false;
    if (c == '/' && ++slashes > 2) return false;
    part_starts = c == '/' || c == ':';
  }
  return !part_starts;
}

fs::path ModelStore::resolve(std::string_view model) const {
  if (model.empty()) throw_error(ErrorKind::bad_input, "the model's name is empty");
  const fs::path path(model);
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return path;
  const std::vector<Candidate> all = find_models(directories_);
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

StoredModel ModelStore::find(std::string_view name) const { return describe(pick_valid(name, directories_)); }

ModelStore::Place ModelStore::stored(std::string_view name) const {
  Candidate found = pick_valid(name, directories_);
  return {std::move(found.path), std::move(found.ollama)};
}

ModelDefaults ModelStore::defaults(std::string_view name) const {
  const Candidate found = pick_valid(name, directories_);
  return found.ollama ? defaults_of(*found.ollama) : ModelDefaults();
}

StoreFolder ModelStore::own() const {
  if (directories_.empty())
    throw Error(ErrorKind::io, "there is no folder for models: set STEELYARD_MODELS to one");
  return StoreFolder(directories_[0]);
}

void ModelStore::remove(std::string_view name,
                        const std::function<void(const std::string& listed)>& before) const {
  const std::vector<Candidate> all = find_models(directories_);
  const auto model = pick_changeable(name, all);
  if (before && std::ranges::count(all, model->path, &Candidate::path) == 1) before(model->name.text());
  StoreFolder(model->folder).remove(model->name);
}

void ModelStore::copy(std::string_view from, std::string_view to) const {
  const auto model = pick_changeable(from, find_models(directories_));
  const auto name = parse_model_name(to);
  if (!name) throw_error(ErrorKind::bad_input, "'{}' is not a model's name", readable(to));
  StoreFolder(model->folder).copy(model->name, *name);
}

fs::path ModelStore::find_path(std::string_view name) const { return pick_valid(name, directories_).path; }

}  // namespace steelyard
