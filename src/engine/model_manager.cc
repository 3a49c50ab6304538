#include "engine/model_manager.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <future>
#include <optional>
#include <system_error>
#include <utility>

#include "base/input_file.h"
#include "device/device.h"
#include "engine/client_error.h"
#include "engine/eviction.h"
#include "gguf/gguf.h"
#include "model/config.h"

namespace steelyard {
namespace {

constexpr auto kTick = std::chrono::milliseconds(200);
constexpr auto kTickForRoom = std::chrono::milliseconds(20);
constexpr auto kPatience = std::chrono::minutes(10);  // for room
constexpr unsigned kLoaders = 3;                      // models that load at the same time
constexpr std::uint32_t kMostContext = 1 << 24;       // as --context

// The same model; `memory` ends when its memory is free, which is after its destructor.
std::shared_ptr<const LoadedModel> watched(std::shared_ptr<const LoadedModel> model,
                                           std::weak_ptr<void>& memory) {
  auto there = std::make_shared<char>();
  memory = there;
  const LoadedModel* const self = model.get();
  return {self, [model = std::move(model), there = std::move(there)](const LoadedModel*) mutable {
            model.reset();
            there.reset();
          }};
}

}  // namespace

// One file's model. A slot stays in the map while it has a model, waiters or a load.
struct ModelManager::Slot {
  std::string name;
  std::filesystem::path path;
  std::shared_ptr<const LoadedModel> model;
  std::weak_ptr<void> memory;        // the model's, see watched()
  std::uint32_t context = 0;         // that the model was loaded for, at least
  std::optional<FileIdentity> file;  // as it was before the model was loaded
  bool stale = false;                // it has changed since
  bool loading = false;              // in the queue, parked or being loaded
  bool running = false;              // being loaded
  bool draining = false;             // serves nobody new: it makes room when it is idle
  bool unload_when_idle = false;
  bool turn = false;                    // it waited for room, as the first
  std::string why;                      // it drains
  std::optional<KeepAlive> keep_alive;  // that a request named
  Clock::time_point last_use = Clock::now();
  Clock::time_point parked_since{};
  std::deque<Waiter> waiters;
  std::atomic<std::size_t> wanted{0};  // waiters, for the loading thread

  bool in_use() const { return model && model.use_count() > 1; }
  KeepAlive stays(KeepAlive otherwise) const { return keep_alive.value_or(otherwise); }
  bool expired(Clock::time_point now, KeepAlive otherwise) const {
    if (!model || loading || in_use() || !waiters.empty()) return false;
    const KeepAlive stay = stays(otherwise);
    return unload_when_idle || draining || (stay >= KeepAlive::zero() && now - last_use >= stay);
  }
  bool satisfies(const ModelWish& wish) const {
    return model && !draining && !stale && wish.context <= context && !model->device_lost();
  }
};

void ModelManager::Aftermath::run() {
  dead.clear();
  for (auto& call : std::exchange(calls, {})) call();
}

ModelManager::ModelManager(Resolve resolve, ModelOptions options, ModelEvents events, KeepAlive keep_alive,
                           Load load)
    : resolve_(std::move(resolve)),
      options_(std::move(options)),
      events_(std::move(events)),
      keep_alive_(keep_alive),
      load_(std::move(load)) {
  if (!load_)
    load_ = [this](const std::filesystem::path& path, std::uint32_t context, const LoadProgress& progress) {
      return load_from(path, context, progress);
    };
  try {
    threads_.emplace_back([this] { janitor(); });
    for (unsigned i = 0; i < kLoaders; ++i) threads_.emplace_back([this] { loader(); });
  } catch (const std::system_error& e) {
    end_threads();
    throw_error(ErrorKind::no_memory, "the system refused a thread ({}); allow more memory and processes",
                e.code().message());
  }
}

ModelManager::~ModelManager() { end_threads(); }

void ModelManager::end_threads() {
  Aftermath after;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    const auto error = std::make_exception_ptr(Error(ErrorKind::cancelled, "the server is stopping"));
    for (auto& [path, slot] : slots_) fail_slot(slot, error, after);
    changed_.notify_all();
    work_.notify_all();
  }
  after.run();
  for (auto& thread : threads_) thread.join();
  slots_.clear();
}

