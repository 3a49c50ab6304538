// The models a server holds: loaded on first use, kept for a while, unloaded when idle or when another needs
// their room. Thread-safe. Nobody holds a thread while waiting: acquire() calls back.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
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
#include "device/device.h"
#include "device/devices.h"
#include "engine/eviction.h"
#include "engine/loaded_model.h"

namespace steelyard {

// How a manager sees the world; each may be called from several threads.
struct ModelEvents {
  std::function<void(const PreparedModel& model)> planned;  // before loading
  std::function<void(const std::string& name, std::uint64_t done, std::uint64_t total)> progress;
  std::function<void(const LoadedModel& model)> loaded;
  // `why`: "" when its time was over or a client asked, else what it had to go for.
  std::function<void(const std::string& name, const std::string& why)> unloaded;
};

// Negative: for ever.
using KeepAlive = std::chrono::nanoseconds;
inline constexpr KeepAlive kDefaultKeepAlive = std::chrono::minutes(5);

// What a request wants of a model.
struct ModelWish {
  std::string name;
  // How long the model stays after its last use. Unset: as it was, at first the manager's default.
  std::optional<KeepAlive> keep_alive = std::nullopt;
  // Tokens that a sequence must be able to reach; a model with fewer is loaded anew. 0: what the model has.
  std::uint32_t context = 0;
};

class ModelManager {
 public:
  // Name → file to open; throws Error(not_found).
  using Resolve = std::function<std::filesystem::path(std::string_view name)>;
  // Makes the model, for `context` tokens a sequence (0: as the options say); throws NoRoom when it doesn't
  // fit now. `progress` throws when nobody wants the model any more. Tests give their own.
  using Load = std::function<std::shared_ptr<const LoadedModel>(
      const std::filesystem::path& path, std::uint32_t context, const LoadProgress& progress)>;

  ModelManager(Resolve resolve, ModelOptions options, ModelEvents events = {},
               KeepAlive keep_alive = kDefaultKeepAlive, Load load = {});
  // Ends what waits and what loads; models live on as long as somebody holds them.
  ~ModelManager();

  struct Lease {
    std::shared_ptr<const LoadedModel> model;  // it isn't unloaded while somebody holds it
    std::int64_t load_ns = 0;                  // how long this call waited for it
  };
  // Called once, from the caller's thread (the model is there, or the name is wrong) or one of the manager's:
  // quick, and without a call back into the manager. `error`: why there is no model.
  using Ready = std::function<void(Lease lease, std::exception_ptr error)>;

  // A request that may wait. Dropping it cancels nothing.
  class Ticket {
   public:
    // Its Ready is called with Error(cancelled), unless it was called already.
    void cancel();

   private:
    friend class ModelManager;
    ModelManager* manager_ = nullptr;
    std::uint64_t number_ = 0;
  };
  // Several callers for one file share the load, and its error. When memory lacks, idle models make room, the
  // least recently used first, those kept for ever last; when these don't suffice, busy ones take no new
  // requests until they are idle and make room then. A model that can never fit unloads nobody. A file that
  // has changed since is loaded anew, while those who have the old model finish with it.
  // Errors: what resolve and loading throw, without directories in the sentence, a damaged file as
  // Error(io); no_memory when it can never fit; TooLong when it can't have so large a context; busy when
  // `max_queue` requests wait for it, or no room came within ten minutes.
  Ticket acquire(ModelWish wish, Ready ready);
  // The same, blocking.
  Lease acquire(ModelWish wish);
  // Unloads the model, when it is in use as soon as it isn't. False: it wasn't loaded.
  bool unload(std::string_view name);

  struct Entry {
    std::string name;
    std::shared_ptr<const LoadedModel> model;
    std::chrono::system_clock::time_point expires;  // time_point::max(): never
  };
  std::vector<Entry> loaded() const;
  const ModelOptions& options() const { return options_; }
  // Throws what is wrong with the options' device, if it is named and can't be used.
  void check_device();

 private:
  using Clock = std::chrono::steady_clock;
  struct Slot;
  struct Loaded {  // what a load came to: a model, or why there is none
    std::shared_ptr<const LoadedModel> model;
    std::unique_ptr<Error> lack;  // of memory
    std::exception_ptr error;
    bool too_long = false, cancelled = false;
  };
  struct Waiter {
    std::uint64_t number;
    ModelWish wish;
    Clock::time_point begin;
    Ready ready;
  };
  // What is called and destroyed without the lock.
  struct Aftermath {
    std::vector<std::function<void()>> calls;
    std::vector<std::shared_ptr<const LoadedModel>> dead;
    void run();
  };
  using Lock = std::unique_lock<std::mutex>;

  void end_threads();
  void janitor();
  void loader();
  void load_slot(Lock& lock, const std::shared_ptr<Slot>& slot);
  void finish_load(const std::shared_ptr<Slot>& slot, std::shared_ptr<const LoadedModel> model,
                   Aftermath& after);
  void fail_slot(const std::shared_ptr<Slot>& slot, std::exception_ptr error, Aftermath& after,
                 std::uint32_t context = 0);
  Loaded try_load(const Slot& slot, std::uint32_t context);
  bool take_loaded(const std::shared_ptr<Slot>& slot, std::uint32_t context, Loaded loaded, Aftermath& after);
  bool make_room(const std::shared_ptr<Slot>& slot, std::uint32_t context, const Error& lack,
                 Aftermath& after);
  bool let_go(Slot& slot, const EvictionCandidate& as, const std::string& other, Aftermath& after);
  void refuse_for_ever(const std::shared_ptr<Slot>& slot, std::uint32_t context, const Error& lack,
                       Aftermath& after);
  void settle_parked(Clock::time_point now, Aftermath& after);
  void release_draining(Aftermath& after);
  void enqueue(const std::shared_ptr<Slot>& slot);
  void serve(Slot& slot, Aftermath& after);
  void drop(Slot& slot, const std::string& why, Aftermath& after);
  void forget_empty();
  bool memory_is_leaving();
  void cancel(std::uint64_t number);
  std::shared_ptr<const LoadedModel> load_from(const std::filesystem::path& path, std::uint32_t context,
                                               const LoadProgress& progress);

  Resolve resolve_;
  ModelOptions options_;
  Devices devices_;
  ModelEvents events_;
  KeepAlive keep_alive_;
  Load load_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;  // the janitor's
  std::condition_variable work_;     // the loaders'
  std::map<std::filesystem::path, std::shared_ptr<Slot>> slots_;
  std::deque<std::shared_ptr<Slot>> queue_;   // to be loaded
  std::deque<std::shared_ptr<Slot>> parked_;  // that wait for room; the first is served first
  std::vector<std::weak_ptr<void>>
      leaving_;              // of models that were dropped: each ends when its memory is free
  std::uint32_t loads_ = 0;  // running
  std::uint64_t next_number_ = 1;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace steelyard
