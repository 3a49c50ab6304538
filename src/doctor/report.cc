#include "doctor/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <string>

#include "base/units.h"
#include "observe/host.h"

namespace steelyard::doctor {
namespace {

std::string rate_text(double bytes_per_second) {
  return bytes_per_second > 0 ? fmt::format("{:.1f}", bytes_per_second / 1e9) : "–";
}

std::string tokens_text(double rate) {
  return rate < 100 ? fmt::format("{:.1f}", rate) : fmt::format("{:.0f}", rate);
}

std::string device_line(const DeviceFacts& d) { return d.name.empty() ? d.id : d.id + ": " + d.name; }

// ---- (b) the step ----

std::string step_table(const Facts& f) {
  double all = 0;
  for (const DeviceFacts& d : f.devices) all += d.seconds();
  if (all <= 0) return {};
  std::string text =
      fmt::format("a token, at {} tokens of conversation\n{:<8}{:<20}{:>12}{:>10}{:>9}{:>9}{:>8}\n", f.depth,
                  "", "", "bytes", "ms", "GB/s", "limit", "share");
  for (const DeviceFacts& d : f.devices) {
    const char* name = d.id.c_str();
    for (const StepLine& line : d.step) {
      text += fmt::format("{:<8}{:<20}{:>12}{:>10.3f}{:>9}{:>9}{:>6.1f} %\n", name, part_name(line.part),
                          line.bytes > 0 ? size_text(static_cast<std::uint64_t>(line.bytes)) : "–",
                          1e3 * line.seconds, line.bytes > 0 ? rate_text(line.rate()) : "–",
                          rate_text(line.limit), 100 * line.seconds / d.seconds());
      name = "";
    }
  }
  return text + "\n";
}

// Where nothing was measured: what must be read, and how long that takes at best.
std::string reads_table(const Facts& f) {
  double sum = 0;
  for (const DeviceFacts& d : f.devices) sum += d.reads();
  if (sum <= 0) return {};
  std::string text = fmt::format("a token reads\n{:<8}{:<34}{:>12}{:>16}{:>14}\n", "", "", "bytes",
                                 "GB/s at best", "ms at that");
  for (const DeviceFacts& d : f.devices) {
    if (d.reads() <= 0) continue;
    const bool known = d.read_rate > 0;
    text += fmt::format("{:<8}{:<34}{:>12}{:>16}{:>14}\n", d.id, d.name.substr(0, 33),
                        size_text(static_cast<std::uint64_t>(d.reads())),
                        known ? rate_text(d.read_rate) + (d.nominal ? " nominal" : "") : "unknown",
                        known ? fmt::format("{:.1f}", 1e3 * d.reads() / d.read_rate) : "–");
  }
  return text + "\n";
}

// ---- (c) what lies where ----

std::string memory_text(const Facts& f) {
  std::string text;
  for (const DeviceFacts& d : f.devices) {
    std::string holds;
    for (const auto& [purpose, bytes] : d.holds)
      holds += fmt::format("{}{} {}", holds.empty() ? "" : ", ", purpose, size_text(bytes));
    for (const OtherProcess& p : d.others)
      holds += fmt::format("{}{} (another program) {}", holds.empty() ? "" : ", ",
                           p.name.empty() ? "unknown" : p.name, size_text(p.bytes));
    if (holds.empty()) holds = "nothing of the model";
    text += fmt::format("{:<8}{}", d.id, holds);
    if (d.memory)
      text += fmt::format("; of {}, {} free", size_text(d.memory), size_text(d.free, Rounding::down));
    text += "\n";
    if (d.holds.contains("embedding"))
      text += fmt::format("{:<8}the embedding is a table: a token reads one row of it, which costs no time\n",
                          "");
  }
  return text.empty() ? text : "memory\n" + text + "\n";
}

// ---- (d) links ----

std::string links_text(const Facts& f) {
  std::string text;
  for (const LinkFacts& l : f.links)
    text += fmt::format(
        "{} to {}: {}, {}{}\n", l.from, l.to, l.way,
        l.measured > 0 ? fmt::format("measured {:.1f} GB/s", l.measured / 1e9) : "not measured",
        l.used_bytes > 0
            ? fmt::format(", a token hands over {}", size_text(static_cast<std::uint64_t>(l.used_bytes)))
            : "");
  for (const DeviceFacts& d : f.devices)
    if (d.health && d.health->link_width_most)
      text += fmt::format("{}: PCI Express {} x{} now, {} x{} at most\n", d.id, d.health->link_generation,
                          d.health->link_width, d.health->link_generation_most, d.health->link_width_most);
  return text.empty() ? text : "links\n" + text + "\n";
}

// ---- (e) the machine ----

std::string gpu_health(const DeviceFacts& d) {
  const GpuHealth& h = *d.health;
  std::string held;
  for (const auto& [on, what] :
       {std::pair{h.power_capped, "power limit"}, {h.too_hot, "heat"}, {h.clocks_set, "clocks set"}})
    if (on) held += fmt::format("{}{}", held.empty() ? ", held back by: " : ", ", what);
  return fmt::format("{}: {:.0f} of {:.0f} MHz, {:.0f} °C, {:.0f} of {:.0f} W{}\n", device_line(d),
                     h.clock_mhz, h.clock_most_mhz, h.celsius, h.watts, h.watts_limit, held);
}

std::string host_text(const Facts& f) {
  const HostFacts& h = *f.host;
  std::string text = fmt::format(
      "{}: {} logical cores{}, {} usable{}, {} NUMA node{}{}\n", h.cpu.empty() ? "CPU" : h.cpu, h.cores,
      h.physical && h.physical < h.cores ? fmt::format(" ({} physical)", h.physical) : "", h.usable,
      h.quota > 0 ? fmt::format(", quota {:.4g}", h.quota) : "", h.numa_nodes, h.numa_nodes == 1 ? "" : "s",
      h.governor.empty() ? "" : ", clocks: " + h.governor);
  text += fmt::format(
      "memory {}, {} free{}; swap {}{}\n", size_text(h.memory), size_text(h.available, Rounding::down),
      h.memory_limit ? fmt::format(", container's limit {}", size_text(h.memory_limit)) : "",
      h.swap ? size_text(h.swap) : "none", h.swap ? fmt::format(", {} used", size_text(h.swap_used)) : "");
  if (f.run)
    text += fmt::format(
        "while it ran: {:.1f} cores busy with it{}, {:.1f} with other programs; {} pages from the disk{}\n",
        f.run->own_cores, f.threads ? fmt::format(" ({} threads)", f.threads) : "", f.run->other_cores,
        f.run->major_faults,
        f.run->throttled > 0 ? fmt::format("; {:.2f} s held up by the quota", f.run->throttled) : "");
  return text;
}

std::string machine_text(const Facts& f) {
  std::string text;
  for (const DeviceFacts& d : f.devices)
    if (d.health) text += gpu_health(d);
  if (f.host) text += host_text(f);
  if (!f.no_gpu.empty()) text += f.no_gpu + "\n";
  if (!f.driver.empty()) text += "driver " + f.driver + "\n";
  if (f.file)
    text +=
        fmt::format("file {} on {}{}, {:.0f} % in the page cache{}{}\n", size_text(f.file->bytes),
                    f.file->system.empty() ? "an unknown file system" : f.file->system,
                    f.file->spinning ? " (a disk that turns)" : "", 100 * f.file->cached,
                    f.file->read_rate > 0 ? fmt::format(", disk {:.0f} MB/s", f.file->read_rate / 1e6) : "",
                    f.load_seconds > 0 ? fmt::format(", loaded in {:.2f} s", f.load_seconds) : "");
  return text.empty() ? text : "machine\n" + text + "\n";
}

// ---- (f) changes ----

std::string prediction(const Finding& x) {
  if (x.predicted <= 0) return "";
  return fmt::format(" → {}{} tokens/s{}", x.at_most ? "at most " : "predicted ", tokens_text(x.predicted),
                     x.together ? " of all together" : "");
}

std::string changes_text(const std::vector<Finding>& findings) {
  if (findings.empty()) return "nothing found that would make it faster\n";
  std::string text;
  int number = 0;
  bool offers = false;
  for (const Finding& x : findings) {
    if (!x.price.empty() && !offers) {
      text += (number ? "\n" : "nothing is wrong\n\n") + std::string("possible, at a price\n");
      offers = true;
    }
    if (number == 0 && !offers) text += "what to change, what brings most first\n";
    text += fmt::format("{}. {}{}\n   {}\n   set: {}\n", ++number, info(x.cause).title, prediction(x),
                        x.evidence, x.change);
    if (!x.price.empty()) text += fmt::format("   costs {}\n", x.price);
  }
  return text;
}

std::string title(const Facts& f) {
  if (f.model.empty()) return {};
  std::string text = redacted(f.model);
  if (!f.quantization.empty()) text += ", " + f.quantization;
  if (f.layers) text += fmt::format(", {} of {} layers on GPUs", f.layers_on_gpu, f.layers);
  if (f.context) text += fmt::format(", context {}", f.context);
  if (!f.kv_type.empty()) text += fmt::format(", keys and values {}", f.kv_type);
  return fmt::format("{}, run by {}\n", text, engine_name(f.engine));
}

const DeviceFacts* largest_part(const Facts& f, const StepLine** line) {
  const DeviceFacts* where = nullptr;
  for (const DeviceFacts& d : f.devices)
    for (const StepLine& l : d.step)
      if (!*line || l.seconds > (*line)->seconds) *line = &l, where = &d;
  return where;
}

}  // namespace

std::string redacted(const std::string& path) {
  std::string name = path.substr(path.find_last_of("/\\") + 1);
  const bool digest = name.starts_with("sha256") && name.size() > 24;
  return digest ? name.substr(0, 19) + "…" : name;
}

std::string headline(const Facts& f, const std::vector<Finding>& findings) {
  const double limit = limit_seconds(f);
  std::string text = f.tokens_per_second > 0
                         ? fmt::format("you get {} tokens/s", tokens_text(f.tokens_per_second))
                         : "the speed isn't known";
  text += limit > 0 ? fmt::format("; this machine's limit for this file is {}", tokens_text(1 / limit))
                    : "; this machine's limit for this file isn't known";
  if (f.tokens_per_second > 0 && limit > 0)
    text += fmt::format(" ({:.0f} % of it is reached)", 100 * std::min(1.0, f.tokens_per_second * limit));
  const bool fault = !findings.empty() && findings.front().price.empty();
  const StepLine* line = nullptr;
  const DeviceFacts* where = largest_part(f, &line);
  double share = fault ? findings.front().share : 0;
  if (fault && share <= 0 && f.tokens_per_second > 0 && findings.front().predicted > f.tokens_per_second)
    share = 1 - f.tokens_per_second / findings.front().predicted;
  if (share > 0)
    text += fmt::format("; {:.0f} % of the time goes to {}", 100 * share, info(findings.front().cause).title);
  else if (where)
    text += fmt::format("; {:.0f} % of the time goes to {} on {}", 100 * f.share(line->part),
                        part_name(line->part), where->id);
  return text;
}

std::string to_text(const Facts& f, const std::vector<Finding>& findings) {
  std::string text = title(f);
  if (!f.model.empty() || f.layers > 0 || f.tokens_per_second > 0) text += headline(f, findings) + "\n\n";
  const std::string steps = step_table(f);
  return text + (steps.empty() ? reads_table(f) : steps) + memory_text(f) + links_text(f) + machine_text(f) +
         changes_text(findings);
}

}  // namespace steelyard::doctor
