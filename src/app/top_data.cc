#include "app/top_data.h"

#include <algorithm>
#include <charconv>
#include <chrono>

namespace steelyard {
namespace {

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename List>
auto& named(List& list, const std::string& name) {
  const auto found = std::ranges::find_if(list, [&](const auto& m) { return m.name == name; });
  if (found != list.end()) return *found;
  list.emplace_back().name = name;
  return list.back();
}

// Labels up to '}'; false when the quotes don't end.
bool read_labels(std::string_view& text, std::map<std::string, std::string>& labels) {
  while (!text.empty() && text.front() != '}') {
    const std::size_t equals = text.find("=\"");
    if (equals == text.npos) return false;
    const std::string key(text.substr(0, equals));
    std::string value;
    std::size_t at = equals + 2;
    for (; at < text.size() && text[at] != '"'; ++at) {
      if (text[at] == '\\' && at + 1 < text.size()) ++at;
      value += text[at];
    }
    if (at >= text.size()) return false;
    labels[key] = value;
    text.remove_prefix(at + 1);
    if (text.starts_with(',')) text.remove_prefix(1);
  }
  if (text.empty()) return false;
  text.remove_prefix(1);
  return true;
}

void take_model(const MetricLine& m, TopData& data) {
  const auto label = m.labels.find("model");
  if (label == m.labels.end()) return;
  const std::pair<std::string_view, double TopModel::*> fields[] = {
      {"steelyard_requests_running", &TopModel::running},
      {"steelyard_requests_waiting", &TopModel::waiting},
      {"steelyard_slots", &TopModel::slots},
      {"steelyard_kv_pages", &TopModel::kv_pages},
      {"steelyard_kv_pages_in_use", &TopModel::kv_in_use},
      {"steelyard_achieved_over_limit", &TopModel::achieved},
      {"steelyard_step_generated_tokens_total", &TopModel::generated},
      {"steelyard_step_prompt_tokens_total", &TopModel::prompts},
      {"steelyard_step_seconds_total", &TopModel::steps_seconds}};
  TopModel& model = named(data.models, label->second);
  for (const auto& [name, field] : fields)
    if (m.name == name) model.*field = m.value;
  if (m.name != "steelyard_memory_bytes") return;
  const auto device = m.labels.find("device"), purpose = m.labels.find("purpose");
  if (device != m.labels.end() && purpose != m.labels.end())
    model.memory[device->second][purpose->second] = m.value;
}

void take_gpu(const MetricLine& m, TopData& data) {
  const auto index = m.labels.find("gpu"), name = m.labels.find("name"), reason = m.labels.find("reason");
  if (index == m.labels.end()) return;
  std::uint32_t i = 0;
  const std::string& text = index->second;
  if (std::from_chars(text.data(), text.data() + text.size(), i).ec != std::errc() || i >= 256) return;
  if (data.gpus.size() <= i) data.gpus.resize(i + 1);
  GpuTelemetry& t = data.gpus[i];
  t.index = i;
  if (name != m.labels.end()) t.name = name->second;
  const auto is = [&](std::string_view what) { return m.name == what; };
  if (is("steelyard_gpu_memory_bytes")) t.memory = static_cast<std::uint64_t>(m.value);
  if (is("steelyard_gpu_memory_used_bytes")) t.memory_used = static_cast<std::uint64_t>(m.value);
  if (is("steelyard_gpu_busy_ratio")) t.busy_percent = static_cast<std::uint32_t>(100 * m.value + 0.5);
  if (is("steelyard_gpu_memory_busy_ratio"))
    t.memory_busy_percent = static_cast<std::uint32_t>(100 * m.value + 0.5);
  if (is("steelyard_gpu_temperature_celsius")) t.celsius = m.value;
  if (is("steelyard_gpu_power_watts")) t.watts = m.value;
  if (is("steelyard_gpu_power_limit_watts")) t.watts_limit = m.value;
  if (is("steelyard_gpu_clock_hertz")) t.clock_mhz = m.value / 1e6;
  if (is("steelyard_gpu_clock_most_hertz")) t.clock_most_mhz = m.value / 1e6;
  if (!is("steelyard_gpu_held_back") || reason == m.labels.end() || m.value <= 0) return;
  t.power_capped |= reason->second == "power";
  t.too_hot |= reason->second == "heat";
  t.clocks_set |= reason->second == "clocks_set";
}

void take_host(const MetricLine& m, TopData& data) {
  const auto is = [&](std::string_view what) { return m.name == what; };
  if (is("steelyard_process_resident_bytes")) data.host.resident = static_cast<std::uint64_t>(m.value);
  if (is("steelyard_process_swapped_bytes")) data.host.swapped = static_cast<std::uint64_t>(m.value);
  if (is("steelyard_process_cpu_seconds_total")) data.host.cpu_seconds = m.value;
  if (is("steelyard_host_busy_seconds_total")) data.host.machine_busy = m.value;
  if (is("steelyard_host_cores")) data.cores = m.value;
  if (is("steelyard_host_memory_bytes")) data.memory = m.value;
  if (is("steelyard_prompt_tokens_total")) data.prompt_tokens = m.value;
  if (is("steelyard_prompt_cached_tokens_total")) data.cached_tokens = m.value;
}

double rate(double before, double now, double seconds) {
  return seconds > 0 && now > before ? (now - before) / seconds : 0;
}

nlohmann::ordered_json gpu_json(const GpuTelemetry& t) {
  return {{"gpu", t.index},
          {"name", t.name},
          {"busy_ratio", t.busy_percent / 100.0},
          {"memory_busy_ratio", t.memory_busy_percent / 100.0},
          {"memory_bytes", t.memory},
          {"memory_used_bytes", t.memory_used},
          {"celsius", t.celsius},
          {"watts", t.watts},
          {"watts_limit", t.watts_limit},
          {"clock_mhz", t.clock_mhz},
          {"clock_most_mhz", t.clock_most_mhz},
          {"power_capped", t.power_capped},
          {"too_hot", t.too_hot},
          {"clocks_set", t.clocks_set}};
}

}  // namespace

double TopModel::bytes() const {
  double sum = 0;
  for (const auto& [device, purposes] : memory)
    for (const auto& [purpose, n] : purposes) sum += n;
  return sum;
}

bool read_metric(std::string_view line, MetricLine& metric) {
  metric = {};
  if (line.empty() || line.front() == '#') return false;
  const std::size_t end = line.find_first_of("{ ");
  if (end == line.npos || end == 0) return false;
  metric.name = std::string(line.substr(0, end));
  const bool labelled = line[end] == '{';
  line.remove_prefix(end + 1);
  if (labelled && !read_labels(line, metric.labels)) return false;
  while (line.starts_with(' ')) line.remove_prefix(1);
  return std::from_chars(line.data(), line.data() + line.size(), metric.value).ec == std::errc();
}

TopData read_top(std::string_view metrics) {
  TopData data;
  data.at = seconds_now();
  MetricLine m;
  while (!metrics.empty()) {
    const std::size_t end = metrics.find('\n');
    if (read_metric(metrics.substr(0, end), m)) {
      take_model(m, data);
      take_gpu(m, data);
      take_host(m, data);
    }
    metrics.remove_prefix(end == metrics.npos ? metrics.size() : end + 1);
  }
  return data;
}

TopData this_machine(const GpuMonitor* monitor) {
  TopData data;
  data.at = seconds_now();
  data.host = sample_host();
  const HostFacts host = read_host();
  data.cores = host.cores;
  data.memory = static_cast<double>(host.memory);
  if (monitor) data.gpus = monitor->read();
  return data;
}

void add_rates(const TopData& before, TopData& now) {
  const double seconds = now.at - before.at;
  now.own_cores = rate(before.host.cpu_seconds, now.host.cpu_seconds, seconds);
  now.other_cores =
      std::max(0.0, rate(before.host.machine_busy, now.host.machine_busy, seconds) - now.own_cores);
  for (TopModel& m : now.models) {
    const auto old = std::ranges::find(before.models, m.name, &TopModel::name);
    if (old == before.models.end()) continue;
    m.generated_per_second = rate(old->generated, m.generated, seconds);
    m.prompts_per_second = rate(old->prompts, m.prompts, seconds);
    m.busy = std::min(1.0, rate(old->steps_seconds, m.steps_seconds, seconds));
  }
}

void sort_models(std::vector<TopModel>& models, TopOrder order) {
  std::ranges::stable_sort(models, [order](const TopModel& a, const TopModel& b) {
    if (order == TopOrder::speed) return a.generated_per_second > b.generated_per_second;
    if (order == TopOrder::memory) return a.bytes() > b.bytes();
    return a.name < b.name;
  });
}

nlohmann::ordered_json to_json(const TopData& d) {
  using Json = nlohmann::ordered_json;
  Json models = Json::array(), gpus = Json::array();
  for (const TopModel& m : d.models)
    models.push_back({{"name", m.name},
                      {"generated_per_second", m.generated_per_second},
                      {"prompt_per_second", m.prompts_per_second},
                      {"achieved_over_limit", m.achieved > 0 ? Json(m.achieved) : Json()},
                      {"busy_ratio", m.busy},
                      {"running", m.running},
                      {"waiting", m.waiting},
                      {"slots", m.slots},
                      {"kv_pages", m.kv_pages},
                      {"kv_pages_in_use", m.kv_in_use},
                      {"memory", m.memory}});
  for (const GpuTelemetry& t : d.gpus) gpus.push_back(gpu_json(t));
  return {{"server", d.server.empty() ? Json() : Json(d.server)},
          {"note", d.note},
          {"models", std::move(models)},
          {"gpus", std::move(gpus)},
          {"host",
           {{"cores", d.cores},
            {"own_cores", d.own_cores},
            {"other_cores", d.other_cores},
            {"memory_bytes", d.memory},
            {"resident_bytes", d.host.resident}}},
          {"prompt_tokens", d.prompt_tokens},
          {"cached_tokens", d.cached_tokens}};
}

}  // namespace steelyard
