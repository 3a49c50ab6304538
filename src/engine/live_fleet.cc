#include "engine/live_fleet.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/error.h"
#include "device/ceilings.h"
#include "device/target.h"
#include "observe/ceilings.h"

namespace steelyard {
namespace {

// Two channels of DDR4 or DDR5, and PCIe 4 x16 with half of it in use by others: what is taken where nothing
// was measured.
constexpr double kUsualHostRead = 40e9, kUsualLink = 12e9;

Ceilings kept_ceilings(const DeviceInfo& info) {
  try {
    return load_ceilings(ceilings_path(info)).value_or(Ceilings{});
  } catch (const Error&) {  // a damaged file, or no home: as if nothing had been measured
    return {};
  }
}

double best_multiply(const Ceilings& c) {
  double best = 0;
  for (const auto& [type, rate] : c.multiply_per_second) best = std::max(best, rate);
  return best;
}

PaperDevice paper_of(const FleetDevice& f, const Ceilings& c) {
  const DeviceInfo& info = f.device->info();
  const Target& target = f.device->target();
  PaperDevice d{.id = info.id, .title = info.name, .host = target.is_host(), .memory = f.room};
  if (d.host) {
    d.read_bytes_per_second = c.read_bytes_per_second > 0 ? c.read_bytes_per_second : kUsualHostRead;
    d.multiplies_per_second = best_multiply(c);
    return d;
  }
  // A plan on paper counts what a context usually takes, and the room counts what this one took.
  d.memory += target.context_bytes();
  d.memory -= std::min(d.memory, info.context_bytes);
  const NominalRates& n = info.nominal;
  d.read_bytes_per_second = n.read_bytes_per_second > 0 ? n.read_bytes_per_second : c.read_bytes_per_second;
  d.multiplies_per_second = n.multiplies_per_second;
  d.sm_cycles_per_second = n.sm_cycles_per_second;
  d.hopper = n.fast_kernels;
  return d;
}

double host_link(const Ceilings& c) {
  const double slower = std::min(c.to_device_bytes_per_second, c.from_device_bytes_per_second);
  return slower > 0 ? slower : kUsualLink;
}

}  // namespace

PaperFleet live_fleet(std::span<const FleetDevice> devices) {
  PaperFleet fleet;
  std::vector<double> link;
  for (const FleetDevice& f : devices) {
    const Ceilings kept = kept_ceilings(f.device->info());
    fleet.devices.push_back(paper_of(f, kept));
    link.push_back(fleet.devices.back().host ? 1e30 : host_link(kept));
    if (fleet.devices.back().host && kept.read_bytes_per_second <= 0)
      fleet.note = "the CPU's memory was never measured (`steelyard probe`): taken as 40 GB/s";
  }
  const std::size_t n = devices.size();
  fleet.links.resize(n * n);
  for (std::size_t a = 0; a < n; ++a)
    for (std::size_t b = a + 1; b < n; ++b)
      fleet.set_link(a, b, {"page-locked memory", std::min(link[a], link[b]), false});
  return fleet;
}

}  // namespace steelyard
