// The local model store: directories of GGUF files, also nested as LM Studio and Hugging Face nest them,
// named by their stems, and directories of Ollama's layout. Nothing is cached, so every call sees the
// directories as they are now. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "store/ollama.h"
#include "store/store_folder.h"

namespace steelyard {

struct StoredModel {
  std::string name;  // the file's stem; "-00001-of-0000N" of split models left out
  std::filesystem::path path;
  std::uint64_t bytes = 0;  // all parts; of Ollama's layout all layers
  std::chrono::system_clock::time_point modified;
  // In hex: of a model of Ollama's layout the SHA-256 of its manifest, as Ollama has it; of others an id of
  // name, size and time of change, since the SHA-256 of its contents would mean reading all of it.
  std::string digest;
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
  // under the program's old name, and, without $STEELYARD_MODELS, the folders of Ollama
  // (${OLLAMA_MODELS:-~/.ollama/models}), Hugging Face (${HF_HUB_CACHE:-${HF_HOME:-…}/hub}), LM Studio
  // (~/.lmstudio/models) and llama.cpp (${LLAMA_CACHE:-~/.cache/llama.cpp}). Those in an unknown home are
  // left out.
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

  // As find_path(), and what the model is of, where it is of Ollama's layout.
  struct Place {
    std::filesystem::path path;
    std::shared_ptr<const OllamaModel> ollama;
  };
  Place stored(std::string_view name) const;
  // What a model of this name brings along beside its weights: of plain files nothing. Throws as find().
  ModelDefaults defaults(std::string_view name) const;

  // Where new models go: the first directory. Throws Error(io) when there is none.
  StoreFolder own() const;
  // Both take whole names, and only models of Ollama's layout: a file that somebody put there is theirs. The
  // model stays in its directory. Throw Error: not_found, bad_input for what is no name, unsupported for a
  // plain file, io.
  // `before` is called just before with the name as it is listed, when no other one leads to the same file.
  void remove(std::string_view name, const std::function<void(const std::string& listed)>& before = {}) const;
  void copy(std::string_view from, std::string_view to) const;

  // UTF-8 without control characters and '\', no part hidden or empty, with at most two '/' parts before it
  // (host and namespace), at most 255 bytes. Any listed name is valid; it is only ever compared, never
  // opened.
  static bool valid_name(std::string_view name);

 private:
  std::vector<std::filesystem::path> directories_;
};

}  // namespace steelyard
