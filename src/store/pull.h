// Pulls a model into a folder of Ollama's layout.
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <string>

#include "store/store_folder.h"

namespace steelyard {

// A step that something long has come to, in Ollama's words.
struct StepProgress {
  std::string status;                 // "pulling manifest", "pulling 0123456789ab", "success"
  std::string digest;                 // of the blob that it is about; else empty
  std::uint64_t total = 0, done = 0;  // of its bytes
};
using OnStep = std::function<void(const StepProgress& step)>;

struct PullOptions {
  bool insecure = false;  // by http
  unsigned connections = 8;
};

// `name` as a user writes it; "http://" before it means `insecure`. A model that is there already is brought
// up to date: only what is missing is fetched. `on_step` is called by this thread. Throws Error: bad_input
// for what is no name, and as registry.h and download.h say.
void pull_model(const StoreFolder& folder, const std::string& name, PullOptions options,
                const OnStep& on_step, std::stop_token stop);

}  // namespace steelyard
