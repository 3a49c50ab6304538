#include "observe/ceilings.h"

#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/dtype.h"
#include "base/error.h"
#include "base/input_file.h"
#include "base/output_file.h"
#include "base/process.h"
#include "base/sha256.h"
#include "base/units.h"
#include "program/uses.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

constexpr int kProbeVersion = 2;  // a new one measures anew
constexpr double kLargeSpread = 0.5;

double number(const Json& object, const char* key) {
  const double value = object.at(key).get<double>();
  if (!(value >= 0)) throw std::runtime_error(fmt::format("{} is {}", key, value));
  return value;
}

Ceilings from_json(const Json& json) {
  Ceilings c;
  c.device = json.at("device").get<std::string>();
  c.threads = json.at("threads").get<std::uint32_t>();
  c.conditions = json.at("conditions").get<std::string>();
  c.read_bytes_per_second = number(json, "read_bytes_per_second");
  const Json& cached = json.at("cached_reads");
  for (const auto& [bytes, rate] : cached.items())
    c.cached_reads[std::stoull(bytes)] = number(cached, bytes.c_str());
  const Json& rates = json.at("multiply_per_second");
  for (const auto& [name, rate] : rates.items())
    if (const auto type = find_dtype(name)) c.multiply_per_second[type->type] = number(rates, name.c_str());
  c.to_device_bytes_per_second = number(json, "to_device_bytes_per_second");
  c.from_device_bytes_per_second = number(json, "from_device_bytes_per_second");
  c.launch_seconds = number(json, "launch_seconds");
  c.measured_at = json.value("measured_at", "");
  c.load = number(json, "load");
  c.spread = number(json, "spread");
  c.raised_at = json.value("raised_at", "");
  return c;
}

std::string now_text() {
  return rfc3339(std::chrono::floor<std::chrono::seconds>(std::chrono::system_clock::now()));
}

double load_average() {
  double load = 0;
  return getloadavg(&load, 1) == 1 ? load : 0;
}

// "0-3,8": the cores that this process may use.
std::string allowed_cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) != 0) return "?";
  std::string text;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &set)) continue;
    int last = core;
    while (last + 1 < CPU_SETSIZE && CPU_ISSET(last + 1, &set)) ++last;
    text += fmt::format("{}{}", text.empty() ? "" : ",", core);
    if (last > core) text += fmt::format("-{}", last);
    core = last;
  }
  return text;
}

// ", 1.5 cores' worth of time" where a control group's quota says so.
std::string quota_text() {
  std::ifstream in("/proc/self/cgroup");
  const std::string groups((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const double cores = control_group_cores("/sys/fs/cgroup", groups);
  return std::isfinite(cores) ? fmt::format(", {:.2f} cores' worth of time", cores) : std::string();
}

// The rate at which a step's bytes can be read when the next step reads them again.
double read_rate(const Ceilings& c, double bytes) {
  const auto& cached = c.cached_reads;
  if (cached.empty() || bytes >= 2 * static_cast<double>(cached.rbegin()->first))
    return c.read_bytes_per_second;
  // The largest buffer that isn't larger: its rate is no less than that of these bytes.
  const auto above = cached.upper_bound(static_cast<std::uint64_t>(bytes));
  const double rate = above == cached.begin() ? above->second : std::prev(above)->second;
  return std::max(rate, c.read_bytes_per_second);
}

}  // namespace

Ceilings measure_ceilings(Device& device) {
  const double load = load_average();
  const DeviceRates rates = device.measure_rates();
  return {.device = device.info().name,
          .threads = device.info().threads,
          .conditions = ceilings_conditions(device.info()),
          .read_bytes_per_second = rates.read_bytes_per_second,
          .cached_reads = {rates.cached_reads.begin(), rates.cached_reads.end()},
          .multiply_per_second = {rates.multiply_per_second.begin(), rates.multiply_per_second.end()},
          .to_device_bytes_per_second = rates.to_device_bytes_per_second,
          .from_device_bytes_per_second = rates.from_device_bytes_per_second,
          .launch_seconds = rates.launch_seconds,
          .measured_at = now_text(),
          .load = load,
          .spread = rates.read_spread};
}

std::string ceilings_conditions(const DeviceInfo& device) {
  if (device.threads == 0) return fmt::format("{}; probe {}", device.kernels, kProbeVersion);
  return fmt::format("{} on {} threads, cores {}{}; probe {}", device.kernels, device.threads,
                     allowed_cores(), quota_text(), kProbeVersion);
}

std::filesystem::path ceilings_path(const DeviceInfo& device) {
  std::filesystem::path base;
  if (const char* cache = std::getenv("XDG_CACHE_HOME"); cache && *cache) {
    base = cache;
  } else if (const std::string home = home_directory(); !home.empty()) {
    base = std::filesystem::path(home) / ".cache";
  } else {
    throw_error(ErrorKind::io, "neither XDG_CACHE_HOME nor HOME says where to keep measured ceilings");
  }
  std::string name = device.name;
  if (device.threads) name += fmt::format("-{}", device.threads);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c)) && c != '.' && c != '_') c = '-';
  const std::string digest = sha256_hex(ceilings_conditions(device)).substr(0, 8);
  return base / "steelyard" / fmt::format("ceilings-{}-{}.json", name, digest);
}

std::optional<Ceilings> load_ceilings(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return std::nullopt;
  try {
    const InputFile file = InputFile::open(path);  // refuses a pipe, which might never end
    std::string text(file.size(), '\0');
    file.read(0, std::as_writable_bytes(std::span(text)));
    return from_json(Json::parse(text));
  } catch (const std::exception& e) {
    throw_error(ErrorKind::bad_input, "{} holds no measured ceilings ({}): run `steelyard probe` again",
                path.string(), e.what());
  }
}

