#include "app/top_screen.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/units.h"
#include "device/telemetry.h"

namespace steelyard {
namespace {

const char* order_name(TopOrder order) {
  switch (order) {
    case TopOrder::speed:
      return "tokens/s";
    case TopOrder::memory:
      return "memory";
    case TopOrder::name:
      return "name";
  }
  return "?";
}

std::string size(double bytes) { return size_text(bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0); }

// Names come from files: what isn't plain ASCII would shift columns or command the terminal.
std::string plain(std::string_view text, std::size_t most) {
  std::string out;
  for (const char c : text.substr(0, most)) out += c >= ' ' && c <= '~' ? c : '?';
  return out;
}

std::string bar(double share, std::size_t width) {
  const auto full = static_cast<std::size_t>(std::clamp(share, 0.0, 1.0) * static_cast<double>(width) + 0.5);
  return fmt::format("[{}{}]", std::string(full, '#'), std::string(width - full, '.'));
}

std::string gpu_line(const GpuTelemetry& t) {
  std::string held;
  for (const auto& [on, what] :
       {std::pair{t.power_capped, " power"}, {t.too_hot, " hot"}, {t.clocks_set, " clocks"}})
    if (on) held += what;
  return fmt::format(
      "GPU{:<2} kernels {:>3} % memory bus {:>3} %  {:>4.0f}/{:.0f} MHz {:>3.0f} C {:>4.0f}/{:.0f} W{}",
      t.index, t.busy_percent, t.memory_busy_percent, t.clock_mhz, t.clock_most_mhz, t.celsius, t.watts,
      t.watts_limit, held);
}

std::string gpu_memory(const GpuTelemetry& t) {
  const double share = t.memory ? static_cast<double>(t.memory_used) / static_cast<double>(t.memory) : 0;
  return fmt::format("      {} {} of {}  {}", bar(share, 24), size_text(t.memory_used), size_text(t.memory),
                     plain(t.name, 28));
}

std::string model_line(const TopModel& m) {
  const std::string achieved = m.achieved > 0 ? fmt::format("{:.0f} %", 100 * m.achieved) : "-";
  const std::string kv = m.kv_pages > 0 ? fmt::format("{:.0f} %", 100 * m.kv_in_use / m.kv_pages) : "-";
  return fmt::format("{:<26} {:>8.1f} {:>8.1f} {:>6} {:>4.0f} {:>4.0f}/{:<3.0f} {:>5} {:>10}",
                     plain(m.name, 26), m.generated_per_second, m.prompts_per_second, achieved, m.waiting,
                     m.running, m.slots, kv, size(m.bytes()));
}

void add_map(const TopModel& m, std::vector<TopLine>& lines) {
  for (const auto& [device, purposes] : m.memory) {
    std::string text;
    for (const auto& [purpose, bytes] : purposes)
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", purpose, size(bytes));
    lines.push_back({fmt::format("   {:<6} {}", plain(device, 6), plain(text, 400))});
  }
}

void add_devices(const TopData& d, std::vector<TopLine>& lines) {
  lines.push_back({fmt::format(
      "CPU   {} {:.1f} of {:.0f} cores{}, others {:.1f}; resident {}{}",
      bar(d.cores > 0 ? (d.own_cores + d.other_cores) / d.cores : 0, 24), d.own_cores + d.other_cores,
      d.cores, d.server.empty() ? "" : fmt::format(", the server {:.1f}", d.own_cores), d.other_cores,
      size_text(d.host.resident), d.host.swapped ? ", in swap " + size_text(d.host.swapped) : "")});
  for (const GpuTelemetry& t : d.gpus) {
    lines.push_back({gpu_line(t)});
    lines.push_back({gpu_memory(t)});
  }
}

void add_models(const TopData& d, const TopView& view, std::vector<TopLine>& lines) {
  lines.push_back({""});
  lines.push_back({fmt::format("{:<26} {:>8} {:>8} {:>6} {:>4} {:>8} {:>5} {:>10}", "MODEL", "TOK/S",
                               "PROMPT/S", "LIMIT", "WAIT", "RUN/SLOT", "KV", "MEMORY"),
                   true});
  std::vector<TopModel> models = d.models;
  sort_models(models, view.order);
  for (std::size_t i = 0; i < models.size(); ++i) {
    const bool chosen = i == std::min(view.chosen, models.size() - 1);
    lines.push_back({model_line(models[i]), false, chosen});
    if (chosen && view.map) add_map(models[i], lines);
  }
  if (models.empty()) lines.push_back({d.server.empty() ? plain(d.note, 400) : "no model is loaded"});
  if (d.prompt_tokens > 0)
    lines.push_back({fmt::format("prompts: {:.0f} tokens, {:.0f} % of them known already", d.prompt_tokens,
                                 100 * d.cached_tokens / d.prompt_tokens)});
}

}  // namespace

std::vector<TopLine> top_lines(const TopData& d, const TopView& view, std::size_t width, std::size_t height) {
  std::vector<TopLine> lines;
  lines.push_back({fmt::format("steelyard top: {}{}",
                               d.server.empty() ? "no server, the devices alone" : plain(d.server, 40),
                               view.frozen ? "  FROZEN" : ""),
                   true});
  add_devices(d, lines);
  add_models(d, view, lines);
  if (height > 0 && lines.size() > height - 1) lines.resize(height - 1);
  lines.push_back(
      {fmt::format("q quit  f freeze  s sort ({})  up/down choose  m map", order_name(view.order)), true});
  for (TopLine& line : lines) line.text.resize(std::min(line.text.size(), width));
  return lines;
}

}  // namespace steelyard
