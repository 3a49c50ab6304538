// The local model store: directories of GGUF files, also nested as LM Studio and Hugging Face nest them,
// named by their stems. Reads only; nothing is cached, so every call sees the directories as they are now.
// Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

struct StoredModel {
  std::string name;  // the file's stem; "-00001-of-0000N" of split models left out
  std::filesystem::path path;
  std::uint64_t bytes = 0;  // all parts
  std::chrono::system_clock::time_point modified;
  std::string digest;  // an id of name, size and time of change: a SHA-256 in hex, not that of the contents
  // From the metadata; empty or 0 when the file can't be read, and `error` says why.
  std::string architecture;
  std::uint64_t parameters = 0;  // weights, counted from the tensors
  std::string quantization;      // "Q4_K_M" by the file's own word, else the type of most weights
  std::string error;
};

class ModelStore {
 public:
  // Earlier directories win; missing ones count as empty.
  explicit ModelStore(std::vector<std::filesystem::path> directories);
  // $STEELYARD_MODELS, several with ':' between, or ${XDG_DATA_HOME:-~/.local/share}/steelyard/models; then
  // ${XDG_CACHE_HOME:-~/.cache}/steelyard/models, where demo.sh keeps what it fetched; then the same two
  // under the program's old name, and, without $STEELYARD_MODELS, Ollama's folder
  // (${OLLAMA_MODELS:-~/.ollama/models}). Those in an unknown home are left out.
  static ModelStore from_environment();

  std::span<const std::filesystem::path> directories() const { return directories_; }

  // All models, by name. A broken file is listed with its error.
  std::vector<StoredModel> list() const;

  // A path to a GGUF file, or a name in the store → the file to open. Names match without case on the stem,
  // exactly or by an unambiguous beginning; "smollm2:135m" means "smollm2" then "135m" (Ollama's name:tag;
  // ":latest" means no tag). Anything with a '/' or the ending .gguf that exists is a path. Throws Error
  // not_found (naming near models) or bad_input (ambiguous, not a name).
  std::filesystem::path resolve(std::string_view model) const;
  // As resolve, but names only: what a server accepts from the network.
  StoredModel find(std::string_view name) const;
  std::filesystem::path find_path(std::string_view name) const;  // without opening the file

  // UTF-8 without control characters and '\', no part hidden or empty, with an optional single '/' part
  // before it (namespace), at most 255 bytes. Any listed name is valid; it is only ever compared, never
  // opened.
  static bool valid_name(std::string_view name);

 private:
  std::vector<std::filesystem::path> directories_;
};

}  // namespace steelyard
