// strata probe
#include <memory>
#include <sstream>

#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "base/error.h"
#include "base/thread_pool.h"

namespace strata {
namespace {

struct Flags {
  std::string threads;
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
      throw_error(ErrorKind::bad_input,
                  "--threads wants numbers from 1 to 1024 separated by commas, not '{}'", text);
    counts.push_back(n);
  }
  return counts;
}

nlohmann::ordered_json to_json(const Ceilings& c) {
  nlohmann::ordered_json value = {{"cpu", c.cpu},
                                  {"threads", c.threads},
                                  {"read_bytes_per_second", c.read_bytes_per_second},
                                  {"measured_at", c.measured_at}};
  for (const auto& [type, rate] : c.multiply_per_second)
    value["multiply_per_second"][std::string(dtype_info(type).name)] = rate;
  return value;
}

void print_table(const std::vector<Ceilings>& all) {
  print("{}\n\n{:<18}", all.front().cpu, "threads");
  for (const auto& c : all) print(" {:>10}", c.threads);
  print("\n{:<18}", "read GB/s");
  for (const auto& c : all) print(" {:>10.1f}", c.read_bytes_per_second / 1e9);
  for (const auto& [type, rate] : all.front().multiply_per_second) {
    print("\n{:<18}", fmt::format("{} Gop/s", dtype_info(type).name));
    for (const auto& c : all) {
      const auto found = c.multiply_per_second.find(type);
      print(" {:>10.1f}", found == c.multiply_per_second.end() ? 0.0 : found->second / 1e9);
    }
  }
  print("\n\nA multiply-add counts as two operations. Measured {}.\n", all.front().measured_at);
}

int probe(const Flags& flags) {
  std::vector<Ceilings> all;
  for (const std::uint32_t n : thread_counts(flags.threads)) all.push_back(machine_ceilings(n, flags.again));
  if (flags.json) {
    auto array = nlohmann::ordered_json::array();
    for (const auto& c : all) array.push_back(to_json(c));
    print_json({{"ceilings", std::move(array)}});
  } else {
    print_table(all);
  }
  return 0;
}

}  // namespace

void add_probe(CLI::App& app, Action& action) {
  auto* command =
      add_command(app, "probe",
                  "measure this machine's limits: read bandwidth, multiply rate per weight type, by threads\n"
                  "The figures are kept in the user's cache and used by run, bench and serve.",
                  "  strata probe\n"
                  "  strata probe --threads 1,2,8 --again\n"
                  "  strata probe --json");
  auto flags = std::make_shared<Flags>();
  command->add_option("--threads", flags->threads,
                      "thread counts, separated by commas (default: 1, 2, 4 … all cores)");
  command->add_flag("--again", flags->again, "measure again, even if figures are kept");
  command->add_flag("--json", flags->json, "print JSON");
  command->callback([&action, flags] { action = [flags] { return probe(*flags); }; });
}

}  // namespace strata
