// Models of the store that a list can't show.
#pragma once

#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "store/store.h"

namespace steelyard::api {

// Leaves out the models that can't be read, and says why: once of each file, and again when it has changed or
// fails otherwise. Thread-safe.
class LeftOut {
 public:
  using Log = std::function<void(const std::string& line)>;
  explicit LeftOut(Log log) : log_(std::move(log)) {}
  std::vector<StoredModel> without(std::vector<StoredModel> models);

 private:
  Log log_;
  std::mutex mutex_;
  std::map<std::filesystem::path, std::string> said_;  // how the file was, and why
};

}  // namespace steelyard::api
