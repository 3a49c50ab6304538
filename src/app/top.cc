// steelyard top
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "app/server_call.h"
#include "app/top_data.h"
#include "app/top_screen.h"
#include "app/top_terminal.h"
#include "base/error.h"
#include "device/telemetry.h"

namespace steelyard {
namespace {

struct Flags {
  ServerCall call;
  double interval = 1;
  bool once = false, json = false;
};

TopData look(const Flags& flags, const GpuMonitor* monitor) {
  try {
    TopData data = read_top(flags.call.text("/metrics"));
    data.server = flags.call.where();
    if (data.gpus.empty() && monitor) data.gpus = monitor->read();  // a server before it tells of them
    return data;
  } catch (const Error& e) {
    TopData data = this_machine(monitor);
    data.note = e.what();
    return data;
  }
}

// Two looks, so that there are rates.
int once(const Flags& flags, const GpuMonitor* monitor) {
  const TopData before = look(flags, monitor);
  std::this_thread::sleep_for(std::chrono::duration<double>(flags.interval));
  TopData now = look(flags, monitor);
  add_rates(before, now);
  if (flags.json)
    print_json(to_json(now));
  else
    for (const TopLine& line : top_lines(now, {}, 400, 400)) print("{}\n", line.text);
  return 0;
}

int watch(const Flags& flags, const GpuMonitor* monitor) {
  TopTerminal terminal;
  TopView view;
  TopData before = look(flags, monitor), shown = before;
  auto next = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  for (;;) {
    terminal.draw(shown, view);
    switch (terminal.key(next)) {
      case TopKey::quit:
        return 0;
      case TopKey::freeze:
        view.frozen = !view.frozen;
        break;
      case TopKey::sort:
        view.order = static_cast<TopOrder>((static_cast<int>(view.order) + 1) % 3);
        break;
      case TopKey::map:
        view.map = !view.map;
        break;
      case TopKey::up:
        view.chosen -= view.chosen > 0;
        break;
      case TopKey::down:
        view.chosen += view.chosen + 1 < shown.models.size();
        break;
      case TopKey::none:
        break;
    }
    if (std::chrono::steady_clock::now() < next) continue;
    next =
        std::chrono::steady_clock::now() + std::chrono::milliseconds(static_cast<int>(1000 * flags.interval));
    if (view.frozen) continue;
    shown = look(flags, monitor);
    add_rates(before, shown);
    before = shown;
  }
}

int top(const Flags& flags) {
  if (flags.json && !flags.once) throw_usage("--json goes with --once");
  const auto monitor = GpuMonitor::open();
  if (flags.once) return once(flags, monitor.get());
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO))
    throw_error(ErrorKind::bad_input, "top draws on a terminal, and this is none: --once prints once");
  return watch(flags, monitor.get());
}

}  // namespace

void add_top(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "top",
      "watch a running server's models and the machine's devices\n"
      "Tokens/s of each model with the share of the measured limit that it reaches, its queue, KV\n"
      "state and memory by device; each GPU's kernels and memory bus, clocks, power and heat.\n"
      "Keys: q quits, f freezes, s sorts by tokens/s, memory or name, m shows the chosen model's map.\n"
      "Without a server: the devices alone.",
      "  steelyard top\n"
      "  steelyard top --host 192.168.1.5:11434 --interval 2\n"
      "  steelyard top --once --json");
  auto flags = std::make_shared<Flags>();
  flags->call.add(*command);
  takes_number(command->add_option("--interval", flags->interval, "seconds between looks"), 0.1, 3600, false)
      ->capture_default_str();
  command->add_flag("--once", flags->once, "look twice, an interval apart, print once and end");
  command->add_flag("--json", flags->json, "with --once: print JSON");
  command->callback([&action, flags] { action = [flags] { return top(*flags); }; });
}

}  // namespace steelyard