void ModelManager::check_device() {
  const DeviceName wanted = parse_device(options_.device);
  if (wanted.kind == DeviceName::Kind::cuda) devices_.cuda(wanted.index);
  for (const DeviceName& name : options_.devices)
    if (name.kind == DeviceName::Kind::cuda) devices_.cuda(name.index);
}

// A device that is lost meanwhile isn't tried again; where the choice is ours, another one is.
std::shared_ptr<const LoadedModel> ModelManager::load_from(const std::filesystem::path& path,
                                                           std::uint32_t context,
                                                           const LoadProgress& progress) {
  ModelOptions options = options_;
  if (context > (options.context ? options.context : kDefaultContext)) options.context = context;
  if (context > options_.context) {  // before anybody makes room for it
    const std::uint32_t trained = read_config(GgufFile::open(path)).context_train;
    if (context > std::min(trained, kMostContext))
      throw TooLong(fmt::format("\"num_ctx\" is {}, but {} was trained for {} tokens", context,
                                path.stem().string(), trained));
  }
  const bool choose = parse_device(options.device).kind == DeviceName::Kind::automatic;
  while (true) {
    PreparedModel prepared = prepare_model(path, options, devices_);
    if (events_.planned) events_.planned(prepared);
    const std::shared_ptr<Device> device = prepared.device;
    try {
      auto model = std::make_shared<const LoadedModel>(std::move(prepared), progress);
      if (events_.loaded) events_.loaded(*model);
      return model;
    } catch (const Error&) {
      if (!device->lost()) throw;
      devices_.lose(*device);
      if (!choose) throw;
    }
  }
}

// ---- callers ----

ModelManager::Ticket ModelManager::acquire(ModelWish wish, Ready ready) {
  std::filesystem::path path;
  try {
    path = resolve_(wish.name);
  } catch (...) {
    ready({}, std::current_exception());
    return {};
  }
  const std::optional<FileIdentity> file = file_identity(path);
  Ticket ticket;
  Aftermath after;
  {
    const std::lock_guard lock(mutex_);
    const auto refuse = [&](ErrorKind kind, std::string why) {
      after.calls.push_back([ready = std::move(ready), error = std::make_exception_ptr(Error(
                                                           kind, std::move(why)))] { ready({}, error); });
    };
    auto& slot = slots_[path];
    if (!slot) {
      slot = std::make_shared<Slot>();
      slot->name = wish.name;
      slot->path = path;
    }
    if (stopping_) {
      refuse(ErrorKind::cancelled, "the server is stopping");
    } else if (slot->waiters.size() >= options_.max_queue) {
      refuse(ErrorKind::busy,
             fmt::format("{} requests wait for the model already: try again later", slot->waiters.size()));
    } else {
      // A model on a lost device makes room for one that is loaded anew, elsewhere if need be.
      if (slot->model && slot->model->device_lost()) {
        devices_.lose(slot->model->device());
        drop(*slot, "its device is lost", after);
      }
      // Of a split model other parts may have changed.
      if (slot->model && (slot->file != file || slot->model->file_changed())) slot->stale = true;
      ticket.manager_ = this;
      ticket.number_ = next_number_++;
      slot->waiters.push_back({ticket.number_, std::move(wish), Clock::now(), std::move(ready)});
      slot->wanted = slot->waiters.size();
      serve(*slot, after);
      if (!slot->waiters.empty() && !slot->draining) enqueue(slot);
    }
    forget_empty();
    changed_.notify_all();
  }
  after.run();
  return ticket;
}

ModelManager::Lease ModelManager::acquire(ModelWish wish) {
  // Shared with the callback: the promise may be left while set_value() still runs.
  const auto promise = std::make_shared<std::promise<Lease>>();
  std::future<Lease> future = promise->get_future();
  acquire(std::move(wish), [promise](Lease lease, std::exception_ptr error) {
    if (error)
      promise->set_exception(error);
    else
      promise->set_value(std::move(lease));
  });
  return future.get();
}

void ModelManager::Ticket::cancel() {
  if (manager_) manager_->cancel(number_);
}

void ModelManager::cancel(std::uint64_t number) {
  Aftermath after;
  {
    const std::lock_guard lock(mutex_);
    for (auto& [path, slot] : slots_) {
      const auto it = std::ranges::find(slot->waiters, number, &Waiter::number);
      if (it == slot->waiters.end()) continue;
      after.calls.push_back([ready = std::move(it->ready)] {
        ready({}, std::make_exception_ptr(Error(ErrorKind::cancelled, "the request was cancelled")));
      });
      slot->waiters.erase(it);
      slot->wanted = slot->waiters.size();
      if (slot->waiters.empty() && slot->loading && !slot->running) {
        std::erase(queue_, slot);
        if (std::erase(parked_, slot)) release_draining(after);
        slot->loading = slot->turn = false;
      }
      break;
    }
    forget_empty();
    changed_.notify_all();
  }
  after.run();
}

