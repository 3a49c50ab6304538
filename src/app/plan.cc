// steelyard plan
#include <algorithm>
#include <filesystem>
#include <memory>

#include "app/command_line.h"
#include "app/commands.h"
#include "app/common.h"
#include "app/output.h"
#include "app/plan_devices.h"
#include "base/dtype.h"
#include "base/error.h"
#include "base/units.h"
#include "device/device.h"
#include "device/devices.h"
#include "engine/loaded_model.h"
#include "plan/fleet.h"
#include "plan/plan.h"
#include "store/mixture.h"
#include "store/remote_header.h"
#include "store/synth.h"

namespace steelyard {
namespace {

struct Flags {
  std::string model, type;
  std::uint32_t parallel = 1;
  std::string devices, svg;
  bool json = false;
  LoadFlags load;
};

// Members of the plan's object that say whether it fits.
void add_verdict(const Verdict& v, nlohmann::ordered_json& value) {
  value["fits"] = v.fits();
  value["needed_bytes"] = v.needed;
  value["available_bytes"] = v.available;
  value["longest_context"] = v.longest_context;
  if (!v.fits()) value["changes"] = v.changes;
}

nlohmann::ordered_json to_json(const MemoryPlan& plan) {
  nlohmann::ordered_json value = {
      {"mode", mode_name(plan.mode)},   {"kv_type", dtype_info(plan.kv_type).name},
      {"threads", plan.threads},        {"context", plan.limits.context},
      {"sequences", plan.limits.slots}, {"rows_per_step", plan.limits.rows}};
  for (const DevicePlan& d : plan.devices) {
    nlohmann::ordered_json device = {{"device", d.device}, {"total_bytes", d.total()}};
    device["lines"] = lines_json(d);
    value["devices"].push_back(std::move(device));
  }
  if (!plan.layers.empty()) value["layers"] = plan.layers;
  value["slow_types"] = plan.slow_types;
  return value;
}

// "cuda0,cpu": devices that are here; anything else describes some on paper.
bool names_devices(const std::string& text) {
  try {
    parse_devices(text);
    return true;
  } catch (const Error&) {
    return false;
  }
}

bool on_paper(const Flags& flags) { return !flags.devices.empty() && !names_devices(flags.devices); }

// A GPU that isn't here is planned for on paper, if somebody says how large it is.
ModelOptions options_for(const Flags& flags) {
  ModelOptions options = flags.load.options();
  options.slots = flags.parallel;
  if (!flags.devices.empty() && !on_paper(flags)) options.devices = parse_devices(flags.devices);
  const DeviceName device = parse_device(options.device);
  if (on_paper(flags)) {
    if (!options.memory.empty())
      throw_usage("--memory is for devices that are here: say in --devices how much memory each has");
    if (device.kind == DeviceName::Kind::cpu)
      throw_usage("--devices describes a GPU, so --device cpu can't go with it");
    if (is_fleet(flags.devices)) {
      if (options.memory_limit)
        throw_usage("--memory-limit is for one device: say in --devices how much memory each has");
      return options;
    }
    options.paper_bytes = parse_size(flags.devices);
  } else if (device.kind == DeviceName::Kind::cuda) {
    const CudaDevices found = find_cuda_devices();
    if (found.count > 0) return options;
    if (options.memory_limit == 0)
      throw_error(ErrorKind::not_found,
                  "there is no GPU to plan for ({}); say how large it is with --devices 80GiB", found.why);
    options.paper_bytes = options.memory_limit;
  }
  return options;
}

bool is_shape(const std::string& name) {
  return std::ranges::any_of(synth_shapes(), [&](const SynthShape& s) { return s.name == name; });
}

// The file to plan: of the store, or a header of a model that isn't here, in `scratch`.
std::filesystem::path find_model(const Flags& flags, const ScratchDirectory& scratch) {
  if (is_url(flags.model)) return fetch_header(flags.model, scratch.path());
  const bool shape = is_shape(flags.model);
  if (!flags.type.empty() && !shape)
    throw_usage("--type goes with a shape of `steelyard synth --list`, and '{}' is none", flags.model);
  if (shape && flags.type.empty()) {
    try {
      return resolve_model(flags.model);
    } catch (const Error& e) {
      if (e.kind() != ErrorKind::not_found) throw;
    }
  }
  if (!shape) return resolve_model(flags.model);
  const auto path = scratch.path() / (flags.model + ".gguf");
  SynthOptions options{.shape = flags.model};
  if (!flags.type.empty()) options.type = flags.type;
  write_synthetic_header(options, path);
  note("no file: planned by the shape of {}, weights as {}", flags.model, options.type);
  return path;
}

int plan(const Flags& flags) {
  const ModelOptions options = options_for(flags);
  const bool fleet = on_paper(flags) && is_fleet(flags.devices);
  if (!flags.svg.empty() && !fleet)
    throw_usage("--svg goes with devices that are named or counted, such as --devices 2x3090 or 1x24GiB");
  const ScratchDirectory scratch;
  const auto path = find_model(flags, scratch);
  if (fleet)
    return plan_devices(path, flags.model, options,
                        {.fleet = flags.devices, .svg = flags.svg, .json = flags.json});
  Devices devices;
  const PreparedModel prepared = prepare_model(path, options, devices, true);
  note_device(prepared, true);
  if (flags.json) {
    auto value = to_json(prepared.plan);
    add_verdict(prepared.verdict, value);
    if (!prepared.placement_note.empty()) value["placement"] = prepared.placement_note;
    if (prepared.predicted_tokens_per_second > 0)
      value["predicted_tokens_per_second"] = prepared.predicted_tokens_per_second;
    print_json(value);
  } else {
    write_stdout(to_text(prepared.plan) + to_text(prepared.verdict) + "\n");
  }
  return prepared.verdict.fits() ? 0 : 1;
}

// Devices that aren't here.
void add_paper_flags(CLI::App& command, Flags& flags) {
  takes(command.add_option("--devices", flags.devices,
                           "plan on paper for a GPU with so much memory, such as 24GiB, or for several "
                           "devices with predicted speed, such as 2x3090: see below; or for some of those "
                           "that are here: cuda0,cuda1"),
        "LIST", [](const std::string& text) {
          if (names_devices(text)) return;
          if (is_fleet(text))
            parse_fleet(text);
          else
            parse_size(text);
        });
  takes(command.add_option("--svg", flags.svg, "with several devices: a picture of their memory as well"),
        "FILE", [](const std::string& text) {
          if (text.empty() || text == "-") throw_usage("--svg takes the name of a file to write");
        });
}

}  // namespace

void add_plan(CLI::App& app, Action& action) {
  auto* command = add_command(
      app, "plan",
      "show what memory a model would take, to the byte, and whether it fits, without loading it",
      "  steelyard plan smollm2\n"
      "  steelyard plan llama-8b.gguf --context 32768 --kv-type q8_0 --parallel 4\n"
      "  steelyard plan llama-8b.gguf --memory-limit 4G      says what would make it fit\n"
      "  steelyard plan llama-8b.gguf --devices 24GiB        for a GPU that isn't here\n"
      "  steelyard plan qwen2.5-32b --type q4_k_m --devices 24GiB    by a shape, without a file\n"
      "  steelyard plan https://example.org/model.gguf       reads the header alone\n"
      "  steelyard plan qwen2.5-32b --devices 2x12GiB@360GB/s,cpu:64GiB@80GB/s --svg map.svg\n\n" +
          fleet_grammar());
  auto flags = std::make_shared<Flags>();
  takes(command
            ->add_option(
                "MODEL", flags->model,
                "a GGUF file, its address on a web server, a name from `steelyard list`, or a shape from "
                "`steelyard synth --list`")
            ->required(),
        "NAME", [](const std::string& text) {
          if (text.empty()) throw_usage("the model's name is empty");
        });
  takes(command->add_option("--type", flags->type,
                            "of a shape's weights: q4_k_m (default) or a type such as q8_0"),
        "TYPE", [](const std::string& text) { parse_mixture(text); });
  takes_number(command->add_option("--parallel", flags->parallel, "conversations running at once"), 1, 4096)
      ->capture_default_str();
  add_paper_flags(*command, *flags);
  command->add_flag("--json", flags->json, "print JSON");
  flags->load.add(*command);
  command->callback([&action, flags] { action = [flags] { return plan(*flags); }; });
}

}  // namespace steelyard