void save_ceilings(const Ceilings& ceilings, const std::filesystem::path& path) {
  Json json{{"device", ceilings.device},
            {"threads", ceilings.threads},
            {"conditions", ceilings.conditions},
            {"read_bytes_per_second", ceilings.read_bytes_per_second},
            {"cached_reads", Json::object()},
            {"multiply_per_second", Json::object()},
            {"to_device_bytes_per_second", ceilings.to_device_bytes_per_second},
            {"from_device_bytes_per_second", ceilings.from_device_bytes_per_second},
            {"launch_seconds", ceilings.launch_seconds},
            {"measured_at", ceilings.measured_at},
            {"load", ceilings.load},
            {"spread", ceilings.spread},
            {"raised_at", ceilings.raised_at}};
  for (const auto& [bytes, rate] : ceilings.cached_reads) json["cached_reads"][std::to_string(bytes)] = rate;
  for (const auto& [type, rate] : ceilings.multiply_per_second)
    json["multiply_per_second"][std::string(dtype_info(type).name)] = rate;
  std::error_code ignored;  // OutputFile says what is wrong
  std::filesystem::create_directories(path.parent_path(), ignored);
  const std::string text = json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
  write_file(path, text);
}

Ceilings best_of(const Ceilings& before, const Ceilings& now) {
  Ceilings best = now;
  const auto keep = [](double& rate, double other) { rate = std::max(rate, other); };
  keep(best.read_bytes_per_second, before.read_bytes_per_second);
  for (const auto& [bytes, rate] : before.cached_reads) keep(best.cached_reads[bytes], rate);
  for (const auto& [type, rate] : before.multiply_per_second) keep(best.multiply_per_second[type], rate);
  keep(best.to_device_bytes_per_second, before.to_device_bytes_per_second);
  keep(best.from_device_bytes_per_second, before.from_device_bytes_per_second);
  if (before.launch_seconds > 0 && (best.launch_seconds <= 0 || before.launch_seconds < best.launch_seconds))
    best.launch_seconds = before.launch_seconds;
  if (best.raised_at.empty()) best.raised_at = before.raised_at;
  // A quiet measurement is worth more than a busy one that came later.
  if (before.load + before.spread < now.load + now.spread) {
    best.load = before.load;
    best.spread = before.spread;
  }
  return best;
}

unsigned machine_cores() { return static_cast<unsigned>(std::max(1L, sysconf(_SC_NPROCESSORS_ONLN))); }

bool measured_while_busy(const Ceilings& c, unsigned cores) {
  return c.threads > 0 && (c.load > 0.5 * cores || c.spread > kLargeSpread);
}

std::string measured_text(const Ceilings& c, unsigned cores) {
  std::string text = "measured " + c.measured_at;
  if (const auto at = parse_rfc3339(c.measured_at)) {
    const auto age = std::chrono::duration_cast<std::chrono::seconds>(std::chrono::system_clock::now() - *at);
    if (age.count() > 60) text = "measured " + span_text(age) + " ago";
  }
  if (measured_while_busy(c, cores))
    text += fmt::format(", while the machine was busy (load {:.1f}, repeats differ by {:.0f} %)", c.load,
                        100 * c.spread);
  if (!c.raised_at.empty()) text += ", raised by a faster run since";
  return text;
}

void raise_ceilings(Ceilings& c, const StepLimit& limit, double factor) {
  if (!(factor > 1)) return;
  // What bounds it less may have been beaten as well.
  const double took = limit.seconds() / factor;
  if (const double reads = limit.read_seconds / took; reads > 1) {
    c.read_bytes_per_second *= reads;
    for (auto& [bytes, rate] : c.cached_reads) rate *= reads;
  }
  if (const double products = limit.multiply_seconds / took; products > 1)
    for (auto& [type, rate] : c.multiply_per_second) rate *= products;
  c.raised_at = now_text();
}

StepLimit step_limit(const Program& program, const StepShape& shape, const Ceilings& ceilings) {
  double best_rate = 0;
  for (const auto& [type, rate] : ceilings.multiply_per_second) best_rate = std::max(best_rate, rate);
  StepLimit limit;
  double bytes = 0;
  for (const Op& op : program.ops) {
    const OpCost cost = op_cost(program, op, shape);
    bytes += cost.weight_bytes + cost.state_bytes;
    if (best_rate <= 0) continue;
    limit.multiply_seconds += cost.attention_flops / best_rate;
    for (const UsedWeight& used : weights_of(op)) {
      const auto rate = ceilings.multiply_per_second.find(program.weights[used.id].type);
      limit.multiply_seconds += weight_cost(program, op, used, shape).flops /
                                (rate == ceilings.multiply_per_second.end() ? best_rate : rate->second);
    }
  }
  if (const double rate = read_rate(ceilings, bytes); rate > 0) limit.read_seconds = bytes / rate;
  return limit;
}

double achieved_over_limit(const Program& program, const StepShape& shape, double seconds,
                           const Ceilings& ceilings) {
  return seconds > 0 ? step_limit(program, shape, ceilings).seconds() / seconds : 0;
}

StageLimits stage_limits(std::span<const LimitPart> parts, const StepShape& shape) {
  StageLimits limits;
  double stage = 0;  // its slowest rank so far
  for (std::size_t i = 0; i < parts.size(); ++i) {
    const double seconds = step_limit(*parts[i].program, shape, *parts[i].ceilings).seconds();
    if (seconds <= 0) return {};
    stage = std::max(stage, seconds);
    if (i + 1 < parts.size() && parts[i + 1].program->rank > 0) continue;
    limits.all += stage;
    limits.longest = std::max(limits.longest, stage);
    stage = 0;
  }
  return limits;
}

}  // namespace steelyard