bool ModelManager::unload(std::string_view name) {
  const std::filesystem::path path = resolve_(name);
  Aftermath after;
  {
    const std::lock_guard lock(mutex_);
    const auto it = slots_.find(path);
    if (it == slots_.end() || !it->second->model) return false;
    Slot& slot = *it->second;
    slot.unload_when_idle = true;
    if (slot.expired(Clock::now(), keep_alive_)) drop(slot, "", after);
    forget_empty();
    changed_.notify_all();
  }
  after.run();
  return true;
}

std::vector<ModelManager::Entry> ModelManager::loaded() const {
  const std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  for (const auto& [path, slot] : slots_) {
    if (!slot->model) continue;
    const KeepAlive stay = slot->stays(keep_alive_);
    const auto left = slot->last_use + stay - Clock::now();
    entries.push_back({slot->name, slot->model,
                       stay < KeepAlive::zero()
                           ? std::chrono::system_clock::time_point::max()
                           : std::chrono::system_clock::now() +
                                 std::chrono::duration_cast<std::chrono::system_clock::duration>(left)});
  }
  return entries;
}

// ---- with the lock ----

// Leases for everybody whose wish the model fulfils.
void ModelManager::serve(Slot& slot, Aftermath& after) {
  std::deque<Waiter> left;
  for (auto& waiter : slot.waiters) {
    if (!slot.satisfies(waiter.wish)) {
      left.push_back(std::move(waiter));
      continue;
    }
    if (waiter.wish.keep_alive) slot.keep_alive = waiter.wish.keep_alive;
    slot.unload_when_idle = false;
    slot.last_use = Clock::now();
    const auto waited =
        std::chrono::duration_cast<std::chrono::nanoseconds>(slot.last_use - waiter.begin).count();
    after.calls.push_back([ready = std::move(waiter.ready), lease = Lease{slot.model, waited}]() mutable {
      ready(std::move(lease), nullptr);
    });
  }
  slot.waiters = std::move(left);
  slot.wanted = slot.waiters.size();
}

void ModelManager::enqueue(const std::shared_ptr<Slot>& slot) {
  if (slot->loading) return;
  slot->loading = true;
  queue_.push_back(slot);
  work_.notify_one();
}

void ModelManager::drop(Slot& slot, const std::string& why, Aftermath& after) {
  leaving_.push_back(slot.memory);
  after.dead.push_back(std::exchange(slot.model, nullptr));
  slot.context = 0;
  slot.draining = slot.unload_when_idle = slot.stale = false;
  if (events_.unloaded) after.calls.push_back([this, name = slot.name, why] { events_.unloaded(name, why); });
}

// Whether a dropped model still has its memory: it is being destroyed, or somebody had it a moment longer.
bool ModelManager::memory_is_leaving() {
  std::erase_if(leaving_, [](const auto& memory) { return memory.expired(); });
  return !leaving_.empty();
}

void ModelManager::forget_empty() {
  std::erase_if(slots_, [](const auto& entry) {
    const Slot& s = *entry.second;
    return !s.model && !s.loading && s.waiters.empty();
  });
}

// `context` not 0: it was too large; only those who wanted so much fail.
void ModelManager::fail_slot(const std::shared_ptr<Slot>& slot, std::exception_ptr error, Aftermath& after,
                             std::uint32_t context) {
  std::deque<Waiter> left;
  for (auto& waiter : slot->waiters) {
    if (context && waiter.wish.context < context)
      left.push_back(std::move(waiter));
    else
      after.calls.push_back([ready = std::move(waiter.ready), error] { ready({}, error); });
  }
  slot->waiters = std::move(left);
  slot->wanted = slot->waiters.size();
  std::erase(queue_, slot);
  if (std::erase(parked_, slot)) release_draining(after);
  if (slot->running) return;
  slot->loading = slot->turn = false;
  serve(*slot, after);
  if (!slot->waiters.empty() && !slot->draining) enqueue(slot);
}

