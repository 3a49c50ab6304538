#include "engine/model_manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <thread>

#include "decoder/step_runner.h"
#include "device/device.h"
#include "device/devices.h"
#include "engine/errors.h"
#include "engine/fake_runner.h"
#include "engine/loaded_model.h"
#include "plan/plan.h"

namespace steelyard {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

// Owns what a fake model runs on; LoadedModel takes the runner.
std::shared_ptr<const LoadedModel> fake_model(const std::filesystem::path& path, std::uint32_t context,
                                              std::uint64_t bytes) {
  PreparedModel prepared;
  prepared.path = path;
  prepared.options.context = context ? context : 96;
  prepared.plan.devices = {{"CPU", {{Purpose::weights, bytes, ""}}}};
  RunnerInfo info{.limits = {.rows = 16, .outputs = 4, .slots = 4, .context = prepared.options.context},
                  .page_tokens = 4,
                  .vocab_size = 200,
                  .groups = {{.window = 0, .pages = 4 * prepared.options.context}}};
  return std::make_shared<const LoadedModel>(std::move(prepared), std::make_unique<FakeRunner>(info));
}

// A machine with memory for `room` bytes; a model takes as many as its name says.
struct Machine {
  std::uint64_t room = 100;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<std::weak_ptr<const LoadedModel>> models;
  std::vector<std::string> unloaded;
  std::set<std::string> held;  // names whose loading waits
  std::atomic<int> loads{0};
  std::atomic<bool> keeps = false;  // models that end keep their memory as long as this is so

  std::uint64_t used() {
    std::uint64_t bytes = 0;
    for (const auto& weak : models)
      if (const auto model = weak.lock()) bytes += model->plan().devices[0].total();
    return bytes;
  }
  std::shared_ptr<const LoadedModel> load(const std::filesystem::path& path, std::uint32_t context,
                                          const LoadProgress& progress) {
    ++loads;
    const std::string name = path.stem().string();
    if (name == "broken") throw Error(ErrorKind::bad_input, "/secret/place/broken.gguf is damaged");
    std::unique_lock lock(mutex);
    while (held.count(name)) {
      changed.wait_for(lock, 1ms);
      progress(0, 1);
    }
    const std::uint64_t needed = std::stoull(name.substr(1)) + context / 100;
    if (used() + needed > room) throw NoRoom("it needs more", "CPU", needed, room - used());
    const auto model = fake_model(path, context, needed);
    models.push_back(model);
    return {model.get(),
            [this, model = std::shared_ptr<const LoadedModel>(model)](const LoadedModel*) mutable {
              while (keeps) std::this_thread::sleep_for(1ms);
              model.reset();
            }};
  }
  void let_go() {
    const std::lock_guard lock(mutex);
    held.clear();
  }
  std::unique_ptr<ModelManager> manager(KeepAlive keep = 1h) {
    ModelEvents events;
    events.unloaded = [this](const std::string& name, const std::string& why) {
      const std::lock_guard lock(mutex);
      unloaded.push_back(name + (why.empty() ? "" : ": " + why));
    };
    return std::make_unique<ModelManager>(
        [](std::string_view name) {
          if (name == "nobody") throw Error(ErrorKind::not_found, "there is no model 'nobody'");
          return std::filesystem::path("/secret/place") / (std::string(name) + ".gguf");
        },
        ModelOptions{}, std::move(events), keep,
        [this](auto& path, auto context, auto& progress) { return load(path, context, progress); });
  }
};

std::vector<std::string> names(const ModelManager& manager) {
  std::vector<std::string> out;
  for (const auto& entry : manager.loaded()) out.push_back(entry.name);
  return out;
}

template <typename Condition>
bool soon(Condition condition) {
  for (int i = 0; i < 4000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(5ms);
  }
  return false;
}

// What acquire() gave, later.
struct Later {
  std::shared_ptr<std::promise<ModelManager::Lease>> promise =
      std::make_shared<std::promise<ModelManager::Lease>>();
  std::future<ModelManager::Lease> future = promise->get_future();
  ModelManager::Ticket ticket;
  Later(ModelManager& manager, ModelWish wish) {
    ticket = manager.acquire(std::move(wish), [promise = promise](auto lease, std::exception_ptr error) {
      error ? promise->set_exception(error) : promise->set_value(std::move(lease));
    });
  }
  bool ready() { return future.wait_for(0s) == std::future_status::ready; }
  std::pair<ErrorKind, std::string> error() {
    try {
      future.get();
    } catch (const Error& e) {
      return {e.kind(), e.what()};
    }
    return {ErrorKind::internal, "no error"};
  }
};

TEST(ModelManager, SharesALoadAndItsError) {
  Machine machine;
  machine.held = {"m10"};
  const auto manager = machine.manager();
  Later a(*manager, {"m10"}), b(*manager, {"m10"});
  EXPECT_FALSE(a.ready());
  machine.let_go();
  EXPECT_EQ(a.future.get().model, b.future.get().model);
  EXPECT_EQ(machine.loads, 1);
  EXPECT_EQ(Later(*manager, {"nobody"}).error().first, ErrorKind::not_found);
}

TEST(ModelManager, ADamagedFileIsNotTheRequestsFaultAndNamesNoDirectory) {
  Machine machine;
  const auto manager = machine.manager();
  const auto [kind, message] = Later(*manager, {"broken"}).error();
  EXPECT_EQ(kind, ErrorKind::io);
  EXPECT_EQ(message, "broken.gguf is damaged");
  EXPECT_TRUE(manager->loaded().empty());
}

TEST(ModelManager, UnloadingNeverTakesAModelFromThoseWhoWaitForIt) {
  Machine machine;
  const auto manager = machine.manager();
  std::atomic<bool> stop = false;
  std::atomic<int> served = 0, without = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i)
    threads.emplace_back([&] {
      while (!stop) {
        const auto lease = manager->acquire({"m10"});
        if (!lease.model) ++without;
        EngineRequest request;
        request.prompt = {1, 2, 3};
        request.num_predict = 1;
        lease.model->engine().submit(std::move(request)).wait();
        ++served;
      }
    });
  threads.emplace_back([&] {
    while (!stop) manager->unload("m10");
  });
  EXPECT_TRUE(soon([&] { return served > 300; }));
  stop = true;
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(without, 0);
}

