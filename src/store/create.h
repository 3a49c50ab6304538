// Makes a model in a store: of another one or of a GGUF file, with what it is to bring along.
#pragma once

#include <filesystem>
#include <optional>
#include <stop_token>
#include <string>
#include <vector>

#include "store/pull.h"
#include "store/store.h"

namespace steelyard {

struct NewModel {
  std::string name;
  // What it is made of, one of these: a model's name, a blob of the store's own folder, or a file (which only
  // the command line may name).
  std::string from, digest;
  std::filesystem::path file;
  // In place of what the other model brings along; of parameters only those that are named.
  std::optional<std::string> chat_template, system;
  std::vector<std::string> licenses;
  std::string parameters, messages;  // JSON, or empty
  std::string quantize;              // a type such as "q4_k_m"; empty: as it is
  unsigned threads = 1;
};

// Throws Error: bad_input for names, types and files that make no sense, not_found, unsupported (split files,
// files in parts), io, cancelled.
void create_model(const ModelStore& store, const NewModel& wanted, const OnStep& on_step,
                  std::stop_token stop);

}  // namespace steelyard