// Nobody waits for these models to go any more; those who came meanwhile are served.
void ModelManager::release_draining(Aftermath& after) {
  for (auto& [path, slot] : slots_) {
    if (!std::exchange(slot->draining, false)) continue;
    serve(*slot, after);
    if (!slot->waiters.empty()) enqueue(slot);
  }
  work_.notify_all();
}

// True: it is gone. False: it goes when it is idle.
bool ModelManager::let_go(Slot& slot, const EvictionCandidate& as, const std::string& other,
                          Aftermath& after) {
  const std::string why =
      fmt::format("to make room for {}{}", other, as.forever ? ", though it was to stay for ever" : "");
  if (as.busy) {
    slot.draining = true;
    slot.why = why;
  } else {
    drop(slot, as.own ? "to be loaded anew" : why, after);
  }
  return !as.busy;
}

// Lets others go for `slot`: idle ones now, busy ones when they are idle. True: try again at once. False: it
// is parked, or failed.
bool ModelManager::make_room(const std::shared_ptr<Slot>& slot, std::uint32_t context, const Error& lack,
                             Aftermath& after) {
  const Lack needed = lack_of(lack);
  std::vector<std::shared_ptr<Slot>> slots;
  std::vector<EvictionCandidate> candidates;
  for (const auto& [path, other] : slots_) {
    if (!other->model || (other->running && other != slot)) continue;
    EvictionCandidate& c = candidates.emplace_back(eviction_candidate(other->model->plan(), needed));
    c.own = other == slot;
    c.forever = other->stays(keep_alive_) < KeepAlive::zero();
    c.busy = other->in_use();
    c.last_use = other->last_use;
    slots.push_back(other);
  }
  const Eviction eviction = choose_evictions(candidates, needed);
  const bool first = parked_.empty() || slot->turn;
  if (!eviction.enough && loads_ == 0 && first && !memory_is_leaving()) {
    refuse_for_ever(slot, context, lack, after);
    return false;
  }
  bool waits = !eviction.enough || !first;
  if (!waits)
    for (const std::size_t i : eviction.go) waits |= !let_go(*slots[i], candidates[i], slot->name, after);
  if (!waits) return true;
  if (!slot->turn) slot->parked_since = Clock::now();
  parked_.insert(slot->turn ? parked_.begin() : parked_.end(), slot);
  return false;
}

// It doesn't fit, whoever goes.
void ModelManager::refuse_for_ever(const std::shared_ptr<Slot>& slot, std::uint32_t context,
                                   const Error& lack, Aftermath& after) {
  const std::uint32_t usual = options_.context ? options_.context : kDefaultContext;
  const bool grown = context > usual;
  const auto error =
      grown ? std::make_exception_ptr(TooLong(fmt::format(
                  "\"num_ctx\" is {}, but the server's context is {} and memory doesn't allow more: {}",
                  context, slot->model ? slot->context : usual, lack.what())))
            : std::make_exception_ptr(Error(ErrorKind::no_memory, lack.what()));
  fail_slot(slot, error_for_clients(error, slot->path), after, grown ? context : 0);
}

// ---- the manager's threads ----

void ModelManager::loader() {
  Lock lock(mutex_);
  while (true) {
    work_.wait(lock, [&] { return stopping_ || !queue_.empty(); });
    if (stopping_) return;
    const std::shared_ptr<Slot> slot = queue_.front();
    queue_.pop_front();
    load_slot(lock, slot);
  }
}

// Loads without the lock, until there is a model, an error, or the wait for room.
void ModelManager::load_slot(Lock& lock, const std::shared_ptr<Slot>& slot) {
  Aftermath after;
  for (bool again = true; again;) {
    std::uint32_t context = 0;
    for (const Waiter& w : slot->waiters) context = std::max(context, w.wish.context);
    slot->running = true;
    ++loads_;
    lock.unlock();
    after.run();
    const std::optional<FileIdentity> file = file_identity(slot->path);
    Loaded loaded = try_load(*slot, context);
    lock.lock();
    if (loaded.model) slot->file = file;
    --loads_;
    slot->running = false;
    again = take_loaded(slot, context, std::move(loaded), after);
  }
  forget_empty();
  changed_.notify_all();
  lock.unlock();
  after.run();
  lock.lock();
}

