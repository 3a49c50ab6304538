#include "store/model_files.h"

#include <algorithm>
#include <cctype>
#include <set>
#include <system_error>
#include <utility>

#include "base/input_file.h"
#include "base/utf8.h"
#include "gguf/split.h"
#include "store/ollama.h"

namespace steelyard {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxDepth = 5;                  // folders below a store's: Hugging Face's cache needs four
constexpr std::size_t kMaxEntries = 1 << 17;  // looked at in one store, so that a link to / ends

bool is_model_file(const fs::path& path) {
  std::error_code ignored;
  if (lower(path.extension().string()) != ".gguf" || !fs::is_regular_file(path, ignored)) return false;
  const std::string name = path.filename().string();
  if (name.starts_with('.') || lower(name).starts_with("mmproj")) return false;
  const auto part = parse_split_name(name);
  return !part || part->number == 1;
}

class Search {
 public:
  std::vector<fs::path> files(const fs::path& folder) {
    visit(folder, 0);
    std::ranges::sort(found_);
    return std::move(found_);
  }

 private:
  void visit(const fs::path& folder, int depth) {
    const auto identity = file_identity(folder);
    if (!identity || !seen_.emplace(identity->device, identity->inode).second) return;
    std::error_code error, ignored;
    for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
      if (++entries_ > kMaxEntries) return;
      const fs::path& path = it->path();
      if (is_model_file(path))
        found_.push_back(path);
      else if (depth < kMaxDepth && !path.filename().string().starts_with('.') && it->is_directory(ignored))
        visit(path, depth + 1);
    }
  }

  std::vector<fs::path> found_;
  std::set<std::pair<std::uint64_t, std::uint64_t>> seen_;  // folders, so that links in a ring end
  std::size_t entries_ = 0;
};

// What a client can send: valid UTF-8.
std::string model_name(const fs::path& path) {
  const auto part = parse_split_name(path.filename().string());
  return valid_utf8(part ? part->prefix + part->mark : path.stem().string());
}

}  // namespace

std::string lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

std::vector<Candidate> find_models(std::span<const fs::path> folders) {
  std::vector<Candidate> found;
  std::set<std::string> seen;
  const auto add = [&](Candidate candidate) {
    if (seen.insert(lower(candidate.name)).second) found.push_back(std::move(candidate));
  };
  for (const fs::path& folder : folders) {
    if (is_ollama_folder(folder))
      for (OllamaModel& model : ollama_models(folder)) {
        auto there = std::make_shared<const OllamaModel>(std::move(model));
        add({there->name.text(), there->path, there});
      }
    for (const fs::path& path : Search().files(folder)) add({model_name(path), path});
  }
  std::ranges::sort(found, {}, [](const Candidate& c) { return lower(c.name); });
  return found;
}

}  // namespace steelyard