TEST(ModelManager, UnloadsABusyModelWhenItIsIdle) {
  Machine machine;
  const auto manager = machine.manager();
  auto lease = manager->acquire({"m10"});
  EXPECT_TRUE(manager->unload("m10"));
  EXPECT_THAT(names(*manager), ElementsAre("m10"));
  lease.model.reset();
  EXPECT_TRUE(soon([&] { return manager->loaded().empty(); }));
  EXPECT_FALSE(manager->unload("m10"));
}

TEST(ModelManager, WhatCanNeverFitUnloadsNobody) {
  Machine machine;
  const auto manager = machine.manager();
  manager->acquire({"m40"});
  manager->acquire({"m30"});
  EXPECT_EQ(Later(*manager, {"m101"}).error().first, ErrorKind::no_memory);
  EXPECT_THAT(names(*manager), ElementsAre("m30", "m40"));
}

TEST(ModelManager, MakesRoomByTheLeastRecentlyUsedAndNoMoreThanNeeded) {
  Machine machine;
  const auto manager = machine.manager();
  for (const char* name : {"a30", "b30", "c30"}) manager->acquire({name});
  manager->acquire({"a30"});
  manager->acquire({"d30"});
  EXPECT_THAT(names(*manager), ElementsAre("a30", "c30", "d30"));
  EXPECT_THAT(machine.unloaded, ElementsAre("b30: to make room for d30"));
}

TEST(ModelManager, ModelsKeptForEverGoLastAndWithAWord) {
  Machine machine;
  const auto manager = machine.manager();
  manager->acquire({"a50", KeepAlive(-1)});
  manager->acquire({"b40"});
  manager->acquire({"c50"});
  EXPECT_THAT(names(*manager), ElementsAre("a50", "c50"));
  manager->acquire({"d80"});
  EXPECT_THAT(names(*manager), ElementsAre("d80"));
  EXPECT_THAT(machine.unloaded.back(), HasSubstr("for ever"));
}

TEST(ModelManager, AContextThatDoesNotFitLeavesTheModelAsItWas) {
  Machine machine;
  const auto manager = machine.manager();
  const auto model = manager->acquire({"m40"}).model;
  const auto [kind, message] = Later(*manager, {"m40", std::nullopt, 10000}).error();  // 140 of 100
  EXPECT_EQ(kind, ErrorKind::bad_input);
  EXPECT_THAT(message, HasSubstr("\"num_ctx\" is 10000"));
  EXPECT_EQ(manager->acquire({"m40"}).model, model);
  EXPECT_THAT(machine.unloaded, ::testing::IsEmpty());
}

// a60 is in use, b60 waits for its room, and more for a60 came after that.
struct BusyModel {
  Machine machine;
  std::unique_ptr<ModelManager> manager = machine.manager();
  ModelManager::Lease busy = manager->acquire({"a60"});
  Later waiting{*manager, {"b60"}};
  std::unique_ptr<Later> again;
  BusyModel() {
    EXPECT_TRUE(soon([&] { return machine.loads == 2; }));
    std::this_thread::sleep_for(50ms);
    again = std::make_unique<Later>(*manager, ModelWish{"a60"});
  }
};

TEST(ModelManager, WaitsForABusyModelWhichFinishesAndTakesNothingNew) {
  BusyModel m;
  EXPECT_FALSE(m.waiting.ready());
  EXPECT_FALSE(m.again->ready());  // or b60 could wait for ever
  m.busy.model.reset();
  EXPECT_TRUE(m.waiting.future.get().model);
  EXPECT_TRUE(m.again->future.get().model);  // b60 has made room for a60 in turn
}

