#include "app/common.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

#include "app/command_line.h"
#include "app/output.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/process.h"
#include "base/units.h"
#include "decoder/decoder.h"
#include "device/devices.h"
#include "engine/placement.h"
#include "store/store.h"

namespace steelyard {
namespace fs = std::filesystem;

void LoadFlags::add(CLI::App& command) {
  takes(command.add_option("--device", device,
                           "auto (default: as --placement chooses, else the CPU), cpu, or cuda0, cuda1 …"),
        "NAME", [](const std::string& text) { parse_device(text); });
  takes(command.add_option("--placement", placement,
                           "auto (default: what fits and is predicted to be fastest), single, stages, ranks, "
                           "or devices with their layers: cpu:0-9,cuda0:10-, or cuda0+cuda1"),
        "WHERE", [](const std::string& text) { parse_placement(text); });
  takes_number(
      command.add_option("-t,--threads", threads,
                         "CPU threads to compute with (default: one a core, less under a CPU quota)"),
      1, 1024);
  takes_number(command.add_option("-c,--context,--ctx-size,--num-ctx", context,
                                  "tokens a conversation may reach (default: 4096, at most as trained)"),
               8, 1 << 24);
  takes_one_of(command.add_option("--kv-type,--cache-type", kv_type,
                                  "type of the cached keys and values: f16 (default), q8_0 or f32"),
               {"f16", "q8_0", "f32"});
  takes_one_of(command.add_option(
                   "--mode", mode,
                   "fast (default), invariant (the same bits whatever else runs) or exact (float, slow)"),
               {"fast", "invariant", "exact"});
  takes(command.add_option(
            "--memory-limit", memory_limit,
            "memory that the whole program may take, such as 900M or 2G (default: what is free)"),
        "SIZE", [](const std::string& text) { parse_size(text); });
  takes(command.add_option("--memory", memory, "the same for devices by name, such as cuda0=10GiB,cpu=8GiB"),
        "LIST", [](const std::string& text) { parse_device_bytes(text); });
}

void LoadFlags::add_with_devices(CLI::App& command) {
  add(command);
  takes(command.add_option("--devices", devices,
                           "devices that may be used, such as cuda0,cuda1 (default: all, and the CPU)"),
        "LIST", [](const std::string& text) { parse_devices(text); });
}

ModelOptions LoadFlags::options() const {
  ModelOptions o;
  o.device = device;
  o.placement = placement;
  o.threads = threads;
  o.context = context;
  const std::string m = CLI::detail::to_lower(mode);
  o.mode = m == "exact" ? Mode::exact : m == "invariant" ? Mode::invariant : Mode::fast;
  if (o.mode == Mode::exact) {
    if (!kv_type.empty() && CLI::detail::to_lower(kv_type) != "f32")
      throw_usage("--mode exact keeps keys and values in f32: leave --kv-type {} out", kv_type);
    o.kv_type = DType::F32;
  } else if (!kv_type.empty()) {
    o.kv_type = find_dtype(CLI::detail::to_lower(kv_type))->type;
  }
  if (!memory_limit.empty()) o.memory_limit = parse_size(memory_limit);
  if (!memory.empty()) o.memory = parse_device_bytes(memory);
  if (!devices.empty()) o.devices = parse_devices(devices);
  return o;
}

CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& examples) {
  CLI::App* command = app.add_subcommand(name, description);
  command->footer("Examples:\n" + examples);
  return command;
}

void add_model_argument(CLI::App& command, std::string& model) {
  takes(command.add_option("MODEL", model, "a GGUF file, or a name from `steelyard list`")->required(),
        "NAME", [](const std::string& text) {
          if (text.empty()) throw_usage("the model's name is empty");
        });
}

fs::path resolve_model(const std::string& model) { return ModelStore::from_environment().resolve(model); }

std::string read_input(const std::string& file) {
  if (file != "-") {
    std::error_code error;
    const auto status = fs::status(file, error);
    if (!fs::exists(status)) throw_error(ErrorKind::not_found, "there is no file {}", file);
    if (fs::is_directory(status)) throw_error(ErrorKind::bad_input, "{} is a directory, not a file", file);
  }
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> f(
      file == "-" ? stdin : std::fopen(file.c_str(), "rb"),
      [](std::FILE* p) { return p == stdin ? 0 : fclose(p); });
  if (!f) throw_error(ErrorKind::io, "can't open {}: {}", file, std::strerror(errno));
  std::string text;
  char buffer[1 << 16];
  while (const std::size_t n = std::fread(buffer, 1, sizeof buffer, f.get())) text.append(buffer, n);
  if (std::ferror(f.get()))
    throw_error(ErrorKind::io, "can't read {}: {}", file == "-" ? "standard input" : file,
                std::strerror(errno));
  return text;
}

void note_device(const PreparedModel& m, bool always) {
  for (const std::string& text : m.notes) note("note: {}", text);
  if (!m.device_note.empty() && (always || m.gpu_passed_over)) note("{}; using the CPU", m.device_note);
  if (always && !m.placement_note.empty()) note("{}", m.placement_note);
}

std::string device_text(const DeviceInfo& d) {
  if (d.threads == 0) return fmt::format("{}: {}, {}", d.id, d.name, d.kernels);
  const CpuShare share = cpu_share();
  const std::string why = share.threads == d.threads && !share.why.empty() ? " (" + share.why + ")" : "";
  return fmt::format("{}, {} thread{}{}, {}", d.name, d.threads, d.threads == 1 ? "" : "s", why, d.kernels);
}

std::string devices_text(const PreparedModel& model) {
  if (model.parts.empty()) return device_text(model.device->info());
  std::string text;
  for (const PlacedPart& part : model.parts)
    text += (text.empty() ? "" : "\n") + device_text(part.device->info());
  return text;
}

const char* mode_name(Mode mode) {
  switch (mode) {
    case Mode::fast:
      return "fast";
    case Mode::invariant:
      return "invariant";
    case Mode::exact:
      return "exact";
  }
  return "?";
}

}  // namespace steelyard
