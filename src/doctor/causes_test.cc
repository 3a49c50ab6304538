#include "doctor/causes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <functional>
#include <iterator>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "doctor/facts.h"
#include "doctor/report.h"
#include "observe/file_place.h"
#include "observe/host.h"

namespace steelyard::doctor {
namespace {

constexpr std::uint64_t kGiB = 1ull << 30;

std::vector<StepLine> step(double weights_ms, double kv_ms, double links_ms, double waits_ms,
                           double sampling_ms) {
  return {{.part = Part::weights, .bytes = 8e9, .seconds = weights_ms / 1e3, .limit = 900e9},
          {.part = Part::kv, .bytes = 1e8, .seconds = kv_ms / 1e3, .limit = 900e9},
          {.part = Part::links, .seconds = links_ms / 1e3},
          {.part = Part::waits, .seconds = waits_ms / 1e3},
          {.part = Part::sampling, .seconds = sampling_ms / 1e3}};
}

// A model on one card of a machine that has nothing wrong: 8 GB in 10.5 ms.
Facts healthy() {
  Facts f;
  f.model = "m.gguf";
  f.tokens_per_second = 1 / 10.5e-3;
  f.layers = f.layers_on_gpu = 33;
  f.context = 4096, f.depth = 128;
  f.kv_type = "f16";
  f.bits_per_weight = 4.85;
  f.streams = 4;
  f.threads = 8;
  f.devices.push_back({.id = "CUDA0",
                       .name = "A card",
                       .gpu = true,
                       .memory = 24 * kGiB,
                       .free = 12 * kGiB,
                       .holds = {{"weights", 8 * kGiB}, {"KV state", kGiB}},
                       .read_weights = 8000000000,
                       .read_kv = 100000000,
                       .read_rate = 900e9,
                       .step = step(9.5, 0.3, 0, 0.5, 0.2)});
  f.devices[0].health = GpuHealth{.celsius = 60,
                                  .watts = 250,
                                  .watts_limit = 350,
                                  .clock_mhz = 1800,
                                  .clock_most_mhz = 1800,
                                  .link_width = 16,
                                  .link_width_most = 16,
                                  .link_generation = 4,
                                  .link_generation_most = 4};
  f.devices.push_back(
      {.id = "CPU", .memory = 64 * kGiB, .free = 50 * kGiB, .holds = {{"process", kGiB / 16}}});
  f.links = {{.from = "CPU", .to = "CUDA0", .way = "PCI Express", .measured = 25e9}};
  f.host = HostFacts{.cpu = "A processor",
                     .cores = 16,
                     .physical = 8,
                     .usable = 16,
                     .memory = 64 * kGiB,
                     .available = 50 * kGiB};
  f.run = HostUse{.seconds = 5, .own_cores = 1, .other_cores = 0.2};
  f.file = FilePlace{.bytes = 8 * kGiB, .system = "ext4", .cached = 1, .read_rate = 2e9};
  f.gpu_present = true;
  f.driver = "580.65.06";
  return f;
}

// The same on the CPU of a machine without a GPU.
Facts on_cpu() {
  Facts f = healthy();
  f.devices.erase(f.devices.begin());
  f.devices[0].read_weights = 8000000000, f.devices[0].read_rate = 60e9,
  f.devices[0].step = step(150, 5, 0, 2, 1);
  f.tokens_per_second = 1 / 158e-3;
  f.layers_on_gpu = 0;
  f.gpu_present = false;
  f.driver.clear();
  f.no_gpu = "no CUDA: there is no driver";
  f.run->own_cores = 8;
  f.links.clear();
  return f;
}

// Half of the layers on a second card.
Facts two_cards() {
  Facts f = healthy();
  f.devices[0].read_weights /= 2, f.devices[0].memory = f.devices[0].free = 6 * kGiB;
  f.devices[0].step = step(4.7, 0.15, 0, 5.5, 0.1);
  DeviceFacts second = f.devices[0];
  second.id = "CUDA1";
  f.devices.insert(f.devices.begin() + 1, second);
  f.split = Split::ranks;
  return f;
}

struct Planted {
  Cause cause;
  std::function<Facts()> facts;
};

Facts with(Facts f, const std::function<void(Facts&)>& change) {
  change(f);
  return f;
}

// Layers on the CPU of a GPU machine, with so much free on the card.
Facts half_on_cpu(std::uint64_t free) {
  return with(healthy(), [&](Facts& f) {
    f.layers_on_gpu = 16;
    f.devices[0].read_weights = 4000000000, f.devices[0].free = free;
    f.devices[1].read_weights = 4000000000, f.devices[1].read_rate = 60e9;
    f.devices[1].step = step(80, 1, 0, 10, 0);
    f.tokens_per_second = 1 / 90e-3;
  });
}

std::vector<Planted> planted() {
  return {
      {Cause::layers_on_cpu, [] { return half_on_cpu(2 * kGiB); }},
      {Cause::head_on_cpu,
       [] { return with(half_on_cpu(kGiB), [](Facts& f) { f.layers_on_gpu = f.layers - 1; }); }},
      {Cause::gpu_unused,
       [] {
         return with(healthy(), [](Facts& f) {
           f.layers_on_gpu = 0, f.tokens_per_second = 8;
           f.devices[1].read_weights = 8000000000, f.devices[0].read_weights = f.devices[0].read_kv = 0;
         });
       }},
      {Cause::build_without_gpu,
       [] {
         return with(on_cpu(), [](Facts& f) {
           f.gpu_present = true, f.driver = "580.1",
           f.no_gpu = "no CUDA: this build has no steelyard_kernels.bin";
         });
       }},
      {Cause::driver_too_old,
       [] {
         return with(on_cpu(), [](Facts& f) {
           f.gpu_present = true, f.driver = "535.104.05", f.no_gpu = "no CUDA: error 222";
         });
       }},
      {Cause::stages_one_stream, [] { return with(two_cards(), [](Facts& f) { f.split = Split::stages; }); }},
      {Cause::uneven_cards,
       [] {
         return with(two_cards(), [](Facts& f) {
           f.split = Split::stages, f.devices[1].read_rate = 300e9, f.devices[0].free = 4 * kGiB;
         });
       }},
      {Cause::sums_through_host,
       [] {
         return with(two_cards(), [](Facts& f) {
           for (int i : {0, 1}) f.devices[i].step = step(4.7, 0.1, 4, 0.5, 0.1);
         });
       }},
      {Cause::slow_link,
       [] { return with(healthy(), [](Facts& f) { f.devices[0].health->link_width = 4; }); }},
      {Cause::slow_types,
       [] { return with(healthy(), [](Facts& f) { f.slow_types = {"IQ4_XS: 12 tensors"}; }); }},
      {Cause::context_depth,
       [] {
         return with(healthy(), [](Facts& f) {
           f.depth = 60000, f.devices[0].step = step(9.5, 6, 0, 0.5, 0.2), f.tokens_per_second = 61;
         });
       }},
      {Cause::context_reserved,
       [] {
         return with(half_on_cpu(kGiB),
                     [](Facts& f) { f.context = 131072, f.devices[0].holds["KV state"] = 6 * kGiB; });
       }},
      {Cause::kv_type,
       [] { return with(half_on_cpu(kGiB), [](Facts& f) { f.devices[0].holds["KV state"] = 6 * kGiB; }); }},
      {Cause::kv_on_cpu,
       [] { return with(healthy(), [](Facts& f) { f.devices[1].holds["KV state"] = kGiB; }); }},
      {Cause::one_stream, [] { return with(healthy(), [](Facts& f) { f.streams = 1; }); }},
      {Cause::prompts_between, [] { return with(healthy(), [](Facts& f) { f.mixed_steps = 0.5; }); }},
      {Cause::power_cap,
       [] {
         return with(healthy(), [](Facts& f) {
           f.devices[0].health->power_capped = true, f.devices[0].health->clock_mhz = 1200;
         });
       }},
      {Cause::heat,
       [] {
         return with(healthy(), [](Facts& f) {
           f.devices[0].health->too_hot = true, f.devices[0].health->clock_mhz = 900;
         });
       }},
      {Cause::clocks_set,
       [] {
         return with(healthy(), [](Facts& f) {
           f.devices[0].health->clocks_set = true, f.devices[0].health->clock_mhz = 900;
         });
       }},
      {Cause::gpu_shared,
       [] {
         return with(healthy(),
                     [](Facts& f) { f.devices[0].others = {{.pid = 7, .name = "game", .bytes = 4 * kGiB}}; });
       }},
      {Cause::cpu_shared,
       [] {
         return with(on_cpu(), [](Facts& f) {
           f.run->other_cores = 7, f.busy = {{.pid = 7, .name = "cc1plus", .cores = 7}};
         });
       }},
      {Cause::threads_over_quota, [] { return with(on_cpu(), [](Facts& f) { f.host->quota = 2; }); }},
      {Cause::threads_over_cores, [] { return with(on_cpu(), [](Facts& f) { f.threads = 32; }); }},
      {Cause::numa, [] { return with(on_cpu(), [](Facts& f) { f.host->numa_nodes = 2; }); }},
      {Cause::memory_limit,
       [] {
         return with(on_cpu(),
                     [](Facts& f) { f.host->memory_limit = 8 * kGiB, f.run->major_faults = 90000; });
       }},
      {Cause::slow_disk,
       [] { return with(healthy(), [](Facts& f) { f.file->cached = 0.1, f.file->read_rate = 90e6; }); }},
      {Cause::network_disk,
       [] {
         return with(healthy(),
                     [](Facts& f) { f.file->cached = 0, f.file->network = true, f.file->system = "nfs"; });
       }},
      {Cause::swap, [] { return with(on_cpu(), [](Facts& f) { f.run->swapped = kGiB; }); }},
      {Cause::stale_limit, [] { return with(healthy(), [](Facts& f) { f.tokens_per_second = 140; }); }},
      {Cause::reloads, [] { return with(healthy(), [](Facts& f) { f.loads = 9, f.requests = 9; }); }},
      {Cause::prefix_not_reused,
       [] {
         return with(healthy(),
                     [](Facts& f) { f.requests = 20, f.prompt_tokens = 100000, f.cached_tokens = 100; });
       }},
      {Cause::queue_full, [] { return with(healthy(), [](Facts& f) { f.waiting = 12; }); }},
      {Cause::host_sampling,
       [] {
         return with(healthy(), [](Facts& f) {
           f.devices[0].step = step(9.5, 0.3, 0, 0.5, 4), f.tokens_per_second = 70;
         });
       }},
      {Cause::prompts_cut, [] { return with(healthy(), [](Facts& f) { f.truncated = 3; }); }},
      {Cause::flash_attention_off,
       [] {
         return with(healthy(), [](Facts& f) { f.flash_attention = false, f.engine = Engine::ollama; });
       }},
      {Cause::large_weights, [] { return with(healthy(), [](Facts& f) { f.bits_per_weight = 16; }); }},
      {Cause::cache_evicted, [] { return with(healthy(), [](Facts& f) { f.preempted = 5; }); }},
      {Cause::slow_clocks, [] { return with(on_cpu(), [](Facts& f) { f.host->governor = "powersave"; }); }},
  };
}

bool holds(const std::vector<Finding>& findings, Cause cause) {
  return std::ranges::find(findings, cause, &Finding::cause) != findings.end();
}

std::string names(const std::vector<Finding>& findings) {
  std::string text;
  for (const Finding& f : findings) text += std::string(info(f.cause).name) + " ";
  return text;
}

TEST(Causes, EachHasItsPlaceInTheTable) {
  for (const CauseInfo& c : causes()) EXPECT_EQ(info(c.cause).name, c.name);
  EXPECT_EQ(causes().size(), static_cast<std::size_t>(Cause::slow_clocks));
}

TEST(Causes, AreAllInTheDocument) {
  std::ifstream in(STEELYARD_SOURCE_DIR "/docs/why-is-it-slow.md");
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  for (const CauseInfo& c : causes()) {
    const std::string row =
        "| " + std::to_string(10 + static_cast<int>(c.cause)) + " | `" + c.name + "` | " + c.title + " |";
    EXPECT_NE(text.find(row), std::string::npos) << row;
  }
}

TEST(Causes, NothingIsClaimedWithoutReason) {
  EXPECT_EQ(names(find_causes(healthy())), "");
  EXPECT_EQ(names(find_causes(on_cpu())), "");
  EXPECT_EQ(names(find_causes(two_cards())), "");
  EXPECT_EQ(names(find_causes(Facts{})), "");
  EXPECT_EQ(exit_code({}), 0);
}

TEST(Causes, EveryOneIsRecognised) {
  std::set<Cause> tested;
  for (const Planted& p : planted()) {
    const Facts facts = p.facts();
    const auto findings = find_causes(facts);
    EXPECT_TRUE(holds(findings, p.cause)) << info(p.cause).name << ", but found " << names(findings);
    for (const Finding& f : findings) {
      EXPECT_FALSE(f.evidence.empty() || f.change.empty()) << info(f.cause).name;
      if (f.price.empty() && f.predicted > 0) {
        EXPECT_GE(f.predicted, 0.99 * facts.tokens_per_second) << info(f.cause).name;
      }
    }
    EXPECT_FALSE(to_text(facts, findings).empty());
    tested.insert(p.cause);
  }
  EXPECT_EQ(tested.size(), causes().size()) << "a cause without a test";
}

// What is planted alone is found alone, but for causes that come together.
TEST(Causes, OneDoesNotLookLikeAnother) {
  const std::set<Cause> together = {Cause::context_reserved, Cause::kv_type};  // of layers on the CPU
  for (const Planted& p : planted())
    if (!together.contains(p.cause)) {
      EXPECT_EQ(find_causes(p.facts()).size(), 1u)
          << info(p.cause).name << ": " << names(find_causes(p.facts()));
    }
}

TEST(Causes, OfferIsNoFault) {
  const auto findings = find_causes(with(healthy(), [](Facts& f) { f.streams = 1; }));
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_FALSE(findings[0].price.empty());
  EXPECT_EQ(exit_code(findings), 0);
}

TEST(Causes, WhatBringsMostStandsFirst) {
  const auto findings = find_causes(with(half_on_cpu(2 * kGiB), [](Facts& f) {
    f.devices[0].health->power_capped = true, f.devices[0].health->clock_mhz = 1600;
    f.bits_per_weight = 16;
  }));
  ASSERT_GE(findings.size(), 3u);
  EXPECT_EQ(findings[0].cause, Cause::layers_on_cpu);
  EXPECT_EQ(findings[1].cause, Cause::power_cap);
  EXPECT_EQ(findings.back().cause, Cause::large_weights);
  EXPECT_EQ(exit_code(findings), 10 + static_cast<int>(Cause::layers_on_cpu));
}

TEST(Causes, SettingsAreThoseOfTheProgramThatRuns) {
  for (const auto& [engine, word] : {std::pair{Engine::steelyard, "--kv-type"},
                                     {Engine::ollama, "OLLAMA_KV_CACHE_TYPE"},
                                     {Engine::llama_cpp, "--cache-type-k"}}) {
    Facts f = half_on_cpu(kGiB);
    f.devices[0].holds["KV state"] = 6 * kGiB;
    f.engine = engine;
    const auto findings = find_causes(f);
    const auto found = std::ranges::find(findings, Cause::kv_type, &Finding::cause);
    ASSERT_NE(found, findings.end());
    EXPECT_NE(found->change.find(word), std::string::npos) << found->change;
  }
}

TEST(Limits, AllCardsReadAtOnce) {
  const Facts f = two_cards();
  EXPECT_NEAR(limit_seconds(f), 8.2e9 / 1800e9, 1e-6);
  EXPECT_NEAR(limit_in_turn(f), 8.2e9 / 900e9, 1e-6);
}

// What no card has room for is the CPU's.
TEST(Limits, TheCpuTakesWhatHasNoRoom) {
  Facts f = half_on_cpu(0);
  f.devices[0].memory = 5 * kGiB;
  const double room = 0.92 * 5 * kGiB, rest = 8.1e9 - room;
  EXPECT_NEAR(limit_seconds(f), rest / 60e9, 1e-4);
}

}  // namespace
}  // namespace steelyard::doctor
