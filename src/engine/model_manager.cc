#include "engine/model_manager.h"

#include <algorithm>
#include <exception>

#include "device/device.h"

namespace steelyard {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kTick = std::chrono::milliseconds(200);

}  // namespace

// One file's model: being loaded, there, or failed (then it is taken out of the map at once).
struct ModelManager::Slot {
  std::string name;
  std::shared_ptr<const LoadedModel> model;
  std::exception_ptr error;
  bool loading = true;
  KeepAlive keep_alive{};
  Clock::time_point last_use = Clock::now();

  bool idle() const { return !loading && model.use_count() == 1; }
  bool expired(Clock::time_point now) const {
    return idle() && keep_alive >= KeepAlive::zero() && now - last_use >= keep_alive;
  }
};

ModelManager::ModelManager(Resolve resolve, ModelOptions options, ModelEvents events, KeepAlive keep_alive,
                           Load load)
    : resolve_(std::move(resolve)),
      options_(std::move(options)),
      events_(std::move(events)),
      keep_alive_(keep_alive),
      load_(std::move(load)) {
  if (!load_) load_ = [this](const std::filesystem::path& path) { return load_from(path); };
  janitor_ = std::thread([this] { janitor(); });
}

// A device that is lost meanwhile isn't tried again; where the choice is ours, another one is.
std::shared_ptr<const LoadedModel> ModelManager::load_from(const std::filesystem::path& path) {
  const std::string name = path.stem().string();
  const LoadProgress progress = [&](std::uint64_t done, std::uint64_t total) {
    if (events_.progress) events_.progress(name, done, total);
  };
  const bool choose = parse_device(options_.device).kind == DeviceName::Kind::automatic;
  while (true) {
    PreparedModel prepared = prepare_model(path, options_, devices_);
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

ModelManager::~ModelManager() {
  std::map<std::filesystem::path, std::shared_ptr<Slot>> slots;
  {
    std::unique_lock lock(mutex_);
    stopping_ = true;
    changed_.notify_all();
    changed_.wait(lock, [&] {
      return std::none_of(slots_.begin(), slots_.end(),
                          [](const auto& entry) { return entry.second->loading; });
    });
    slots.swap(slots_);
  }
  janitor_.join();
}

ModelManager::Lease ModelManager::acquire(std::string_view name, std::optional<KeepAlive> keep_alive) {
  const std::filesystem::path path = resolve_(name);
  const auto begin = Clock::now();
  std::unique_lock lock(mutex_);
  if (stopping_) throw Error(ErrorKind::cancelled, "the server is stopping");
  // A model on a lost device makes room for one that is loaded anew, elsewhere if need be.
  drop(lock, [this](const Slot& s) {
    const bool lost = s.model && s.model->device_lost();
    if (lost) devices_.lose(s.model->device());
    return lost;
  });
  auto [it, first] = slots_.try_emplace(path);
  if (first) it->second = std::make_shared<Slot>(Slot{.name = std::string(name)});
  const std::shared_ptr<Slot> slot = it->second;
  if (first) {
    load_slot(lock, path, *slot);
  } else {
    changed_.wait(lock, [&] { return !slot->loading; });
  }
  if (slot->error) std::rethrow_exception(slot->error);
  slot->keep_alive = keep_alive.value_or(keep_alive_);
  slot->last_use = Clock::now();
  changed_.notify_all();
  return {slot->model, std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count()};
}

// Loads without the lock. When memory lacks, idle models make room, once.
void ModelManager::load_slot(std::unique_lock<std::mutex>& lock, const std::filesystem::path& path,
                             Slot& slot) {
  for (bool retry = true;; retry = false) {
    lock.unlock();
    std::shared_ptr<const LoadedModel> model;
    std::exception_ptr error;
    bool lacks_memory = false;
    try {
      model = load_(path);
    } catch (const Error& e) {
      error = std::current_exception();
      lacks_memory = e.kind() == ErrorKind::no_memory;
    } catch (...) {
      error = std::current_exception();
    }
    lock.lock();
    if (lacks_memory && retry && drop(lock, [](const Slot& s) { return s.idle(); })) continue;
    slot.model = std::move(model);
    slot.error = error;
    slot.loading = false;
    if (error) slots_.erase(path);
    changed_.notify_all();
    return;
  }
}

// Unloads the models that `condition` names; true if there was one. They are destroyed without the lock.
bool ModelManager::drop(std::unique_lock<std::mutex>& lock,
                        const std::function<bool(const Slot&)>& condition) {
  std::vector<std::shared_ptr<Slot>> gone;
  for (auto it = slots_.begin(); it != slots_.end();) {
    if (condition(*it->second)) {
      gone.push_back(std::move(it->second));
      it = slots_.erase(it);
    } else {
      ++it;
    }
  }
  if (gone.empty()) return false;
  lock.unlock();
  for (auto& slot : gone) {
    slot->model.reset();
    if (events_.unloaded) events_.unloaded(slot->name);
  }
  lock.lock();
  return true;
}

bool ModelManager::unload(std::string_view name) {
  const std::filesystem::path path = resolve_(name);
  std::unique_lock lock(mutex_);
  const auto it = slots_.find(path);
  if (it == slots_.end() || it->second->loading) return false;
  const Slot* wanted = it->second.get();
  return drop(lock, [wanted](const Slot& s) { return &s == wanted; });
}

std::vector<ModelManager::Entry> ModelManager::loaded() const {
  std::lock_guard lock(mutex_);
  std::vector<Entry> entries;
  for (const auto& [path, slot] : slots_) {
    if (slot->loading) continue;
    const bool forever = slot->keep_alive < KeepAlive::zero();
    const auto left = slot->last_use + slot->keep_alive - Clock::now();
    entries.push_back({slot->name, slot->model,
                       forever ? std::chrono::system_clock::time_point::max()
                               : std::chrono::system_clock::now() +
                                     std::chrono::duration_cast<std::chrono::system_clock::duration>(left)});
  }
  return entries;
}

// A model in use stays; the clock starts when its last holder lets go.
void ModelManager::janitor() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    const auto now = Clock::now();
    for (auto& [path, slot] : slots_)
      if (!slot->loading && slot->model.use_count() > 1) slot->last_use = now;
    drop(lock, [now](const Slot& s) { return s.expired(now); });
    if (slots_.empty())
      changed_.wait(lock, [&] { return stopping_ || !slots_.empty(); });
    else
      changed_.wait_for(lock, kTick);
  }
}

}  // namespace steelyard
