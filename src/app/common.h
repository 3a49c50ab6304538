// Flags and small helpers that several commands share.
#pragma once

#include <CLI/CLI.hpp>
#include <filesystem>
#include <string>

#include "device/ceilings.h"
#include "device/device.h"
#include "engine/loaded_model.h"
#include "program/program.h"

namespace steelyard {

// Flags that say how a model is loaded.
struct LoadFlags {
  std::string device = "auto";
  std::string placement = "auto";
  std::uint32_t threads = 0;
  std::uint32_t context = 0;
  std::string kv_type;
  std::string mode = "fast";
  std::string memory_limit, devices, memory;

  void add(CLI::App& command);
  // --devices too, which `plan` has for itself.
  void add_with_devices(CLI::App& command);
  // Throws Error(bad_input).
  ModelOptions options() const;
};

// A command of the parser: its help ends with examples.
CLI::App* add_command(CLI::App& app, const std::string& name, const std::string& description,
                      const std::string& examples);
void add_model_argument(CLI::App& command, std::string& model);

// The file that MODEL means: a path, or a name in the store.
std::filesystem::path resolve_model(const std::string& model);

// A whole file, or stdin for "-". Throws Error(not_found, bad_input, io).
std::string read_input(const std::string& file);

const char* mode_name(Mode mode);

// The device's ceilings: the best ever measured, as kept in the user's cache. Measured now when none are kept
// or those were measured while the machine was busy, which takes a few seconds and is said on stderr.
Ceilings device_ceilings(Device& device, bool again = false);
// A cache that can't be written is said, not fatal.
void keep_ceilings(const Ceilings& ceilings, const DeviceInfo& device);

// Says on stderr what is to be known of a prepared model: its notes, and that it runs on the CPU and why,
// when nobody asked for that; `always`: also where there is no GPU.
void note_device(const PreparedModel& model, bool always);

// "AMD EPYC 9B45, 2 threads, avx512vnni" or "CUDA0: NVIDIA H100, sm_90"
std::string device_text(const DeviceInfo& device);
// Of all devices that a model lies on, a line each.
std::string devices_text(const PreparedModel& model);

}  // namespace steelyard
