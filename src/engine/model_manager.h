// The models a server holds: loaded on first use, kept for a while, unloaded when idle. Thread-safe. Loading
// one model blocks only the requests for that model.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/error.h"
#include "device/devices.h"
#include "engine/loaded_model.h"

namespace steelyard {

// How a manager sees the world; each may be called from several threads.
struct ModelEvents {
  std::function<void(const PreparedModel& model)> planned;  // before loading
  std::function<void(const std::string& name, std::uint64_t done, std::uint64_t total)> progress;
  std::function<void(const LoadedModel& model)> loaded;
  std::function<void(const std::string& name)> unloaded;
};

// Negative: for ever.
using KeepAlive = std::chrono::nanoseconds;
inline constexpr KeepAlive kDefaultKeepAlive = std::chrono::minutes(5);

class ModelManager {
 public:
  // Name → file to open; throws Error(not_found).
  using Resolve = std::function<std::filesystem::path(std::string_view name)>;
  // Makes the model; tests give their own, else it is prepared and loaded as `options` say.
  using Load = std::function<std::shared_ptr<const LoadedModel>(const std::filesystem::path&)>;

  ModelManager(Resolve resolve, ModelOptions options, ModelEvents events = {},
               KeepAlive keep_alive = kDefaultKeepAlive, Load load = {});
  // Waits for loads; models live on as long as somebody holds them.
  ~ModelManager();

  struct Lease {
    std::shared_ptr<const LoadedModel> model;
    std::int64_t load_ns = 0;  // how long this call waited for loading
  };
  // Loads when needed; several callers for one file share the load, and its error. `keep_alive`: how long the
  // model stays after its last use; unset: the manager's default. Blocks.
  Lease acquire(std::string_view name, std::optional<KeepAlive> keep_alive = std::nullopt);
  // Forgets the model; its memory goes when the last holder lets go. False: it wasn't loaded.
  bool unload(std::string_view name);

  struct Entry {
    std::string name;
    std::shared_ptr<const LoadedModel> model;
    std::chrono::system_clock::time_point expires;  // time_point::max(): never
  };
  std::vector<Entry> loaded() const;
  const ModelOptions& options() const { return options_; }

 private:
  struct Slot;
  void janitor();
  std::shared_ptr<const LoadedModel> load_from(const std::filesystem::path& path);
  void load_slot(std::unique_lock<std::mutex>& lock, const std::filesystem::path& path, Slot& slot);
  bool drop(std::unique_lock<std::mutex>& lock, const std::function<bool(const Slot&)>& condition);

  Resolve resolve_;
  ModelOptions options_;
  Devices devices_;
  ModelEvents events_;
  KeepAlive keep_alive_;
  Load load_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::filesystem::path, std::shared_ptr<Slot>> slots_;
  bool stopping_ = false;
  std::thread janitor_;
};

}  // namespace steelyard
