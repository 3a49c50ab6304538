// Devices to plan for that nobody need own: memory, rates and links, by name or by size. Pure.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace steelyard {

// A common GPU. Bandwidth and operations are nominal: what its maker names, not what kernels reach.
struct Card {
  std::string_view name;   // "3090", as --devices takes it
  std::string_view title;  // "RTX 3090"
  std::uint32_t memory_gib;
  double read_gb;               // GB/s
  double multiply_t;            // dense f16 products summed in f32, TFLOP/s
  std::uint32_t sm_operations;  // of those, what an SM does a clock
  std::string_view link;        // what joins two of them where nothing else is said
};
std::span<const Card> cards();

struct PaperDevice {
  std::string id;     // "CUDA0", "CPU"
  std::string title;  // "RTX 3090", "24.00 GiB at 936.0 GB/s"
  bool host = false;
  std::uint64_t memory = 0;                      // bytes
  double read_bytes_per_second = 0;              // nominal; 0: unknown
  double multiplies_per_second = 0;              // operations (a multiply-add is two); 0: unknown
  double sm_cycles_per_second = 0;               // SMs x clock; 0: unknown
  bool hopper = false;                           // has the fast kernels; others run the general ones
  bool as_fast(const PaperDevice& other) const;  // may be ranks together
  bool alike(const PaperDevice& other) const;    // in all that a plan weighs
};

// The way between two devices. Bandwidth is what a large copy reaches, one way.
struct DeviceLink {
  std::string name;             // "NVLink", "PCIe 4 x16"
  double bytes_per_second = 0;  // 0: there is none
  bool peer = false;            // a kernel writes into the other's memory; else through the host's
  bool operator==(const DeviceLink&) const = default;
};

struct PaperFleet {
  std::vector<PaperDevice> devices;  // the GPUs in order, then the CPU if it takes part
  std::vector<DeviceLink> links;     // [from][to], symmetric
  std::string note;                  // what had to be assumed; may be empty
  const DeviceLink& link(std::size_t a, std::size_t b) const { return links[a * devices.size() + b]; }
  void set_link(std::size_t a, std::size_t b, const DeviceLink& link);
  bool rates_known() const;  // of reading, for all devices
};

// Whether the text describes devices, and not the size of one GPU ("24GiB").
bool is_fleet(std::string_view text);

// Items with ',' or '+' between: "2x3090", "h200", "2x24GiB@936GB/s@71TFLOP/s" (the rates may be left out),
// "cpu:64GiB@80GB/s", and how the GPUs are joined: "nvlink", "pcie4x16", "link:50GB/s", "p2p" (PCIe with peer
// access). Throws Error(bad_input) naming the item and the way to write it.
PaperFleet parse_fleet(std::string_view text);
// The grammar and the cards, for the help.
std::string fleet_grammar();

}  // namespace steelyard
