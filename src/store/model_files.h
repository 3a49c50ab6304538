// Finds model files below the store's folders, without opening them. Internal to store/.
#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "store/ollama.h"

namespace steelyard {

// A file of the store, not opened yet.
struct Candidate {
  std::string name;
  std::filesystem::path path;
  std::shared_ptr<const OllamaModel> ollama = nullptr;  // of a folder of Ollama's layout
};

// Every model of the folders and of those in them (LM Studio's publisher/repository/file.gguf, Hugging Face's
// models--X--Y/snapshots/revision/file.gguf; links are followed), and of Ollama's layout (ollama.h), by name;
// of two with the same name the first folder's. Of split models the first part. Hidden folders and picture
// parts (mmproj…) are left out; what can't be read counts as empty.
std::vector<Candidate> find_models(std::span<const std::filesystem::path> folders);

// Without case, where that is ASCII.
std::string lower(std::string_view text);

}  // namespace steelyard
