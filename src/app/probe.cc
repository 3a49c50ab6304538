// steelyard probe
#include <memory>
#include <sstream>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/thread_pool.h"
#include "base/units.h"
#include "device/ceilings.h"
#include "device/device.h"
#include "device/devices.h"
#include "observe/ceilings.h"

namespace steelyard {
namespace {

struct Flags {
  std::string device = "auto", threads;
  bool again = false, json = false;
};

// "1,2,4"; none given: 1, 2, 4 … and all cores.
std::vector<std::uint32_t> thread_counts(const std::string& text) {
  std::vector<std::uint32_t> counts;
  if (text.empty()) {
    const std::uint32_t cores = ThreadPool::available_cores();
    for (std::uint32_t n = 1; n < cores; n *= 2) counts.push_back(n);
    counts.push_back(cores);
    return counts;
  }
  std::stringstream list(text);
  for (std::string part; std::getline(list, part, ',');) {
    std::uint32_t n = 0;
    if (!CLI::detail::lexical_cast(part, n) || n < 1 || n > 1024)
      throw_usage("wants numbers from 1 to 1024 separated by commas, not '{}'", text);
    counts.push_back(n);
  }
  return counts;
}

nlohmann::ordered_json to_json(const Ceilings& c) {
  nlohmann::ordered_json value = {{"device", c.device}};
  if (c.threads) value["threads"] = c.threads;
  value["read_bytes_per_second"] = c.read_bytes_per_second;
  for (const auto& [bytes, rate] : c.cached_reads) value["cached_reads"][std::to_string(bytes)] = rate;
  if (c.launch_seconds > 0) {
    value["to_device_bytes_per_second"] = c.to_device_bytes_per_second;
    value["from_device_bytes_per_second"] = c.from_device_bytes_per_second;
    value["launch_seconds"] = c.launch_seconds;
  }
  value["conditions"] = c.conditions;
  value["measured_at"] = c.measured_at;
  value["load"] = c.load;
  value["spread"] = c.spread;
  value["raised_at"] = c.raised_at.empty() ? nlohmann::ordered_json() : nlohmann::ordered_json(c.raised_at);
  for (const auto& [type, rate] : c.multiply_per_second)
    value["multiply_per_second"][std::string(dtype_info(type).name)] = rate;
  return value;
}

void print_gpu(const Ceilings& c) {
  const auto found = c.multiply_per_second.find(DType::F16);
  print("{}\n\n", c.device);
  print("{:<26}{:>10.1f}\n", "memory read, GB/s", c.read_bytes_per_second / 1e9);
  print("{:<26}{:>10}\n", "f16 tensor cores, Top/s",
        found == c.multiply_per_second.end() ? "–" : fmt::format("{:.1f}", found->second / 1e12));
  print("{:<26}{:>10.1f}\n", "host to GPU, GB/s", c.to_device_bytes_per_second / 1e9);
  print("{:<26}{:>10.1f}\n", "GPU to host, GB/s", c.from_device_bytes_per_second / 1e9);
  print("{:<26}{:>10.2f}\n\n", "kernel in a graph, µs", c.launch_seconds * 1e6);
  print(
      "Every weight type's products run on the tensor cores in f16 or bf16. A multiply-add counts as two\n"
      "operations. Limits {}.\n",
      measured_text(c, machine_cores()));
}

void print_table(const std::vector<Ceilings>& all) {
  print("{}\n\n{:<18}", all.front().device, "threads");
  for (const auto& c : all) print(" {:>10}", c.threads);
  print("\n{:<18}", "read GB/s");
  for (const auto& c : all) print(" {:>10.1f}", c.read_bytes_per_second / 1e9);
  for (const auto& [bytes, rate] : all.front().cached_reads) {
    print("\n{:<18}", fmt::format("  of {}", size_text(bytes)));
    for (const auto& c : all) {
      const auto found = c.cached_reads.find(bytes);
      print(" {:>10}", found == c.cached_reads.end() ? "–" : fmt::format("{:.1f}", found->second / 1e9));
    }
  }
  for (const auto& [type, rate] : all.front().multiply_per_second) {
    print("\n{:<18}", fmt::format("{} Gop/s", dtype_info(type).name));
    for (const auto& c : all) {
      const auto found = c.multiply_per_second.find(type);
      print(" {:>10}",
            found == c.multiply_per_second.end() ? "–" : fmt::format("{:.1f}", found->second / 1e9));
    }
  }
  print(
      "\n\nBuffers of up to {} are read again and again, as a small model's weights are: caches may hold "
      "them. A\n"
      "multiply-add counts as two operations.\n",
      all.front().cached_reads.empty() ? "no size" : size_text(all.front().cached_reads.rbegin()->first));
  for (const auto& c : all)
    print("{} thread{}: {}.\n", c.threads, c.threads == 1 ? "" : "s", measured_text(c, machine_cores()));
}

std::vector<Ceilings> probe_gpus(const Flags& flags, const DeviceName& wanted) {
  if (wanted.kind == DeviceName::Kind::cpu) return {};
  if (wanted.kind == DeviceName::Kind::cuda)
    return {device_ceilings(*make_cuda_device(wanted.index), flags.again)};
  std::vector<Ceilings> gpus;
  const CudaDevices found = find_cuda_devices();
  for (std::uint32_t i = 0; i < found.count; ++i)
    gpus.push_back(device_ceilings(*make_cuda_device(i), flags.again));
  return gpus;
}

std::vector<Ceilings> probe_cpu(const Flags& flags, const DeviceName& wanted) {
  std::vector<Ceilings> counts;
  if (wanted.kind == DeviceName::Kind::cuda) return counts;
  for (const std::uint32_t n : thread_counts(flags.threads))
    counts.push_back(device_ceilings(*make_cpu_device({.threads = n}), flags.again));
  return counts;
}

int probe(const Flags& flags) {
  const DeviceName wanted = parse_device(flags.device);
  const std::vector<Ceilings> gpus = probe_gpus(flags, wanted), cpu = probe_cpu(flags, wanted);
  if (flags.json) {
    auto array = nlohmann::ordered_json::array();
    for (const auto& c : cpu) array.push_back(to_json(c));
    for (const auto& c : gpus) array.push_back(to_json(c));
    print_json({{"ceilings", std::move(array)}});
    return 0;
  }
  if (!cpu.empty()) print_table(cpu);
  for (const Ceilings& c : gpus) {
    if (!cpu.empty() || &c != &gpus.front()) print("\n");
    print_gpu(c);
  }
  return 0;
}

}  // namespace

void add_probe(CLI::App& app, Action& action) {
  auto* command = add_command(app, "probe",
                              "measure this machine's limits\n"
                              "The CPU's read bandwidth and multiply rate per weight type, by threads; each "
                              "GPU's read bandwidth, tensor cores, link to the host and launch cost.\n"
                              "The figures are kept in the user's cache and used by run, bench and serve.",
                              "  steelyard probe\n"
                              "  steelyard probe --device cpu --threads 1,2,8 --again\n"
                              "  steelyard probe --device cuda0\n"
                              "  steelyard probe --json");
  auto flags = std::make_shared<Flags>();
  takes(command->add_option("--device", flags->device,
                            "cpu, cuda0, cuda1 … (default: auto, the CPU and every GPU)"),
        "NAME", [](const std::string& text) { parse_device(text); });
  takes(command->add_option("-t,--threads", flags->threads,
                            "thread counts, separated by commas (default: 1, 2, 4 … all cores)"),
        "N,…", [](const std::string& text) { thread_counts(text); });
  command->add_flag("--again", flags->again, "measure again, even if figures are kept");
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([&action, flags] { action = [flags] { return probe(*flags); }; });
}

}  // namespace steelyard