ModelManager::Loaded ModelManager::try_load(const Slot& slot, std::uint32_t context) {
  const LoadProgress progress = [&](std::uint64_t done, std::uint64_t total) {
    if (slot.wanted == 0) throw Error(ErrorKind::cancelled, "nobody waits for the model any more");
    if (events_.progress) events_.progress(slot.name, done, total);
  };
  Loaded loaded;
  try {
    loaded.model = load_(slot.path, context, progress);
  } catch (const NoRoom& e) {
    loaded.lack = std::make_unique<NoRoom>(e);
  } catch (const TooLong&) {
    loaded.too_long = true;
    loaded.error = std::current_exception();
  } catch (const Error& e) {
    if (e.kind() == ErrorKind::no_memory) loaded.lack = std::make_unique<Error>(e);
    loaded.cancelled = e.kind() == ErrorKind::cancelled;
    loaded.error = std::current_exception();
  } catch (...) {
    loaded.error = std::current_exception();
  }
  return loaded;
}

// True: try again at once.
bool ModelManager::take_loaded(const std::shared_ptr<Slot>& slot, std::uint32_t context, Loaded loaded,
                               Aftermath& after) {
  if (loaded.model) {
    slot->context = std::max(context, loaded.model->options().context);
    finish_load(slot, std::move(loaded.model), after);
    return false;
  }
  const bool wanted = !stopping_ && !slot->waiters.empty();
  if (loaded.cancelled && wanted) return true;  // somebody came while it was broken off
  if (loaded.lack && wanted) return make_room(slot, context, *loaded.lack, after);
  if (!loaded.error) loaded.error = std::make_exception_ptr(Error(ErrorKind::cancelled, loaded.lack->what()));
  fail_slot(slot, error_for_clients(loaded.error, slot->path), after, loaded.too_long ? context : 0);
  return false;
}

void ModelManager::finish_load(const std::shared_ptr<Slot>& slot, std::shared_ptr<const LoadedModel> model,
                               Aftermath& after) {
  slot->loading = slot->turn = false;
  if (slot->model) {
    leaving_.push_back(slot->memory);
    after.dead.push_back(std::move(slot->model));
  }
  slot->model = watched(std::move(model), slot->memory);
  slot->draining = slot->stale = false;
  slot->last_use = Clock::now();
  serve(*slot, after);
  if (!slot->waiters.empty()) enqueue(slot);
}

// The first that waits for room tries again when the models that make it are gone.
void ModelManager::settle_parked(Clock::time_point now, Aftermath& after) {
  for (std::size_t i = 0; i < parked_.size();) {
    const std::shared_ptr<Slot> slot = parked_[i];
    if (now - slot->parked_since < kPatience) {
      ++i;
      continue;
    }
    const auto error = std::make_exception_ptr(
        Error(ErrorKind::busy, "the other models are in use and no room came free: try again later"));
    fail_slot(slot, error, after);
  }
  if (parked_.empty() || loads_ > 0) return;
  const bool waits = std::ranges::any_of(slots_, [](const auto& e) { return e.second->draining; });
  if (waits || memory_is_leaving()) return;
  parked_.front()->turn = true;
  queue_.push_front(parked_.front());
  parked_.pop_front();
  work_.notify_one();
}

// A model in use stays; the clock starts when its last holder lets go.
void ModelManager::janitor() {
  Lock lock(mutex_);
  while (!stopping_) {
    const auto now = Clock::now();
    Aftermath after;
    for (auto& [path, slot] : slots_) {
      if (slot->in_use()) slot->last_use = now;
      const bool makes_room = slot->draining && slot->model && !slot->in_use();
      if (!makes_room && !slot->expired(now, keep_alive_)) continue;
      drop(*slot, makes_room ? slot->why : "", after);
      if (slot->waiters.empty() || slot->loading) continue;
      if (parked_.empty()) {
        enqueue(slot);
      } else {  // behind those for whom it went
        slot->loading = true;
        slot->parked_since = now;
        parked_.push_back(slot);
      }
    }
    lock.unlock();
    after.run();  // the room is there before anybody looks for it
    lock.lock();
    if (stopping_) return;
    settle_parked(now, after);
    forget_empty();
    lock.unlock();
    after.run();
    lock.lock();
    if (stopping_) return;
    if (slots_.empty())
      changed_.wait(lock, [&] { return stopping_ || !slots_.empty(); });
    else
      changed_.wait_for(lock, parked_.empty() ? kTick : kTickForRoom);
  }
}

}  // namespace steelyard