TEST(ModelManager, AWaitForRoomCanBeCancelled) {
  BusyModel m;
  m.waiting.ticket.cancel();
  EXPECT_EQ(m.waiting.error().first, ErrorKind::cancelled);
  EXPECT_EQ(m.again->future.get().model, m.busy.model);
}

TEST(ModelManager, ALoadThatNobodyWaitsForEnds) {
  Machine machine;
  machine.held = {"m10"};
  const auto manager = machine.manager();
  Later a(*manager, {"m10"});
  ASSERT_TRUE(soon([&] { return machine.loads == 1; }));
  a.ticket.cancel();
  EXPECT_EQ(a.error().first, ErrorKind::cancelled);
  Later b(*manager, {"m10"});
  EXPECT_FALSE(b.ready());
  machine.let_go();
  EXPECT_TRUE(b.future.get().model);
}

// What is planned counts at once: a load takes its memory only bit by bit.
TEST(PrepareModel, TwoPlansNeverCountOnTheSameRoom) {
  const auto path = std::filesystem::path(STEELYARD_SOURCE_DIR) / "tests/data/models/llama.gguf";
  Devices devices;
  ModelOptions options{.device = "cpu", .threads = 1, .context = 64, .slots = 4096};
  std::uint64_t model_bytes = 0;
  {
    const PreparedModel alone = prepare_model(path, options, devices);
    model_bytes = alone.plan.devices[0].model_bytes();
    EXPECT_EQ(devices.held()->on("CPU"), model_bytes);
    options.memory_limit = alone.verdict.needed + model_bytes / 2;
  }
  EXPECT_EQ(devices.held()->on("CPU"), 0u);
  std::optional<PreparedModel> first = prepare_model(path, options, devices);
  EXPECT_THROW(prepare_model(path, options, devices), NoRoom);
  EXPECT_TRUE(prepare_model(path, options, devices, true).holds.empty());
  first.reset();
  EXPECT_NO_THROW(prepare_model(path, options, devices));
}

TEST(ModelManager, RoomThatIsAboutToComeFreeIsWaitedFor) {
  Machine machine;
  const auto manager = machine.manager();
  Later(*manager, {"m60"}).future.get();
  ASSERT_TRUE(
      soon([&] { return manager->loaded().at(0).model.use_count() == 2; }));  // the slot's, and this one
  machine.keeps = true;
  std::thread ends([&] { manager->unload("m60"); });
  EXPECT_TRUE(soon([&] { return manager->loaded().empty(); }));
  Later next(*manager, {"m70"});
  EXPECT_TRUE(soon([&] { return machine.loads >= 2; }));  // tried, and had no room
  EXPECT_NE(next.future.wait_for(50ms), std::future_status::ready);
  machine.keeps = false;
  EXPECT_TRUE(next.future.get().model);
  ends.join();
}

TEST(ModelManager, EndsWhileAModelLoads) {
  Machine machine;
  machine.held = {"m10"};
  auto manager = machine.manager();
  Later a(*manager, {"m10"});
  ASSERT_TRUE(soon([&] { return machine.loads == 1; }));
  manager.reset();
  EXPECT_EQ(a.error().first, ErrorKind::cancelled);
}

TEST(ModelManager, OnlyARequestThatNamesItChangesKeepAlive) {
  Machine machine;
  const auto manager = machine.manager(50ms);
  manager->acquire({"a10", KeepAlive(-1)});
  manager->acquire({"a10"});
  manager->acquire({"b10"});
  EXPECT_TRUE(soon([&] { return names(*manager) == std::vector<std::string>{"a10"}; }));
  std::this_thread::sleep_for(300ms);
  EXPECT_THAT(names(*manager), ElementsAre("a10"));
  manager->acquire({"a10", KeepAlive(0)});
  EXPECT_TRUE(soon([&] { return manager->loaded().empty(); }));
}

TEST(ModelManager, AFileThatChangedIsLoadedAnew) {
  const auto file = std::filesystem::temp_directory_path() / ("m10_" + std::to_string(getpid()) + ".gguf");
  std::ofstream(file) << "one";
  Machine machine;
  ModelManager manager([&](std::string_view) { return file; }, ModelOptions{}, {}, 1h,
                       [&](auto& path, auto context, auto&) {
                         ++machine.loads;
                         return fake_model(path, context, 10);
                       });
  auto old = manager.acquire({"m"});
  EXPECT_EQ(manager.acquire({"m"}).model, old.model);
  std::ofstream(file) << "another";
  EXPECT_NE(manager.acquire({"m"}).model, old.model);
  EXPECT_EQ(machine.loads, 2);
  EXPECT_EQ(manager.loaded().size(), 1u);
  std::filesystem::remove(file);
}

}  // namespace
}  // namespace steelyard
