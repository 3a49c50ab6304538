// Causes that lie in the machine: quotas, other programs, heat and power, memory that isn't there, disks.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "base/units.h"
#include "doctor/rules.h"

namespace steelyard::doctor {
namespace {

constexpr double kSlowDisk = 400e6;               // bytes/s: below what SATA's fast disks give
constexpr double kClockLoss = 0.93;               // of the highest clock: more is no loss to speak of
constexpr std::uint64_t kForeign = 512ull << 20;  // of a GPU: a desktop takes less
constexpr double kFaultsASecond = 100;

// Whether the CPU computes some of the model.
bool cpu_works(const Facts& f) {
  const DeviceFacts* host = f.host_device();
  return host && host->reads() > 0;
}

std::string names(const std::vector<OtherProcess>& list) {
  std::string text;
  for (const OtherProcess& p : list)
    text += fmt::format("{}{}", text.empty() ? "" : ", ",
                        p.name.empty() ? fmt::format("process {}", p.pid) : p.name);
  return text;
}

Found threads_over_quota(const Facts& f) {
  if (!f.host || f.host->quota <= 0 || !cpu_works(f) || f.threads <= std::ceil(f.host->quota)) return {};
  const auto threads = std::max(1u, static_cast<unsigned>(f.host->quota));
  const std::string waited =
      f.run && f.run->throttled > 0
          ? fmt::format(", which held them up for {:.1f} s of {:.1f}", f.run->throttled, f.run->seconds)
          : "";
  Finding found{
      Cause::threads_over_quota,
      fmt::format(
          "{} threads compute, where the control group's quota lets {:.4g} cores run{}: one that waits for "
          "its turn holds up all",
          f.threads, f.host->quota, waited),
      setting(f, fmt::format("--threads {}", threads),
              fmt::format("PARAMETER num_thread {} in the Modelfile", threads),
              fmt::format("--threads {}", threads)),
      {{"--threads", std::to_string(threads)}}};
  if (f.tokens_per_second > 0) {
    found.predicted = f.tokens_per_second * f.threads / std::max(1.0, f.host->quota);
    found.at_most = true;
  }
  return found;
}

Found threads_over_cores(const Facts& f) {
  if (!f.host || f.host->usable == 0 || !cpu_works(f) || f.threads <= f.host->usable) return {};
  Finding found{Cause::threads_over_cores,
                fmt::format("{} threads compute on {} cores", f.threads, f.host->usable),
                setting(f, "leave --threads out",
                        fmt::format("PARAMETER num_thread {} in the Modelfile", f.host->usable),
                        fmt::format("--threads {}", f.host->usable)),
                {{"--threads", std::to_string(f.host->usable)}}};
  if (f.tokens_per_second > 0) {
    found.predicted = f.tokens_per_second * f.threads / f.host->usable;
    found.at_most = true;
  }
  return found;
}

Found cpu_shared(const Facts& f) {
  if (!f.run || !f.host || !cpu_works(f)) return {};
  const double cores = std::max(1u, f.host->usable);
  if (f.run->other_cores < 0.5 || f.run->other_cores < 0.25 * cores) return {};
  if (f.run->own_cores + f.run->other_cores < 0.8 * cores) return {};  // there was room for both
  const std::string who = f.busy.empty() ? "other programs" : names(f.busy);
  Finding found{Cause::cpu_shared,
                fmt::format("{} used {:.1f} of {} cores meanwhile", who, f.run->other_cores, f.host->usable),
                "end what isn't needed, or give it fewer cores (taskset, nice)"};
  if (f.tokens_per_second > 0) {
    found.predicted = f.tokens_per_second * (1 + f.run->other_cores / std::max(0.5, f.run->own_cores));
    found.at_most = true;
  }
  return found;
}

Found gpu_shared(const Facts& f) {
  for (const DeviceFacts* g : f.gpus()) {
    std::uint64_t bytes = 0;
    for (const OtherProcess& p : g->others) bytes += p.bytes;
    if (bytes < kForeign) continue;
    return Finding{Cause::gpu_shared,
                   fmt::format("{} of {} are other programs': {}", size_text(bytes), g->id, names(g->others)),
                   "end them, or let them use another GPU: what they hold isn't there for layers, and while "
                   "they compute the "
                   "model waits"};
  }
  return {};
}

// The first GPU that is held back so.
template <typename Held>
Found held_back(const Facts& f, Cause cause, Held held, const char* why, const std::string& change) {
  for (const DeviceFacts* g : f.gpus()) {
    if (!g->health || g->reads() <= 0 || !held(*g->health)) continue;
    const GpuHealth& h = *g->health;
    const double of = h.clock_most_mhz > 0 ? h.clock_mhz / h.clock_most_mhz : 1;
    if (of > kClockLoss || of <= 0) continue;
    Finding found{cause,
                  fmt::format("{} ran at {:.0f} of {:.0f} MHz {} ({:.0f} °C, {:.0f} of {:.0f} W)", g->id,
                              h.clock_mhz, h.clock_most_mhz, why, h.celsius, h.watts, h.watts_limit),
                  change};
    if (f.tokens_per_second > 0) found.predicted = f.tokens_per_second / of, found.at_most = true;
    return found;
  }
  return {};
}

Found power_cap(const Facts& f) {
  return held_back(
      f, Cause::power_cap, [](const GpuHealth& h) { return h.power_capped && !h.too_hot; },
      "because of its power limit",
      "a higher limit (sudo nvidia-smi -pl WATTS), where power supply and cooling allow it");
}
Found heat(const Facts& f) {
  return held_back(
      f, Cause::heat, [](const GpuHealth& h) { return h.too_hot; }, "because it is too hot",
      "air: dust, fans, the space between cards; or a lower power limit, which costs little speed (sudo "
      "nvidia-smi -pl WATTS)");
}
Found clocks_set(const Facts& f) {
  return held_back(
      f, Cause::clocks_set, [](const GpuHealth& h) { return h.clocks_set && !h.power_capped && !h.too_hot; },
      "because its clocks are set so", "the clocks' reset (sudo nvidia-smi -rgc -rac)");
}

Found slow_clocks(const Facts& f) {
  if (!f.host || f.host->governor != "powersave" || !cpu_works(f)) return {};
  if (f.host->cpu.find("Intel") != f.host->cpu.npos) return {};  // whose driver calls its usual way so
  return Finding{Cause::slow_clocks, "the processor's clock is governed to save power (powersave)",
                 "echo performance | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor"};
}

Found numa(const Facts& f) {
  if (!f.host || f.host->numa_nodes < 2 || !cpu_works(f)) return {};
  return Finding{
      Cause::numa,
      fmt::format("the memory lies on {} NUMA nodes, and threads of one read weights that lie on another",
                  f.host->numa_nodes),
      "numactl --interleave=all in front of the command; or, where one node's memory holds the model, "
      "--cpunodebind=0 --membind=0"};
}

bool pages_come_back(const Facts& f) {
  return f.run && f.run->seconds > 0 &&
         static_cast<double>(f.run->major_faults) / f.run->seconds > kFaultsASecond;
}

Found memory_limit(const Facts& f) {
  if (!f.host || f.host->memory_limit == 0) return {};
  if (!pages_come_back(f) && !(f.run && f.run->swapped > (32u << 20))) return {};
  return Finding{
      Cause::memory_limit,
      fmt::format("the container may use {} of the machine's {}, and the model's pages don't stay in it",
                  size_text(f.host->memory_limit), size_text(f.host->memory)),
      setting(f, "a higher limit for the container (--memory), or a smaller --context or model",
              "a higher limit for the container (--memory), or a smaller num_ctx or model",
              "a higher limit for the container (--memory), or a smaller --ctx-size or model")};
}

Found swap(const Facts& f) {
  if (!f.run || memory_limit(f)) return {};
  const bool swapped = f.run->swapped > (32u << 20);
  if (!swapped && !pages_come_back(f)) return {};
  const std::string seen =
      swapped ? fmt::format("{} of this process lie in swap", size_text(f.run->swapped))
              : fmt::format("{} pages came from the disk in {:.1f} s", f.run->major_faults, f.run->seconds);
  return Finding{Cause::swap, seen + ": a disk is a hundred times slower than memory",
                 setting(f, "end other programs, or a smaller --context or model",
                         "end other programs, or a smaller num_ctx or model; use_mmap false once it fits",
                         "end other programs, or a smaller --ctx-size or model; --mlock once it fits")};
}

Found network_disk(const Facts& f) {
  if (!f.file || !f.file->network || f.file->cached > 0.9) return {};
  return Finding{
      Cause::network_disk,
      fmt::format("the file ({}) lies on {}, and memory has {:.0f} % of it: every load reads it over again",
                  size_text(f.file->bytes), f.file->system, 100 * f.file->cached),
      "a copy on a disk of this machine"};
}

Found slow_disk(const Facts& f) {
  if (!f.file || f.file->read_rate <= 0 || f.file->read_rate > kSlowDisk || f.file->cached > 0.9 ||
      network_disk(f))
    return {};
  return Finding{
      Cause::slow_disk,
      fmt::format("the disk{} gives {:.0f} MB/s: reading the file's {} takes {:.0f} s",
                  f.file->spinning ? ", which turns," : "", f.file->read_rate / 1e6, size_text(f.file->bytes),
                  static_cast<double>(f.file->bytes) / f.file->read_rate),
      setting(f, "a copy on a faster disk; serve --keep-alive -1 loads it once",
              "a copy on a faster disk (OLLAMA_MODELS); OLLAMA_KEEP_ALIVE=-1 loads it once",
              "a copy on a faster disk")};
}

}  // namespace

std::vector<Rule> machine_rules() {
  return {threads_over_quota, threads_over_cores, swap,       memory_limit, heat, power_cap,
          clocks_set,         gpu_shared,         cpu_shared, slow_clocks,  numa, network_disk,
          slow_disk};
}

}  // namespace steelyard::doctor
