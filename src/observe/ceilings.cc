#include "observe/ceilings.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>
#include <system_error>

#include "base/dtype.h"
#include "base/error.h"
#include "base/input_file.h"
#include "base/process.h"
#include "program/uses.h"

namespace steelyard {
namespace {

using Json = nlohmann::ordered_json;

double number(const Json& object, const char* key) {
  const double value = object.at(key).get<double>();
  if (!(value >= 0)) throw std::runtime_error(fmt::format("{} is {}", key, value));
  return value;
}

Ceilings from_json(const Json& json) {
  Ceilings c;
  c.device = json.at("device").get<std::string>();
  c.threads = json.at("threads").get<std::uint32_t>();
  c.read_bytes_per_second = number(json, "read_bytes_per_second");
  const Json& rates = json.at("multiply_per_second");
  for (const auto& [name, rate] : rates.items())
    if (const auto type = find_dtype(name)) c.multiply_per_second[type->type] = number(rates, name.c_str());
  c.to_device_bytes_per_second = number(json, "to_device_bytes_per_second");
  c.from_device_bytes_per_second = number(json, "from_device_bytes_per_second");
  c.launch_seconds = number(json, "launch_seconds");
  c.measured_at = json.value("measured_at", "");
  return c;
}

std::string now_text() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

}  // namespace

Ceilings measure_ceilings(Device& device) {
  const DeviceRates rates = device.measure_rates();
  return {.device = device.info().name,
          .threads = device.info().threads,
          .read_bytes_per_second = rates.read_bytes_per_second,
          .multiply_per_second = {rates.multiply_per_second.begin(), rates.multiply_per_second.end()},
          .to_device_bytes_per_second = rates.to_device_bytes_per_second,
          .from_device_bytes_per_second = rates.from_device_bytes_per_second,
          .launch_seconds = rates.launch_seconds,
          .measured_at = now_text()};
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
  return base / "steelyard" / fmt::format("ceilings-{}.json", name);
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
            {"read_bytes_per_second", ceilings.read_bytes_per_second},
            {"multiply_per_second", Json::object()},
            {"to_device_bytes_per_second", ceilings.to_device_bytes_per_second},
            {"from_device_bytes_per_second", ceilings.from_device_bytes_per_second},
            {"launch_seconds", ceilings.launch_seconds},
            {"measured_at", ceilings.measured_at}};
  for (const auto& [type, rate] : ceilings.multiply_per_second)
    json["multiply_per_second"][std::string(dtype_info(type).name)] = rate;
  std::error_code failed;
  std::filesystem::create_directories(path.parent_path(), failed);
  const std::filesystem::path beside = path.string() + ".new";
  {
    std::ofstream file(beside);
    file << json.dump(2, ' ', false, Json::error_handler_t::replace) << "\n";
    file.close();
    if (!file) throw_error(ErrorKind::io, "{} can't be written", beside.string());
  }
  std::filesystem::rename(beside, path, failed);
  if (failed) throw_error(ErrorKind::io, "{} can't be written: {}", path.string(), failed.message());
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
    if (cost.flops <= 0) continue;
    double elements = 0;
    const Products multiplied = products(op);
    for (const WeightId w : multiplied.weights)
      elements += static_cast<double>(program.weights[w].elements());
    for (const WeightId w : multiplied.weights) {
      const WeightSpec& weight = program.weights[w];
      const auto rate = ceilings.multiply_per_second.find(weight.type);
      limit.multiply_seconds += cost.flops * static_cast<double>(weight.elements()) / elements /
                                (rate == ceilings.multiply_per_second.end() ? best_rate : rate->second);
    }
  }
  if (ceilings.read_bytes_per_second > 0) limit.read_seconds = bytes / ceilings.read_bytes_per_second;
  return limit;
}

double achieved_over_limit(const Program& program, const StepShape& shape, double seconds,
                           const Ceilings& ceilings) {
  return seconds > 0 ? step_limit(program, shape, ceilings).seconds() / seconds : 0;
}

}  // namespace steelyard
